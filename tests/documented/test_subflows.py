"""Flows in flows. Runners, tags, parents of subflows: tests/authoring/test_flows."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest

from leasehold import flow, task
from leasehold.runtime import flow_run


@task
def load(number: int) -> int:
    return number


@flow
def child(number: int) -> Any:
    return load.submit(number).result() + 1, flow_run.parent_flow_run_id


@flow
def is_even(number: int) -> bool:
    return number % 2 == 0


def test_what_a_subflow_gives_decides_what_its_parent_does() -> None:
    @flow
    def parent(number: int) -> str:
        return "even" if is_even(load(number)) else "odd"

    assert [parent(number) for number in (2, 3)] == ["even", "odd"]


def test_a_subflow_that_fails_fails_its_parent_unless_its_state_is_asked_for() -> None:
    @flow
    def fails() -> None:
        raise ZeroDivisionError("inside")

    @flow
    def parent(*, tolerant: bool) -> str:
        return fails(return_state=True).name if tolerant else str(fails())

    assert parent(tolerant=True) == "Failed"
    with pytest.raises(ZeroDivisionError, match="inside"):
        parent(tolerant=False)


def test_subflows_run_side_by_side_in_threads_and_know_their_parent() -> None:
    @flow
    def parent() -> Any:
        contexts = [copy_context() for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            futures = [pool.submit(one.run, child, n) for n, one in enumerate(contexts)]
            return flow_run.id, [future.result() for future in futures]

    own, told = parent()
    assert told == [(1, own), (2, own), (3, own)]


def test_a_task_may_run_a_flow() -> None:
    @task
    def runs_one(number: int) -> Any:
        return child(number)

    @flow
    def parent() -> Any:
        return flow_run.id, runs_one.map([1, 2]).result()

    own, told = parent()
    assert told == [(2, own), (3, own)]


def test_async_subflows_and_tasks_are_awaited_together() -> None:
    @task
    async def nap(number: int) -> int:
        await asyncio.sleep(0.2)
        return number

    @flow
    async def inner(number: int) -> int:
        return await nap(number)

    @flow
    async def outer() -> Any:
        return await asyncio.gather(inner(1), inner(2), nap(3), nap(4))

    began = time.monotonic()
    assert asyncio.run(outer()) == [1, 2, 3, 4]
    assert time.monotonic() - began < 0.2 * 4 + 1
