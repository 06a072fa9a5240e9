"""Outages and restarts in the middle of work: it ends, and nothing stays behind."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from faults.conftest import Limits
from leasehold import current_lease, flow, task
from leasehold.concurrency import events, on_event
from leasehold.task_runners import ThreadPoolTaskRunner
from servers import PrefectServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy import Proxy


@pytest.fixture
def seen() -> Iterator[list[events.Event]]:
    """Collect what happens to slots."""
    seen: list[events.Event] = []
    stop = on_event(seen.append)
    yield seen
    stop()


def kinds(seen: list[events.Event], kind: type[events.Event]) -> list[events.Event]:
    return [event for event in seen if isinstance(event, kind)]


def run_two_for(seconds: float, tag: str, meanwhile: Callable[[], None]) -> list[bool]:
    """Run two tasks for some time; gives whether each held its slot at its end."""
    under_way = threading.Barrier(3)

    @task(tags=[tag])
    def work(_: int) -> bool:
        under_way.wait(30)
        time.sleep(seconds)
        lease = current_lease()
        assert lease is not None
        return not lease.lost

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
    def both() -> list[bool]:
        futures = work.map(range(2))
        under_way.wait(30)
        meanwhile()
        return futures.result()

    return both()


def outage(proxy: Proxy, *, after: float, seconds: float) -> Callable[[], None]:
    def happen() -> None:
        time.sleep(after)
        proxy.go_down()
        time.sleep(seconds)
        proxy.come_back()

    return happen


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_an_outage_of_40_s_is_one_warning_and_the_tasks_hold_their_slots_after_it(
    proxy: Proxy, limits: Limits, warnings: Callable[[str], list[str]]
) -> None:
    tag = limits.tag(2)
    held = run_two_for(70, tag, outage(proxy, after=5, seconds=40))
    assert held == [True, True]
    assert len(warnings("No luck for")) == 1
    assert len(warnings("")) == 1 + len(warnings("lost its slot"))
    assert limits.used(f"tag:{tag}") == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_outage_of_90_s_loses_leases_of_60_s_which_is_told_once_and_they_are_regained(
    proxy: Proxy,
    limits: Limits,
    warnings: Callable[[str], list[str]],
    seen: list[events.Event],
) -> None:
    tag = limits.tag(2)
    held = run_two_for(125, tag, outage(proxy, after=3, seconds=90))
    assert held == [True, True]
    assert len(warnings("No luck for")) == 1
    assert len(warnings("lost its slot")) == 2
    assert len(warnings("")) == 3
    assert len(kinds(seen, events.Lost)) == len(kinds(seen, events.Regained)) == 2
    assert limits.used(f"tag:{tag}") == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", ["3.4.25", "3.8.8"])
@pytest.mark.parametrize("seconds", [20, 60], ids=["ends-unaware", "regains"])
def test_a_restart_of_the_server_leaves_no_zombie_and_the_next_task_runs(
    version: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leases are gone after it, and the counters are not (PROTOCOL.md, "Server defects")."""
    server = PrefectServer(version).start()
    try:
        monkeypatch.setenv("PREFECT_API_URL", server.url)
        limits = Limits(server.url)
        tag = limits.tag(1)
        under_way = threading.Event()

        @task(tags=[tag])
        def work(seconds: float) -> bool:
            under_way.set()
            time.sleep(seconds)
            return True

        @flow
        def restarted() -> None:
            future = work.submit(seconds)
            assert under_way.wait(30)
            server.kill()
            server.start()
            future.result()

        restarted()
        assert limits.used(f"tag:{tag}") == 0
        assert work(0)
        wait_until_free(limits, tag)
    finally:
        server.stop()


def wait_until_free(limits: Limits, tag: str) -> None:
    ends_at = time.monotonic() + 10
    while limits.used(f"tag:{tag}"):
        assert time.monotonic() < ends_at
        time.sleep(0.1)
