"""The main job, on the embedded ledger and on a real server: tagged tasks hold leases."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from leasehold import flow, tags, task
from leasehold.task_runners import ThreadPoolTaskRunner
from scenarios.gauges import slots_in_use

if TYPE_CHECKING:
    from collections.abc import Callable

    from scenarios.gauges import Gauge


def test_forty_tasks_under_a_limit_of_three_run_three_at_a_time(
    limit: Callable[[int], str], gauge: Gauge
) -> None:
    tag = limit(3)

    @task(tags=[tag])
    def body(number: int) -> int:
        gauge.work()
        return number

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=16))
    def forty() -> list[int]:
        results: list[int] = body.map(range(40)).result()
        return results

    assert forty() == list(range(40))
    assert gauge.peak == 3
    assert gauge.runs == 40


def test_a_task_with_two_tags_holds_a_slot_of_each(
    limit: Callable[[int], str], gauge: Gauge
) -> None:
    narrow, wide = limit(2), limit(5)
    seen = []

    @task(tags=[narrow, wide])
    def both(_: int) -> None:
        gauge.work()
        seen.append((slots_in_use(narrow), slots_in_use(wide)))

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
    def pairs() -> None:
        both.map(range(8)).result()

    pairs()
    assert gauge.peak == 2
    # Read one after the other, they may differ by what others give back between the two.
    assert all(1 <= used <= 2 for both_used in seen for used in both_used)


def test_four_processes_share_a_limit_of_two(limit: Callable[[int], str], tmp_path: Path) -> None:
    tag, log = limit(2), tmp_path / "log"
    script = str(Path(__file__).with_name("worker.py"))
    workers = [
        subprocess.Popen([sys.executable, script, tag, "8", str(log)], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for worker in workers:
        _, stderr = worker.communicate(timeout=100)
        assert worker.returncode == 0, stderr.decode()

    running, peak = 0, 0
    lines = sorted(line.split() for line in log.read_text().splitlines())
    for _, sign in lines:
        running += int(sign)
        peak = max(peak, running)
    assert len(lines) == 2 * 4 * 8
    assert peak == 2


def test_a_task_that_raises_gives_its_slot_back(limit: Callable[[int], str]) -> None:
    tag = limit(1)

    @task(tags=[tag])
    def body(number: int) -> int:
        if number % 2:
            raise ZeroDivisionError(f"{number} is odd")
        return number

    @flow
    def mixed() -> list[object]:
        return [future.result(raise_on_failure=False) for future in body.map(range(6))]

    results = mixed()
    assert results[::2] == [0, 2, 4]
    assert all(isinstance(result, ZeroDivisionError) for result in results[1::2])


def test_async_tasks_hold_slots_too(limit: Callable[[int], str], gauge: Gauge) -> None:
    tag = limit(3)

    @task(tags=[tag])
    async def body(number: int) -> int:
        with gauge:
            await asyncio.sleep(0.05)
        return number

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=16))
    async def submitted() -> list[int]:
        futures = body.map(range(20))
        return [await future.result_async() for future in futures]

    assert asyncio.run(submitted()) == list(range(20))
    assert gauge.peak == 3


def test_async_tasks_that_are_awaited_hold_slots_too(
    limit: Callable[[int], str], gauge: Gauge
) -> None:
    tag = limit(3)

    @task(tags=[tag])
    async def body(number: int) -> int:
        with gauge:
            await asyncio.sleep(0.05)
        return number

    @flow
    async def gathered() -> list[int]:
        return list(await asyncio.gather(*(body(number) for number in range(20))))

    assert asyncio.run(gathered()) == list(range(20))
    assert gauge.peak == 3


@pytest.mark.parametrize("way", ["call", "submit", "map"])
def test_tags_from_the_enclosing_block_count(
    limit: Callable[[int], str], gauge: Gauge, way: str
) -> None:
    tag = limit(2)
    used = []

    @task
    def body(_: int) -> None:
        gauge.work()
        used.append(slots_in_use(tag))

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
    def tagged() -> None:
        with tags(tag):
            if way == "call":
                body(0)
            elif way == "submit":
                for future in [body.submit(number) for number in range(6)]:
                    future.wait()
            else:
                body.map(range(6)).wait()

    tagged()
    assert gauge.peak == (1 if way == "call" else 2)
    assert all(1 <= count <= 2 for count in used)
