"""Hypothesis drives processes, a server and a bad network, and looks for a broken rule.

What must hold in every moment is `World.check`, called before and after each step of the virtual
clock: believed holders are holders, there are never more bodies than slots, nothing is given back
twice, and no renewal follows a release. What must hold in the end is in `teardown`.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from concurrency.simulated_server import (
    BLACK_HOLE,
    BUSY,
    NONE,
    REFUSED,
    REPLY_CUT,
    REPLY_LOST,
    Fault,
    Kind,
    kind_of,
)
from concurrency.simulation import Process, Work, World

#: Passing takes seconds; a failure takes minutes to be shrunk to its shortest form.
pytestmark = pytest.mark.timeout(600)

#: Moments that matter: the network's own delays, a poll, a renewal, a deadline, an expiry.
PAUSES = st.sampled_from([0.0, 0.001, 0.002, 0.004, 0.1, 1.0, 5.0, 18.0, 39.0, 57.0, 60.0, 120.0])

LATE = st.sampled_from([0.001, 0.5, 4.0, 9.9, 12.0, 58.0])

FAULTS = st.one_of(
    st.sampled_from([BLACK_HOLE, REPLY_LOST, REPLY_CUT, REFUSED, BUSY]),
    st.sampled_from([Fault(status=429), Fault(status=500), Fault(status=504, acted=True)]),
    st.builds(Fault, request_late=LATE),
    st.builds(Fault, reply_late=LATE),
)

#: Renewals more often: most of a lease's life is made of them.
KINDS: st.SearchStrategy[Kind] = st.sampled_from(
    ["renew", "renew", "renew", "acquire", "acquire", "release", "undo", "other"]
)

TAGS = st.sampled_from(
    [("database",), ("database",), ("gpu",), ("database", "gpu"), ("unlimited",)]
)

WISHES: dict[str, Any] = {
    "tags": TAGS,
    "seconds": st.one_of(st.none(), PAUSES),
    "on_lost": st.sampled_from(["regain", "regain", "cancel", "ignore"]),
}


class Interleavings(RuleBasedStateMachine):
    """Arbitrary interleavings of all that can happen to a lease."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(database=2, gpu=1)

    @initialize(
        patience=st.sampled_from([10.0, 90.0]),
        begun=st.lists(st.fixed_dictionaries(WISHES), min_size=1, max_size=5),
        count=st.integers(1, 3),
    )
    def start(self, patience: float, begun: list[dict[str, Any]], count: int) -> None:
        """Begin with a few processes, and some work that holds or waits already."""
        self.patience = patience
        for _ in range(count):
            self.world.process(request_timeout_seconds=patience)
        for number, wishes in enumerate(begun):
            self.acquire(number, **wishes)
        self.world.run(0.1)

    @property
    def living(self) -> list[Process]:
        """Processes that have not been killed."""
        return [process for process in self.world.processes if not process.api.dead]

    @property
    def works(self) -> list[Work]:
        """Work that waits or runs."""
        return [work for process in self.living for work in process.works if work.state != "ended"]

    @rule(
        who=st.integers(0, 9),
        slots=st.sampled_from([1, 1, 1, 2]),
        timeout_seconds=st.sampled_from([None, None, 0.0, 0.002, 1.0, 30.0]),
        max_retries=st.sampled_from([None, None, None, 0, 2]),
        **WISHES,
    )
    def want_slots(self, who: int, **wishes: Any) -> None:
        """Have a process begin some work."""
        self.acquire(who, **wishes)

    def acquire(self, who: int, tags: tuple[str, ...], **wishes: Any) -> None:
        """Have a process begin some work."""
        self.living[who % len(self.living)].work(*tags, **wishes)

    @rule(pause=PAUSES)
    def time_passes(self, pause: float) -> None:
        """Let everything happen that happens by itself."""
        self.world.run(pause)

    @precondition(lambda self: self.works)
    @rule(which=st.integers(0, 99), pause=PAUSES)
    def end_or_cancel(self, which: int, pause: float) -> None:
        """End a body, or the wait for it, now or in the middle of something."""
        work = self.works[which % len(self.works)]
        if pause:
            self.world.at(pause, work.finish)
        else:
            work.finish()

    @precondition(lambda self: self.works)
    @rule(which=st.integers(0, 99), pause=PAUSES)
    def interrupt(self, which: int, pause: float) -> None:
        """Interrupt a wait, which may have been granted by then."""
        work = self.works[which % len(self.works)]
        self.world.at(pause, work.interrupt)

    @precondition(lambda self: self.world.running())
    @rule(which=st.integers(0, 99))
    def end_at_the_deadline(self, which: int) -> None:
        """Have a body end at the very moment at which its lease is lost, if it is not renewed."""
        running = self.world.running()
        work = running[which % len(running)]
        assert work.lease is not None
        self.world.at(max(work.lease.term.deadline - self.world.now, 0), work.finish)

    @rule(kind=KINDS, fault=FAULTS, times=st.integers(1, 3))
    def one_exchange_goes_wrong(self, kind: Kind, fault: Fault, times: int) -> None:
        """Disturb the next exchanges of one kind."""
        self.world.server.order(kind, fault, times)

    @rule(fault=FAULTS, kind=st.one_of(st.none(), KINDS))
    def weather_turns_bad(self, fault: Fault, kind: Kind | None) -> None:
        """Disturb all exchanges, or all of one kind."""
        self.world.server.weather = lambda one: fault if kind in {None, kind_of(one)} else NONE

    @rule()
    def weather_turns_good(self) -> None:
        """Disturb nothing any more."""
        self.world.server.quieten()

    @precondition(lambda self: not self.world.server.forgotten)
    @rule()
    def server_restarts(self) -> None:
        """Lose all leases and keep all counters."""
        self.world.server.restart()

    @precondition(lambda self: self.world.server.zombies)
    @precondition(lambda self: not any(work.believes for work in self.world.running()))
    @rule()
    def counters_are_mended(self) -> None:
        """Mend the counters, when nobody believes in a lease that was forgotten."""
        self.world.server.heal()

    @precondition(lambda self: len(self.living) == len(self.world.processes))
    @rule(who=st.integers(0, 9))
    def process_is_killed(self, who: int) -> None:
        """Kill a process; there is always one that lives."""
        self.living[who % len(self.living)].crash()
        if not self.living:
            self.world.process(request_timeout_seconds=self.patience)

    def teardown(self) -> None:
        """See that everything comes back."""
        try:
            self.world.come_to_rest()
        finally:
            self.world.close()


#: The same ones in every run.
TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(
    max_examples=200,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_more_and_longer_interleavings() -> None:
    more = settings(TestInterleavings.settings, max_examples=1000, stateful_step_count=60)
    run_state_machine_as_test(Interleavings, settings=more)
