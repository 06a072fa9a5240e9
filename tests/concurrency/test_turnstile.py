"""The turnstile is pure: time is a number here, and the server's answers are calls."""

from __future__ import annotations

import itertools
import math

import pytest

from leasehold.client.wire import Mode, SlotRequest
from leasehold.concurrency.sharing import SHORTEST_PAUSE_SECONDS
from leasehold.concurrency.turnstile import (
    LONGEST_BACKOFF_SECONDS,
    LONGEST_PROBE_SECONDS,
    PATIENCE_SECONDS,
    SHORTEST_POLL_SECONDS,
    Queue,
    Turnstile,
    Waiter,
)

A, B, AB = SlotRequest(("a",)), SlotRequest(("b",)), SlotRequest(("a", "b"))


class Gate(Turnstile[str]):
    """A turnstile without jitter, polling every second; sharing has tests of its own."""

    def __init__(self, jitter: float = 0.0) -> None:
        super().__init__(poll_seconds=1.0, jitter=lambda: jitter, handover_seconds=1000)

    def wait(
        self, name: str, request: SlotRequest = A, at: float = 0.0, retries: int | None = None
    ) -> Waiter[str]:
        """Have somebody wait."""
        waiter = Waiter(name, at, retries)
        self.join(request, waiter)
        return waiter

    def ask(self, at: float = 0.0) -> Queue[str]:
        """Have the only queue that may ask do so."""
        (queue,) = self.asks(at)
        return queue

    def grant(self, request: SlotRequest = A, at: float = 0.0, size: int = 1) -> str | None:
        """Have a queue ask and be granted; gives who got it."""
        queue = next(queue for queue in self.asks(at) if queue.request == request)
        waiter = self.granted(queue, dict.fromkeys(request.names, size), 0)
        return None if waiter is None else waiter.payload


# -- rule 1: first in, first out, one question at a time


def test_who_came_first_goes_first() -> None:
    gate = Gate()
    for name in ("first", "second", "third"):
        gate.wait(name)
    assert [gate.grant(size=3) for _ in range(3)] == ["first", "second", "third"]


def test_joining_says_how_many_are_ahead() -> None:
    gate = Gate()
    assert [gate.join(A, Waiter(name, 0)) for name in "xyz"] == [0, 1, 2]
    assert gate.join(A, Waiter("urgent", 0), first=True) == 0
    assert gate.grant() == "urgent"


def test_a_queue_asks_one_question_at_a_time() -> None:
    gate = Gate()
    gate.wait("first")
    gate.wait("second")
    gate.ask()
    assert gate.asks(100) == []


def test_queues_for_different_slots_ask_side_by_side() -> None:
    gate = Gate()
    gate.wait("on a", A)
    gate.wait("on b", B)
    assert [queue.request for queue in gate.asks(0)] == [A, B]


def test_a_grant_goes_to_whoever_is_the_head_by_then() -> None:
    gate = Gate()
    first = gate.wait("first")
    gate.wait("second")
    queue = gate.ask()
    assert gate.leave(A, first)
    assert gate.granted(queue, {"a": 1}, 0) is not None
    assert not gate.leave(A, first)


def test_a_grant_that_nobody_wants_any_more_is_given_back() -> None:
    gate = Gate()
    waiter = gate.wait("only")
    queue = gate.ask()
    gate.leave(A, waiter)
    assert gate.granted(queue, {"a": 1}, 0) is None
    gate.released(A, ["a"], 0)
    assert gate.held("a") == 0


def test_a_grant_that_came_too_late_to_be_used_leaves_its_waiter_in_front() -> None:
    gate = Gate()
    gate.wait("first")
    assert gate.granted(gate.ask(), {"a": 1}, 0, usable=False) is None
    gate.released(A, ["a"], 0)
    assert gate.grant() == "first"


# -- rule 2: not while this process itself fills the limit


def test_nobody_asks_while_this_process_fills_the_limit() -> None:
    gate = Gate()
    gate.wait("holder")
    gate.wait("waiter")
    gate.grant(size=1)
    assert gate.asks(0.5) == []


def test_a_local_release_lets_the_head_ask_at_once() -> None:
    gate = Gate()
    gate.wait("holder")
    gate.wait("waiter")
    gate.grant(size=1)
    gate.asks(0.5)
    gate.released(A, ["a"], 0)
    assert gate.grant(at=0.5) == "waiter"


def test_now_and_then_the_head_asks_all_the_same_as_the_limit_may_have_been_raised() -> None:
    gate = Gate()
    gate.wait("holder")
    gate.wait("waiter")
    gate.grant(size=1)
    asked_at = []
    now = 0.0
    while now < 60:
        for queue in gate.asks(now):
            asked_at.append(now)
            gate.full(queue, 0.0, now)
        now = max(gate.wake_at(now), now + 0.01)
    pauses = [b - a for a, b in zip([0.0, *asked_at], asked_at, strict=False)]
    assert pauses[0] == pytest.approx(1, abs=0.1)
    assert all(later > 1.5 * earlier for earlier, later in itertools.pairwise(pauses[:4]))
    assert max(pauses) <= LONGEST_PROBE_SECONDS + 1


def test_a_raised_limit_is_believed_as_soon_as_it_is_heard_of() -> None:
    gate = Gate()
    for name in "vwxyz":
        gate.wait(name)
    gate.grant(size=1)
    gate.asks(0)
    probe = gate.wake_at(0)
    assert gate.grant(at=probe, size=3) == "w"
    assert gate.grant(at=probe, size=3) == "x"
    assert gate.asks(probe) == []


def test_a_limit_that_grants_more_than_its_size_is_switched_off_and_asked_freely() -> None:
    gate = Gate()
    for name in "xyz":
        gate.wait(name)
    gate.grant(size=1)
    gate.asks(0)
    assert gate.grant(at=gate.wake_at(0), size=1) == "y"
    assert gate.grant(at=5, size=1) == "z"


def test_limits_that_do_not_exist_are_not_counted() -> None:
    gate = Gate()
    gate.wait("x", AB)
    gate.granted(gate.ask(), {"a": 1}, 0)
    assert (gate.held("a"), gate.held("b")) == (1, 0)


def test_what_a_rate_limit_gives_is_used_up_and_not_held() -> None:
    gate = Gate()
    mode: Mode = "rate_limit"
    rated = SlotRequest(("a",), mode=mode)
    gate.wait("x", rated)
    assert gate.grant(rated) == "x"
    assert gate.held("a") == 0


# -- rule 3: while others hold the slots


@pytest.mark.parametrize(
    ("advice", "pause"),
    [(None, 1.0), (0.3, 0.3), (5340.0, 1.0), (0.0, SHORTEST_POLL_SECONDS)],
)
def test_who_counts_refusals_asks_again_as_advised_but_never_later_than_the_poll(
    advice: float | None, pause: float
) -> None:
    gate = Gate()
    gate.wait("x", retries=5)
    gate.full(gate.ask(10), advice, 10)
    assert gate.asks(10 + pause - 0.001) == []
    assert gate.wake_at(10) == pytest.approx(10 + pause)
    assert len(gate.asks(10 + pause)) == 1


def test_who_waits_for_slots_to_decay_asks_again_as_advised() -> None:
    gate = Gate()
    gate.wait("x", SlotRequest(("a",), mode="rate_limit"))
    gate.full(gate.ask(10), 0.7, 10)
    assert gate.wake_at(10) == pytest.approx(10.7)


def test_everybody_else_asks_again_soon_and_then_less_and_less_often() -> None:
    gate, now, pauses = Gate(jitter=0.5), 10.0, []
    gate.wait("x", at=10)
    while now < 200:
        gate.full(gate.ask(now), 30.0, now)
        pauses.append(gate.wake_at(now) - now)
        now = gate.wake_at(now)
    assert pauses[0] < 0.05
    assert pauses == pytest.approx(sorted(pauses))
    assert pauses[-1] == pytest.approx(0.85)  # the poll, less some jitter


def test_advice_to_ask_sooner_is_taken() -> None:
    gate = Gate()
    gate.wait("x")
    gate.full(gate.ask(10), None, 10)
    gate.full(gate.ask(100), None, 100)
    assert gate.wake_at(100) - 100 == pytest.approx(1)
    gate.full(gate.ask(200), 0.1, 200)
    assert gate.wake_at(200) - 200 == pytest.approx(0.1)


def test_jitter_only_makes_a_pause_shorter() -> None:
    gate = Gate(jitter=1.0)
    gate.wait("x", retries=5)
    gate.full(gate.ask(10), 1.0, 10)
    assert gate.wake_at(10) == pytest.approx(10.7)


def test_a_local_release_does_not_wait_for_the_poll() -> None:
    gate = Gate()
    gate.wait("holder")
    gate.wait("waiter")
    gate.grant(size=2)
    gate.full(gate.ask(0), 1.0, 0)
    gate.released(A, ["a"], 0)
    assert len(gate.asks(0)) == 1


def test_failures_are_followed_by_pauses_that_double_up_to_a_bound() -> None:
    gate = Gate()
    gate.wait("x")
    pauses, now = [], 0.0
    for _ in range(2000):  # hours without a server
        gate.failed(gate.ask(now), now)
        pauses.append(gate.wake_at(now) - now)
        now = gate.wake_at(now)
    assert pauses[0] <= SHORTEST_PAUSE_SECONDS
    assert pauses[1] == pytest.approx(2 * pauses[0])
    assert pauses[-1] == pytest.approx(LONGEST_BACKOFF_SECONDS)


def test_the_advice_of_a_busy_server_is_followed_up_to_a_bound() -> None:
    gate = Gate()
    gate.wait("x")
    gate.failed(gate.ask(0), 0, retry_after=3.0)
    assert gate.wake_at(0) == pytest.approx(3)
    gate.failed(gate.ask(3), 3, retry_after=3600.0)
    assert gate.wake_at(3) == pytest.approx(3 + LONGEST_BACKOFF_SECONDS)


def test_the_last_question_after_failures_comes_when_patience_ends_and_not_later() -> None:
    gate = Gate()
    gate.wait("x")
    now, asked = 0.0, 0
    while now < 8:
        gate.failed(gate.ask(now), now, latest=8)
        now, asked = gate.wake_at(now), asked + 1
    assert now == 8
    assert asked < 16  # nor does it ask more and more often before


def test_a_local_release_does_not_shorten_the_pause_after_a_failure() -> None:
    gate = Gate()
    gate.wait("holder")
    gate.wait("waiter")
    gate.grant(size=2)
    gate.failed(gate.ask(0), 0)
    gate.released(A, ["a"], 0)
    assert gate.asks(0) == []


def test_an_offered_slot_is_left_alone_although_a_question_had_failed() -> None:
    gate = Gate()
    gate.wait("holder")
    gate.wait("waiter")
    gate.grant(size=1)
    assert gate.asks(1) == []  # our own process fills the limit ...
    gate.failed(gate.ask(3), 3)  # ... as far as it knows, so it looks now and then
    assert gate.pass_on(A, 30, 0) is None
    gate.released(A, ["a"], 30.5)
    assert gate.asks(30.5) == []
    assert gate.wake_at(30.5) > 31


def test_any_clear_answer_ends_the_pauses_of_failures() -> None:
    gate = Gate()
    gate.wait("x")
    now = 0.0
    for _ in range(6):
        gate.failed(gate.ask(now), now)
        now = gate.wake_at(now)
    gate.full(gate.ask(now), 0.5, now)
    gate.failed(gate.ask(now + 0.5), now + 0.5)
    assert gate.wake_at(now + 0.5) - (now + 0.5) <= SHORTEST_PAUSE_SECONDS


# -- retries


def test_a_waiter_is_sent_away_when_it_was_told_full_once_more_than_it_has_retries() -> None:
    gate = Gate()
    waiter = gate.wait("x", retries=2)
    told = [gate.full(gate.ask(now), None, now) for now in (0.0, 1.0, 2.0)]
    assert told == [None, None, waiter]
    assert list(gate.waiting()) == []


def test_who_counts_retries_asks_even_while_this_process_fills_the_limit() -> None:
    gate = Gate()
    gate.wait("holder")
    gate.grant(size=1)
    gate.wait("waiter", retries=0)
    assert len(gate.asks(0)) == 1


def test_failures_use_up_no_retries() -> None:
    gate = Gate()
    gate.wait("x", retries=0)
    gate.failed(gate.ask(0), 0)
    assert gate.grant(at=1) == "x"


# -- rule 4: passed, but not for ever


def test_a_head_lets_itself_be_passed_then_insists_in_phases_that_grow() -> None:
    waiter = Waiter("x", joined_at=100)
    changes, now = [], 100.0
    for _ in range(4):
        now = waiter.phase_ends(now)
        changes.append((now - 100, waiter.insists(now)))
    assert changes == [(5, True), (15, False), (35, True), (75, False)]
    assert changes[0][0] == PATIENCE_SECONDS


def test_while_a_head_insists_the_slots_that_it_lacks_are_kept_for_it() -> None:
    gate = Gate()
    gate.wait("holder of b", B)
    gate.grant(B)
    gate.wait("holder of a")
    gate.grant()
    gate.wait("on both", AB, at=0)
    gate.wait("on a", A, at=1)
    gate.asks(6)  # "on both" has been passed for long enough
    gate.released(A, ["a"], 0)
    assert gate.asks(6) == []
    gate.released(B, ["b"], 0)
    assert [queue.request for queue in gate.asks(6)] == [AB]


def test_before_a_head_insists_others_may_pass_it() -> None:
    gate = Gate()
    gate.wait("holder of b", B)
    gate.grant(B)
    gate.wait("on both", AB, at=0)
    gate.wait("on a", A, at=1)
    assert gate.grant(A, at=2) == "on a"


def test_the_turnstile_wakes_when_a_head_begins_to_insist() -> None:
    gate = Gate()
    gate.wait("holder", AB)
    gate.grant(AB)
    gate.wait("on both", AB, at=0)
    gate.wait("on a", A, at=0)
    now = 0.0
    wakes = []
    while now < 6:
        for queue in gate.asks(now):
            gate.full(queue, None, now)
        now = gate.wake_at(now)
        wakes.append(now)
    assert PATIENCE_SECONDS in wakes


# -- rule 5: passing a lease on


def test_a_lease_passes_to_the_next_in_its_own_queue_without_the_server() -> None:
    gate = Gate()
    for name in "xyz":
        gate.wait(name)
    gate.grant()
    heirs = [gate.pass_on(A, 0, 0), gate.pass_on(A, 0, 0), gate.pass_on(A, 0, 0)]
    assert [heir and heir.payload for heir in heirs] == ["y", "z", None]
    assert gate.held("a") == 1


def test_a_lease_does_not_pass_on_while_a_head_elsewhere_insists_on_its_limit() -> None:
    gate = Gate()
    gate.wait("holder")
    gate.grant()
    gate.wait("on both", AB, at=0)
    gate.wait("on a", A, at=1)
    heir = gate.pass_on(A, 4, 4)
    assert heir is not None
    gate.wait("on a too", A, at=2)
    assert gate.pass_on(A, 6, 6) is None


def test_a_lease_passes_on_while_a_head_insists_on_other_limits() -> None:
    gate = Gate()
    gate.wait("holder")
    gate.grant()
    gate.wait("on b", B, at=0)
    gate.wait("on a", A, at=1)
    assert gate.pass_on(A, 6, 0) is not None


# -- answers for all who wait


def test_an_answer_that_is_the_same_for_all_sends_all_away() -> None:
    gate = Gate()
    for name in "xyz":
        gate.wait(name)
    gone = gate.closed(gate.ask())
    assert [waiter.payload for waiter in gone] == ["x", "y", "z"]
    assert gate.held("a") == 0
    assert gate.wake_at(0) == math.inf


def test_nothing_is_kept_of_limits_of_which_no_slots_are_held() -> None:
    gate = Gate()
    for number in range(10):
        gate.wait("x", SlotRequest((f"tag:{number}",)))
        gate.closed(gate.ask())
    assert not gate._held
