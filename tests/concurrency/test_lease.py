"""A lease's value: what may be believed, told from numbers alone."""

from __future__ import annotations

import math
import pickle
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold.client.wire import Granted, Request, SlotRequest
from leasehold.concurrency.lease import JITTER_RATIO, RENEW_RATIO, Lease, Term
from leasehold.exceptions import LeaseLostError

durations = st.floats(60, 86_400)


class Clock:
    """A clock that stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Read it."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lease(clock: Clock) -> Lease:
    """A lease of 60 s on a tag, asked for at 1000."""
    grant = Granted(
        {"tag:database": 3},
        lease_id=uuid4(),
        renewal=Request("POST", "/renew"),
        release=Request("POST", "/release"),
    )
    return Lease(SlotRequest(("tag:database",)), grant, clock.now, who="load", clock=clock)


# -- the term


def test_a_term_is_believed_for_its_duration_less_a_margin() -> None:
    term = Term(seconds=60, sent_at=100)
    assert term.deadline == 157
    assert term.remaining(100) == 57
    assert term.remaining(157) == 0
    assert term.remaining(1e9) == 0


def test_an_older_renewal_does_not_move_the_deadline() -> None:
    term = Term(60, 100).renewed(120)
    assert term.renewed(110) is term
    assert term.renewed(121).deadline == 178


@given(durations, st.floats(-1, 1))
def test_three_renewals_fit_before_the_deadline_whatever_the_jitter(
    duration: float, jitter: float
) -> None:
    term = Term(duration, 0)
    assert 3 * term.renew_at(jitter) < term.deadline
    share = term.renew_at(jitter) / duration
    assert share == pytest.approx(RENEW_RATIO, rel=JITTER_RATIO * 1.001)


@given(durations)
def test_even_if_every_request_hangs_to_its_time_out_three_attempts_fit(duration: float) -> None:
    term, attempts = Term(duration, 0), 0
    now = term.renew_at(1)
    while now < term.deadline:
        attempts += 1
        seconds = term.request_seconds(now, most=1e9)
        assert seconds <= term.remaining(now) / 3
        now = term.retry_at(now + seconds, attempts)
    assert attempts >= 3


@given(durations, st.integers(1, 500), st.floats(0, 0.9))
def test_after_any_number_of_failures_three_more_attempts_fit(
    duration: float, failures: int, share: float
) -> None:
    term = Term(duration, 0)
    now = term.deadline * share
    assert 3 * (term.retry_at(now, failures) - now) <= term.remaining(now)


def test_retries_come_quickly_at_first() -> None:
    assert Term(60, 0).retry_at(20, 1) - 20 <= 1


def test_slots_that_do_not_expire_are_believed_for_ever() -> None:
    term = Term(math.inf, 0)
    assert term.deadline == math.inf
    assert term.remaining(1e12) == math.inf


@pytest.mark.parametrize("ratio", [0, -1, 0.32, math.nan, math.inf])
def test_a_bad_ratio_is_refused_naming_it_and_the_bound(ratio: float) -> None:
    with pytest.raises(ValueError, match=rf"above 0 and at most 0\.3167.*it is {ratio!r}\."):
        Term(60, 0, renew_ratio=ratio)


# -- the lease


def test_a_lease_is_lost_at_its_deadline_without_hearing_from_anybody(
    lease: Lease, clock: Clock
) -> None:
    clock.now += 56.9
    lease.check()
    clock.now += 0.2
    assert lease.lost
    assert lease.remaining() == 0


def test_the_error_says_which_slot_why_and_how_old_the_last_renewal_is(
    lease: Lease, clock: Clock
) -> None:
    lease.renewed(1010)
    clock.now = 1075
    with pytest.raises(LeaseLostError) as caught:
        lease.check()
    assert "tag 'database'" in str(caught.value)
    assert "65.0 s ago" in str(caught.value)
    assert caught.value.names == ("tag:database",)
    assert caught.value.renewed_seconds_ago == 65


def test_a_renewal_moves_the_deadline_and_clears_the_error(lease: Lease, clock: Clock) -> None:
    lease.last_error = "HTTP 503"
    clock.now = 1020
    lease.renewed(1018)
    assert lease.remaining() == 55
    assert lease.last_error is None


def test_a_loss_is_noted_once_and_no_renewal_revives_the_lease(lease: Lease, clock: Clock) -> None:
    assert lease.declare_lost("gone")
    assert not lease.declare_lost("gone again")
    lease.renewed(clock.now)
    assert lease.lost
    assert lease.lost_reason == "gone"


def test_after_the_work_ended_nothing_is_lost_any_more(lease: Lease, clock: Clock) -> None:
    lease.end()
    clock.now += 1000
    assert not lease.lost
    assert not lease.declare_lost("gone")


def test_a_regained_lease_goes_on_under_the_new_slots(lease: Lease, clock: Clock) -> None:
    old = lease.id
    lease.declare_lost("gone")
    clock.now += 100
    new = Lease(lease.request, Granted({"tag:database": 3}, uuid4()), clock.now, clock=clock)
    lease.regained(new)
    assert not lease.lost
    assert lease.id == new.id != old


def test_the_heir_of_a_lease_has_its_slots_but_a_life_of_its_own(
    lease: Lease, clock: Clock
) -> None:
    lease.renewed(1005)
    clock.now = 1010
    lease.end()
    heir = lease.successor("next")
    assert (heir.id, heir.term, heir.acquired_at) == (lease.id, lease.term, 1000)
    assert (heir.who, heir.entered_at, heir.handed_over) == ("next", 1010, 1)
    clock.now = 2000
    assert heir.lost  # its work has not ended
    assert not lease.lost


def test_where_no_limit_exists_nothing_can_be_lost(clock: Clock) -> None:
    free = Lease(SlotRequest(("tag:none",)), None, clock.now, clock=clock)
    clock.now += 1e6
    assert not free.lost
    assert free.remaining() == math.inf
    assert free.limits == {}
    free.check()


def test_a_held_lease_cannot_be_pickled(lease: Lease) -> None:
    with pytest.raises(TypeError, match=r"\(tag 'database'\) cannot be pickled"):
        pickle.dumps(lease)


def test_before_time_alone_ends_a_lease_who_may_have_renewed_it_is_asked(
    lease: Lease, clock: Clock
) -> None:
    answers = [1050.0]

    def ask() -> None:
        if answers:
            lease.renewed(answers.pop())

    lease.ask = ask
    clock.now = 1057.0
    lease.check()
    assert lease.remaining() == 50
    clock.now = 1107.0
    assert lease.lost
