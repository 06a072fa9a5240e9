"""Whoever stops waiting or holding, at whatever moment, leaves no slot behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from leasehold import concurrency
from leasehold.concurrency import leases
from leasehold.concurrency.asyncio import rate_limit
from leasehold.exceptions import AcquireConcurrencySlotTimeoutError
from scenarios.gauges import slots_in_use, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VICTIM = Path(__file__).with_name("interrupted.py")


@pytest.fixture(params=["asyncio", "trio"])
def loop(request: pytest.FixtureRequest) -> str:
    """Both kinds of event loop."""
    return str(request.param)


def moments(count: int, seconds: float) -> Iterator[float]:
    return (seconds * number / count for number in range(count))


def test_an_async_block_cancelled_at_any_moment_leaves_no_slot(
    loop: str, limit: Callable[[int], str]
) -> None:
    name = f"tag:{limit(1)}"

    async def cancelled_after(seconds: float) -> None:
        with anyio.move_on_after(seconds):
            async with concurrency(name):
                await anyio.sleep(0.01)

    async def main() -> None:
        for seconds in moments(40, 0.06):
            await cancelled_after(seconds)
        async with anyio.create_task_group() as several:  # and while others are in the way
            for seconds in moments(40, 0.2):
                several.start_soon(cancelled_after, seconds)

    anyio.run(main, backend=loop)
    wait_until(lambda: slots_in_use(name.removeprefix("tag:")) == 0)
    assert leases() == []


def test_an_async_body_that_raises_leaves_no_slot(loop: str, limit: Callable[[int], str]) -> None:
    tag = limit(1)

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with concurrency(f"tag:{tag}"):
                raise ZeroDivisionError
        async with concurrency(f"tag:{tag}", timeout_seconds=10):
            pass

    anyio.run(main, backend=loop)
    wait_until(lambda: slots_in_use(tag) == 0)


def test_the_time_in_the_queue_counts(limit: Callable[[int], str]) -> None:
    name = f"tag:{limit(1)}"
    waited: list[float] = []

    def wait() -> None:
        started = time.monotonic()
        with (
            pytest.raises(AcquireConcurrencySlotTimeoutError),
            concurrency(name, timeout_seconds=1),
        ):
            pass
        waited.append(time.monotonic() - started)

    with concurrency(name):
        threads = [threading.Thread(target=wait) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(waited) == 5
    assert all(1 <= seconds < 2 for seconds in waited)


def test_without_patience_only_what_is_free_now_is_taken(limit: Callable[[int], str]) -> None:
    name = f"tag:{limit(1)}"
    with (
        concurrency(name, timeout_seconds=0),
        pytest.raises(TimeoutError),
        concurrency(name, timeout_seconds=0),
    ):
        pass
    wait_until(lambda: slots_in_use(name.removeprefix("tag:")) == 0)
    with concurrency(name, timeout_seconds=0):
        pass


def test_a_block_that_nobody_can_reach_any_more_is_given_back(limit: Callable[[int], str]) -> None:
    tag = limit(1)

    def never_finished() -> Iterator[None]:
        with concurrency(f"tag:{tag}"):
            yield

    generator = never_finished()
    next(generator)
    assert slots_in_use(tag) == 1
    del generator
    wait_until(lambda: slots_in_use(tag) == 0)


@pytest.mark.timeout(120)
def test_ctrl_c_at_any_moment_leaves_no_slot_in_a_process_that_lives_on(
    limit: Callable[[int], str],
) -> None:
    tag = limit(1)
    victim = subprocess.Popen(
        [sys.executable, str(VICTIM), tag], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert victim.stdin is not None
    assert victim.stdout is not None
    try:
        for moment in moments(12, 0.05):
            assert victim.stdout.readline() == "start\n"
            time.sleep(moment)
            victim.send_signal(signal.SIGINT)
            assert victim.stdout.readline() == "interrupted\n"
            victim.stdin.write("again\n")
            victim.stdin.flush()
        assert victim.stdout.readline() == "start\n"
        with concurrency(f"tag:{tag}"):  # waits until the victim's turn is over, then it waits
            time.sleep(1)
            victim.send_signal(signal.SIGINT)
            assert victim.stdout.readline() == "interrupted\n"
        wait_until(lambda: slots_in_use(tag) == 0)
        assert victim.poll() is None
    finally:
        victim.stdin.close()
        assert victim.wait(20) == 0
        victim.stdout.close()


def test_an_async_rate_limit_cancelled_at_any_moment_waits_for_nothing(
    loop: str, backend: str
) -> None:
    async def main() -> None:
        for seconds in moments(10, 0.03):
            with anyio.move_on_after(seconds):
                await rate_limit(f"no-such-limit-{os.getpid()}")

    anyio.run(main, backend=loop)
