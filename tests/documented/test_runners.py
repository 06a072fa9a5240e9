"""Task runners. Waiting without workers, sizes, Ctrl-C, processes: tests/runners."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from leasehold import flow, get_client, task, unmapped
from leasehold.exceptions import ParameterBindError
from leasehold.futures import as_completed, wait
from leasehold.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
from runners import bodies


@task
def power(base: int, exponent: int = 2) -> int:
    return int(base**exponent)


@task
def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_a_pool_of_three_runs_three_at_a_time() -> None:
    running = threading.Semaphore(3)

    @task
    def stop_at(floor: int) -> int:
        assert running.acquire(blocking=False), "more than three at once"
        time.sleep(0.02)
        running.release()
        return floor

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=3))
    def elevator() -> Any:
        floors = [stop_at.submit(floor) for floor in range(9, 0, -1)]
        wait(floors)
        return [floor.result() for floor in floors]

    assert elevator() == list(range(9, 0, -1))


def test_a_runner_may_be_used_where_no_flow_is_running() -> None:
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("narrow", 1)
    tagged = power.with_options(tags=["narrow"])
    with ThreadPoolTaskRunner(max_workers=2) as runner:
        first = runner.submit(tagged, {"base": 2})
        second = runner.submit(tagged, {"base": first, "exponent": 3}, wait_for=[first])
        many = runner.map(power, {"base": [1, 2, 3], "exponent": unmapped(3)})
        assert (first.result(), second.result(), many.result()) == (4, 64, [1, 8, 27])
        with pytest.raises(ParameterBindError, match="unexpected argument 'basis'"):
            runner.submit(power, {"basis": 2})


def test_a_pool_of_processes_may_be_used_so_too() -> None:
    with ProcessPoolTaskRunner(max_workers=1) as runner:
        added = runner.submit(bodies.add_async, {"a": 1, "b": 2})
        assert added.result() == 3


def test_results_are_taken_as_they_come_or_after_a_time() -> None:
    @flow
    def racing() -> Any:
        futures = sleep.map([0.3, 0.0])
        early = [future.result() for future in as_completed(futures)]
        slow = sleep.submit(1.5)
        done, not_done = wait([*futures, slow], timeout=0.05)
        return early, len(done), not_done == {slow}

    assert racing() == ([0.0, 0.3], 2, True)


def test_async_tasks_are_submitted_from_sync_flows_and_the_other_way_round() -> None:
    @task
    async def later(value: int) -> int:
        await asyncio.sleep(0)
        return value

    @flow
    async def asynchronous() -> Any:
        return [power.submit(3).result(), later.map([1, 2]).result()]

    assert flow(lambda: [later.submit(1).result()])() == [1]
    assert asyncio.run(asynchronous()) == [9, [1, 2]]


def test_async_work_runs_at_the_same_time() -> None:
    @task
    async def nap(number: int) -> int:
        await asyncio.sleep(0.2)
        return number

    @flow
    async def gathered() -> Any:
        return list(await asyncio.gather(*(nap(number) for number in range(10))))

    @flow
    async def some_first() -> Any:
        naps = [asyncio.create_task(nap(number)) for number in range(3)]
        return sorted([await one for one in asyncio.as_completed(naps)])

    began = time.monotonic()
    assert asyncio.run(gathered()) == list(range(10))
    assert asyncio.run(some_first()) == [0, 1, 2]
    assert time.monotonic() - began < 0.2 * 10
