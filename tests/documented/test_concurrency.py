"""Global limits and rate limits inside of flows. Waiting, losing, cancelling: tests/holding."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from leasehold import concurrency, flow, get_client, task, wait
from leasehold.client.schemas.actions import GlobalConcurrencyLimitCreate
from leasehold.concurrency.asyncio import concurrency as async_concurrency
from leasehold.concurrency.asyncio import rate_limit as async_rate_limit
from leasehold.concurrency.sync import concurrency as sync_concurrency
from leasehold.concurrency.sync import rate_limit
from leasehold.exceptions import ConcurrencySlotAcquisitionError


def make_limit(name: str, size: int, decay: float = 0.0) -> None:
    wanted = GlobalConcurrencyLimitCreate(name=name, limit=size, slot_decay_per_second=decay)
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(wanted)


class Peak:
    """The most that were inside at once."""

    def __init__(self) -> None:
        self.most = self.now = 0
        self._lock = threading.Lock()

    def enter(self) -> None:
        """Count one more."""
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def leave(self) -> None:
        """Count one less."""
        with self._lock:
            self.now -= 1


def test_tasks_share_a_global_limit() -> None:
    make_limit("database", 2)
    peak = Peak()

    @task
    def sync_work(a: int, b: int) -> int:
        with sync_concurrency("database", occupy=1):
            peak.enter()
            time.sleep(0.02)
            peak.leave()
            return a + b

    @task
    async def async_work(a: int, b: int) -> int:
        async with async_concurrency("database", occupy=1):
            peak.enter()
            await asyncio.sleep(0.02)
            peak.leave()
        return a + b

    @flow
    def both() -> list[int]:
        futures = [work.submit(n, n) for n in range(4) for work in (sync_work, async_work)]
        wait(futures)
        return [future.result() for future in futures]

    assert both() == [0, 0, 2, 2, 4, 4, 6, 6]
    assert peak.most == 2


def test_a_limit_that_must_exist_is_asked_for_strictly() -> None:
    @task
    def strict() -> int:
        with sync_concurrency("database", occupy=1, strict=True):
            return 1

    with pytest.raises(ConcurrencySlotAcquisitionError, match="database"):
        flow(lambda: strict())()  # noqa: PLW0108 - a flow is no method of a task
    make_limit("database", 1)
    assert flow(lambda: [strict()])() == [1]
    with sync_concurrency("database", strict=True, raise_on_lease_renewal_failure=False):
        pass


def test_work_in_portions_takes_several_slots_at_a_time() -> None:
    make_limit("portions", 5)

    async def process(item: int) -> int:
        await asyncio.sleep(0)
        return item

    async def main() -> list[int]:
        items, done = list(range(15)), []
        while items:
            with concurrency("portions", occupy=5):
                portion = [items.pop() for _ in range(5)]
                done += await asyncio.gather(*map(process, portion))
        return done

    assert sorted(asyncio.run(main())) == list(range(15))


def test_a_rate_limit_spaces_calls_in_tasks_in_flows_and_in_coroutines() -> None:
    make_limit("api", 2, decay=10.0)
    calls = []

    @task
    def sync_call() -> None:
        rate_limit("api")
        calls.append(time.monotonic())

    @task
    async def async_call() -> None:
        await async_rate_limit("api")
        calls.append(time.monotonic())

    @flow
    def calling() -> Any:
        for _ in range(3):
            rate_limit("api", occupy=1)
            sync_call.submit()
            async_call.submit()

    began = time.monotonic()
    calling()
    assert len(calls) == 6
    assert time.monotonic() - began > (9 - 2) / 10.0 * 0.8  # 9 slots, of which 2 are free at first
