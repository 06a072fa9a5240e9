"""The ten rules (LEASES.md), where only real threads and real processes can show them."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from concurrency.simulated_server import (
    ADDRESS,
    Fault,
    ServerLimit,
    SimulatedApi,
    SimulatedServer,
    kind_of,
)
from leasehold.client.wire import SlotRequest
from leasehold.concurrency import process
from leasehold.concurrency.acquisition import Acquisition
from leasehold.concurrency.hold import Hold
from leasehold.concurrency.keeper import Keeper
from leasehold.embedded.ledger import Ledger
from leasehold.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from leasehold.client.wire import Request


def start_keeper(
    monkeypatch: pytest.MonkeyPatch,
    meet: Callable[[Request], Fault] = lambda _: Fault(),
    **settings: Any,
) -> Keeper:
    """Make a keeper with a thread of its own this process's; its server is in memory."""

    def open_api(_: Settings) -> SimulatedApi:
        limits = {"tag:database": ServerLimit(2)}
        server = SimulatedServer(asyncio.get_running_loop(), limits, weather=meet)
        return SimulatedApi(server)

    settings = {"api_url": ADDRESS, "guard": False, **settings}
    keeper = Keeper(Settings(**settings), open_api=open_api)
    monkeypatch.setattr(process, "_keeper", keeper)
    return keeper


@pytest.fixture
def ledger() -> Ledger:
    """The ledger of this test; it takes every process for alive, so that only releases count."""
    ledger = Ledger(load().ledger_path, lives=lambda _: True)
    ledger.create("database", 2)
    return ledger


def used(ledger: Ledger) -> float:
    """How many slots of the limit are taken."""
    limit = ledger.read("database")
    assert limit is not None
    return limit.used


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run a program that uses the same ledger; a child that hangs ends the test."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


# -- 6: renewal is independent


def test_rule_6_a_blocked_event_loop_starves_no_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    start_keeper(monkeypatch)
    request = SlotRequest(("tag:database",), lease_seconds=3.0)

    async def body() -> None:
        async with Hold(Acquisition(request, who="body")) as lease:
            time.sleep(4)  # noqa: ASYNC251 - blocking the loop is what this is about
            lease.check()
            assert lease.lost_reason is None
            assert lease.term.sent_at > lease.acquired_at

    asyncio.run(body())


def test_rule_6_1000_leases_cost_one_thread(tmp_path: Any) -> None:
    settings = Settings(home=tmp_path)
    ledger = Ledger(settings.ledger_path)
    ledger.create("tag:database", 1000)
    before = threading.active_count()
    keeper = Keeper(settings)
    try:
        wanted = [Acquisition(SlotRequest(("tag:database",)), who="body") for _ in range(1000)]
        for acquisition in wanted:
            keeper.acquire(acquisition)
        leases = [acquisition.future.result(30) for acquisition in wanted]
        assert threading.active_count() == before + 1
        assert len({lease.id for lease in leases}) == 1000
        for lease in leases:
            keeper.release(lease)
        assert keeper.flush(30)
        limit = ledger.read("tag:database")
        assert limit is not None
        assert limit.used == 0
    finally:
        keeper.close()
        ledger.close()


def test_rule_6_an_exception_inside_the_loop_does_not_end_the_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = start_keeper(monkeypatch)

    def explode() -> None:
        raise RuntimeError("bug")

    keeper._loop.call_soon_threadsafe(explode)
    with Hold(Acquisition(SlotRequest(("tag:database",)), who="body")) as lease:
        assert lease.limits == {"tag:database": 2}
    assert "bug" in caplog.text


# -- 9: process-aware


def test_rule_9_a_forked_child_neither_releases_nor_renews_and_can_hold_a_slot_of_its_own(
    ledger: Ledger,
) -> None:
    done = run("""
        import os, sys
        from leasehold import concurrency
        from leasehold.concurrency import process
        from leasehold.embedded.ledger import Ledger
        from leasehold.settings import load

        def used():
            ledger = Ledger(load().ledger_path, lives=lambda _: True)
            try:
                return int(ledger.read("database").used)
            finally:
                ledger.close()

        with concurrency("database") as lease:
            child = os.fork()
            if child == 0:
                print("child inherits no keeper:", process.running_keeper() is None, flush=True)
                with concurrency("database"):
                    print("child holds its own:", used(), flush=True)
                sys.exit(0)  # leaves the parent's block, too
            assert os.waitpid(child, 0)[1] == 0
            print("after the child:", used(), flush=True)
            lease.check()
            with concurrency("database"):
                print("parent goes on:", used(), flush=True)
        process.shut_down()
        print("after the parent:", used(), flush=True)
    """)
    assert done.stdout.splitlines() == [
        "child inherits no keeper: True",
        "child holds its own: 2",
        "after the child: 1",
        "parent goes on: 2",
        "after the parent: 0",
    ], done.stderr
    assert done.returncode == 0
    ledger.close()


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("pass", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError('the body failed')", 1),
        ("raise KeyboardInterrupt", -2),
    ],
    ids=["end of main", "sys.exit", "exception", "Ctrl-C"],
)
def test_rule_9_however_a_process_ends_by_itself_it_releases_what_it_holds(
    ledger: Ledger, ending: str, status: int
) -> None:
    began = time.monotonic()
    done = run(f"""
        import sys
        from leasehold import concurrency
        block = concurrency("database")
        block.__enter__()  # and never left
        {ending}
    """)
    assert done.returncode == status, done.stderr
    assert used(ledger) == 0
    assert time.monotonic() - began < 20
    ledger.close()


def test_rule_9_work_in_a_thread_that_outlives_main_gives_its_slot_back(ledger: Ledger) -> None:
    done = run("""
        import threading, time
        from leasehold import concurrency

        def work():
            with concurrency("database"):
                started.set()
                time.sleep(0.5)

        started = threading.Event()
        threading.Thread(target=work).start()
        started.wait()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert used(ledger) == 0
    ledger.close()


# -- 10: a failed release never masks the body's own exception


@pytest.mark.parametrize("status", [500, 401])
def test_rule_10_a_release_that_fails_does_not_hide_the_bodys_exception(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    def meet(request: Request) -> Fault:
        return Fault(status=status) if kind_of(request) == "release" else Fault()

    start_keeper(monkeypatch, meet, handover_seconds=0)
    with (
        pytest.raises(ValueError, match="the body failed") as caught,
        Hold(Acquisition(SlotRequest(("tag:database",)), who="body")),
    ):
        raise ValueError("the body failed")
    assert caught.value.__context__ is None


def test_rule_10_a_release_that_fails_does_not_change_a_result(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def meet(request: Request) -> Fault:
        return Fault(status=500) if kind_of(request) == "release" else Fault()

    keeper = start_keeper(monkeypatch, meet, handover_seconds=0)
    with caplog.at_level(logging.ERROR):
        with Hold(Acquisition(SlotRequest(("tag:database",)), who="body")) as lease:
            pass
        assert not keeper.flush(0.5)
    assert not lease.lost
    assert caplog.records == []
