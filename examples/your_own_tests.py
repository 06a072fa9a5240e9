"""How to test a flow of yours: copy this file, and put your own flow in.

The fixtures come with leasehold; nothing needs to be installed or started.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

from leasehold import current_lease, flow, task

if TYPE_CHECKING:
    from leasehold.testing import FakeServer, ManualClock

running = threading.Semaphore(2)


@task(tags=["database"])
def load(path: str) -> str:
    assert running.acquire(blocking=False), "more than two at once"
    try:
        return path.upper()
    finally:
        running.release()


@flow
def etl(paths: list[str]) -> list[str]:
    loaded: list[str] = load.map(paths).result()
    return loaded


def test_no_more_than_two_loads_run_at_once(leasehold_server: FakeServer) -> None:
    leasehold_server.limit("database", 2)
    assert etl(["a", "b", "c", "d"]) == ["A", "B", "C", "D"]
    assert leasehold_server.used("database") == 0


def test_the_flow_survives_a_server_that_stumbles(leasehold_server: FakeServer) -> None:
    leasehold_server.limit("database", 2)
    leasehold_server.fail_next(503, times=3)
    assert etl(["a"]) == ["A"]


def test_a_load_that_loses_its_slot_is_run_again(leasehold_server: FakeServer) -> None:
    leasehold_server.limit("database", 1)
    starts: list[str] = []

    @task(tags=["database"], on_lease_lost="cancel", retries=1)
    async def fragile() -> str:
        starts.append("started")
        if len(starts) == 1:
            leasehold_server.expire()
            await asyncio.sleep(60)  # is cut short
        return "loaded"

    assert asyncio.run(fragile()) == "loaded"
    assert starts == ["started"] * 2


def test_a_load_that_may_go_on_has_a_slot_again_soon(leasehold_server: FakeServer) -> None:
    leasehold_server.limit("database", 1)

    @task(tags=["database"], on_lease_lost="regain")
    def stubborn() -> str:
        leasehold_server.expire()
        lease = current_lease()
        while lease is not None and lease.lost:
            time.sleep(0.01)
        return "loaded"

    assert stubborn() == "loaded"


def test_a_lease_that_nobody_renews_is_free_after_a_minute(
    leasehold_server: FakeServer, manual_clock: ManualClock
) -> None:
    leasehold_server.limit("database", 1)

    @task(tags=["database"])
    def hangs() -> int:
        manual_clock.advance(61)
        return leasehold_server.used("database")

    assert hangs() == 0
