"""A process that stands still for longer than its lease keeps its slot on the ledger: it lives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from concurrency.simulation import VirtualLoop
from leasehold.client import get_client
from leasehold.client.http import AsyncApi
from leasehold.client.wire import SlotRequest
from leasehold.concurrency import concurrency
from leasehold.concurrency.acquisition import Acquisition
from leasehold.concurrency.keeper import Keeper
from leasehold.embedded.identity import this_process
from leasehold.embedded.ledger import Ledger
from leasehold.embedded.server import LedgerServer
from leasehold.embedded.transport import LedgerTransport
from leasehold.exceptions import AcquireConcurrencySlotTimeoutError
from leasehold.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from leasehold.concurrency.lease import Lease
    from leasehold.embedded.identity import Process

HELD = SlotRequest(("tag:database",), lease_seconds=60.0)


class Sleeper:
    """A keeper on a ledger, both on a clock that moves only when it is told to."""

    def __init__(self, path: Path, whose: Callable[[], Process | None]) -> None:
        self.loop = VirtualLoop()
        self.ledger = Ledger(path, now=self.loop.time)
        self.ledger.create("tag:database", 1)
        self.losses: list[Lease] = []
        transport = LedgerTransport(LedgerServer(self.ledger, whose=whose))
        self.keeper = Keeper(
            Settings(home=path.parent),
            clock=self.loop.time,
            open_api=lambda settings: AsyncApi(settings, transport=transport),
            loop=self.loop,
        )

    def hold(self) -> Lease:
        """Take the slot, as work that is to be cancelled when it is lost."""
        acquisition = Acquisition(HELD, who="work", on_lost="cancel", on_cancel=self.losses.append)
        self.keeper.acquire(acquisition)
        self.loop.run(1)
        return acquisition.future.result()

    def stand_still(self, seconds: float) -> None:
        """Let time pass in which this process does nothing."""
        self.loop._now += seconds

    def others_get_it(self) -> bool:
        """Whether somebody else has the slot now, who asked for it."""
        return self.ledger.acquire(HELD.names, 1, seconds=60).lease_id is not None

    def close(self) -> None:
        """End everything that still runs on the loop."""
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run()
        self.loop.close()
        self.ledger.close()


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Sleeper]:
    """A process that others can see."""
    with contextlib.closing(Sleeper(tmp_path / "ledger.db", this_process)) as sleeper:
        yield sleeper


@pytest.fixture
def unseen(tmp_path: Path) -> Iterator[Sleeper]:
    """A process that others cannot see, as in another container."""
    elsewhere = this_process()._replace(namespace="another")
    with contextlib.closing(Sleeper(tmp_path / "ledger.db", lambda: elsewhere)) as sleeper:
        yield sleeper


@pytest.mark.parametrize("seconds", [56.0, 58.0, 61.0, 90.0, 86_400.0])
def test_it_keeps_its_slot_and_is_told_of_no_loss(seen: Sleeper, seconds: float) -> None:
    lease = seen.hold()
    seen.loop.run(45)
    for _ in range(3):
        seen.stand_still(seconds)
        assert not seen.others_get_it()
        assert not lease.lost
        lease.check()
        seen.loop.run(1)
        assert lease.remaining() > 50
    seen.loop.run(300)
    assert (seen.losses, lease.lost, lease.last_error) == ([], False, None)
    assert not seen.others_get_it()


def test_a_slot_that_was_taken_from_it_meanwhile_is_lost(seen: Sleeper) -> None:
    lease = seen.hold()
    seen.stand_still(90)
    seen.ledger.release(str(lease.id))
    assert seen.others_get_it()
    seen.loop.run(1)
    assert seen.losses == [lease]
    assert lease.lost
    assert "does not know its lease" in str(lease.lost_reason)


def test_a_ledger_that_does_not_answer_then_keeps_nothing(seen: Sleeper) -> None:
    lease = seen.hold()
    seen.stand_still(90)
    seen.ledger.path.unlink()
    seen.loop.run(1)
    assert seen.losses == [lease]
    assert "no renewal was confirmed in time" in str(lease.lost_reason)
    assert "was removed" in str(lease.lost_reason)


def test_where_nobody_sees_it_its_lease_expires_and_it_learns_it_at_once(unseen: Sleeper) -> None:
    lease = unseen.hold()
    unseen.stand_still(90)
    assert unseen.others_get_it()
    unseen.loop.run(0.1)
    assert unseen.losses == [lease]


def test_where_nobody_sees_it_and_nobody_wanted_its_slot_it_has_it_still(unseen: Sleeper) -> None:
    lease = unseen.hold()
    unseen.stand_still(58)  # past the moment up to which a server's word would be believed
    unseen.loop.run(1)
    assert (unseen.losses, lease.lost) == ([], False)


SLEEPER = """
import sys
from leasehold import concurrency
with concurrency("tag:database", lease_duration=60, on_lease_lost="cancel") as lease:
    print("held", flush=True)
    sys.stdin.readline()
    lease.check()
    print(lease.lost, lease.lost_reason, flush=True)
    sys.stdin.readline()
    lease.check()
"""


@pytest.mark.slow  # no lease is shorter than a minute
@pytest.mark.timeout(150)
def test_a_stopped_process_keeps_its_slot_for_longer_than_its_lease() -> None:
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("database", 1)
    command = [sys.executable, "-W", "error", "-c", SLEEPER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as sleeper:  # type: ignore[call-overload]
        assert sleeper.stdout.readline() == "held\n"
        os.kill(sleeper.pid, signal.SIGSTOP)
        try:
            with (
                pytest.raises(AcquireConcurrencySlotTimeoutError),
                concurrency("tag:database", timeout_seconds=66),
            ):
                pytest.fail("two hold one slot")
        finally:
            os.kill(sleeper.pid, signal.SIGCONT)
        sleeper.stdin.write("\n")
        sleeper.stdin.flush()
        assert sleeper.stdout.readline() == "False None\n"
        time.sleep(1)  # for the keeper to have looked
        sleeper.communicate("\n", timeout=20)
        assert sleeper.returncode == 0
