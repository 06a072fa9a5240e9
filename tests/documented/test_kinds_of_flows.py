"""Flows. Parameters, options, hooks, time limits: tests/authoring/test_flows."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from leasehold import flow, task
from leasehold.context import FlowRunContext
from leasehold.exceptions import OptionError, RunTimeoutError, UnsupportedFeatureError
from leasehold.runtime import flow_run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@task
def double(number: int) -> int:
    return 2 * number


class Report:
    """Has flows as methods."""

    title = "totals"

    @flow
    def of_an_object(self) -> str:
        """Tell the object's title."""
        return self.title

    @flow
    @classmethod
    def of_the_class(cls) -> str:
        """Tell the class."""
        return cls.__name__

    @flow
    @staticmethod
    def of_nobody(number: int) -> int:
        """Give what it got."""
        return number


def test_methods_are_flows() -> None:
    assert Report().of_an_object() == "totals"
    assert Report.of_the_class() == "Report"
    assert Report.of_nobody(3) == 3


def test_a_flow_may_yield_and_is_the_current_run_only_while_it_works() -> None:
    ended = []

    @flow
    def numbers(count: int) -> Iterator[tuple[int, Any]]:
        try:
            for number in range(count):
                yield double(number), flow_run.flow_name
        finally:
            ended.append(1)

    stream = numbers(3)
    assert next(stream) == (0, "numbers")
    assert FlowRunContext.get() is None
    assert list(stream) == [(2, "numbers"), (4, "numbers")]
    assert ended == [1]


def test_a_flow_that_yields_may_be_left_early() -> None:
    done = []

    @task
    def slow() -> None:
        time.sleep(0.1)
        done.append("task")

    def tell(_: Any, run: Any, state: Any) -> None:
        done.append(state.name)

    @flow(on_completion=[tell])
    def numbers() -> Iterator[int]:
        slow.submit()
        yield 1
        yield 2

    stream: Any = numbers()
    assert next(stream) == 1
    stream.close()
    assert done[-1] == "Completed"


def test_a_flow_that_yields_may_fail_and_be_retried_from_its_beginning() -> None:
    tries = []

    @flow(retries=1)
    def flaky() -> Iterator[int]:
        tries.append(1)
        yield len(tries)
        if len(tries) == 1:
            raise OSError("not yet")

    assert list(flaky()) == [1, 2]

    @flow
    def fails() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("after one")

    with pytest.raises(ZeroDivisionError, match="after one"):
        list(fails())


def test_an_async_flow_may_yield() -> None:
    @flow
    async def numbers() -> AsyncIterator[Any]:
        for number in range(2):
            await asyncio.sleep(0)
            yield double.submit(number).result(), flow_run.flow_name

    async def consume() -> Any:
        return [(item, FlowRunContext.get()) async for item in numbers()]

    assert asyncio.run(consume()) == [((0, "numbers"), None), ((2, "numbers"), None)]


def test_a_time_limit_counts_what_yields_and_not_its_consumer() -> None:
    @flow(timeout_seconds=0.5)
    def patient() -> Iterator[int]:
        yield 1
        yield 2

    @task(timeout_seconds=0.3)
    def hangs() -> Iterator[int]:
        yield 1
        while True:
            time.sleep(0.01)

    @task(timeout_seconds=0.3)
    async def hangs_async() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(30)

    async def consume() -> list[int]:
        return [item async for item in hangs_async()]

    seen = []
    for number in patient():
        time.sleep(0.4)
        seen.append(number)
    assert seen == [1, 2]
    with pytest.raises(RunTimeoutError, match=r"hangs-1 took longer than its timeout of 0\.3 s"):
        list(hangs())
    with pytest.raises(RunTimeoutError, match=r"hangs_async-1 took longer"):
        asyncio.run(consume())


def test_what_yields_has_no_state_to_give() -> None:
    @flow
    def numbers() -> Iterator[int]:
        yield 1

    with pytest.raises(OptionError, match="Flow 'numbers' yields"):
        numbers(return_state=True)


def test_a_generator_that_a_run_returns_is_worked_off_inside_of_it() -> None:
    seen = []

    def work() -> Iterator[Any]:
        for number in range(2):
            seen.append(flow_run.flow_name)
            yield number

    @task
    def lazy() -> Any:
        return work()

    @flow(name="outer")
    def outer() -> Any:
        return [lazy(), lazy.submit().result()]

    returning: Any = flow(name="returning")(lambda: work())  # noqa: PLW0108 - work itself yields
    assert outer() == [[0, 1], [0, 1]]
    assert returning() == [0, 1]
    assert seen == ["outer"] * 4 + ["returning"] * 2


def test_deployments_and_pictures_are_refused_by_name() -> None:
    for method in ("serve", "deploy", "visualize", "generate_mermaid_graph"):
        with pytest.raises(UnsupportedFeatureError, match=rf"Flow 'of-nobody' has no \.{method}"):
            getattr(Report.of_nobody, method)
