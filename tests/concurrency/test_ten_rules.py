"""The ten rules of an excellent lease holder (LEASES.md), on a virtual clock.

What needs real threads and processes to be shown stands in `test_ten_rules_for_real`.
"""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concurrency.simulated_server import (
    BLACK_HOLE,
    NONE,
    REFUSED,
    REPLY_CUT,
    REPLY_LOST,
    Fault,
    Kind,
    kind_of,
)
from concurrency.simulation import START, Work, World
from leasehold.concurrency.lease import MARGIN_RATIO, Lease, Term
from leasehold.exceptions import LeaseLostError

if TYPE_CHECKING:
    from typing import Any

    from leasehold.client.wire import Request
    from leasehold.concurrency.acquisition import OnLeaseLost


def hold(world: World, tag: str = "database", **wishes: Any) -> tuple[Work, Lease]:
    """Have a process of its own hold a slot."""
    work = world.process(request_timeout_seconds=30).work(tag, **wishes)
    world.run(60, until=lambda: work.state == "running")
    assert work.lease is not None
    return work, work.lease


def send_times(world: World, kind: Kind) -> list[float]:
    """Note from now on when requests of a kind are sent."""
    times: list[float] = []
    world.server.listeners.append(
        lambda request, _: times.append(world.now) if kind_of(request) == kind else None
    )
    return times


def disturb(world: World, kind: Kind, fault: Fault) -> None:
    """Have every exchange of one kind go wrong."""
    world.server.weather = lambda request: fault if kind_of(request) == kind else NONE


# -- 1: deadline from send time


def test_rule_1_the_deadline_of_a_grant_counts_from_when_it_was_asked_for() -> None:
    with World(database=1) as world:
        world.server.order("acquire", Fault(reply_late=20))
        asked = send_times(world, "acquire")
        _, lease = hold(world)
        assert world.now - asked[0] >= 20
        assert lease.term.deadline == asked[0] + 60 * (1 - MARGIN_RATIO)


def test_rule_1_a_renewal_whose_reply_takes_20_s_counts_from_when_it_was_sent() -> None:
    with World(database=1) as world:
        _, lease = hold(world, lease_seconds=300)
        world.server.order("renew", Fault(reply_late=20))
        sent = send_times(world, "renew")
        before = lease.term.deadline
        world.run(300, until=lambda: lease.term.deadline > before)
        assert world.now - sent[0] >= 20
        assert lease.term.deadline == sent[0] + 300 * (1 - MARGIN_RATIO)


# -- 2: loss is self-declared


def test_rule_2_in_a_black_hole_the_loss_is_told_before_the_server_lets_others_in() -> None:
    with World(database=1) as world:
        work, lease = hold(world, on_lost="cancel")
        world.server.weather = lambda _: BLACK_HOLE
        world.run(120, until=lambda: work.cancelled_by_loss)
        assert lease.lost_reason is not None
        assert world.server.is_live(lease.id)


def test_rule_2_without_any_reply_nobody_else_ever_holds_at_the_same_time() -> None:
    with World(database=1) as world:
        mine, _ = hold(world, on_lost="ignore")
        world.server.weather = lambda request: (
            BLACK_HOLE if kind_of(request) in {"renew", "release"} else NONE
        )
        theirs = world.process().work("database")
        world.run(120)  # `World.check` looks at every moment
        assert theirs.believes
        assert not mine.believes


# -- 3: the deadline is monotone


@given(
    duration=st.floats(60, 86_400),
    sent=st.lists(st.floats(0, 1e6), min_size=1, max_size=20),
)
def test_rule_3_replies_in_any_order_only_raise_the_deadline_and_not_past_their_own(
    duration: float, sent: list[float]
) -> None:
    term = Term(duration, sent[0])
    for number, sent_at in enumerate(sent):
        before, term = term.deadline, term.renewed(sent_at)
        assert term.deadline >= before
        assert term.deadline == Term(duration, max(sent[: number + 1])).deadline


def test_rule_3_a_renewal_that_succeeds_after_the_loss_does_not_revive_the_lease() -> None:
    with World(database=1) as world:
        _, lease = hold(world, on_lost="ignore")
        disturb(world, "renew", REPLY_LOST)  # the server renews every time, and nobody hears it
        world.run(58)
        assert lease.lost
        lease.renewed(world.now)
        world.server.quieten()
        world.run(300)
        assert lease.lost


# -- 4: renew at about D/3, a time-out is at most a third of what remains


def test_rule_4_renewals_come_at_about_a_third_with_jitter() -> None:
    with World(database=1) as world:
        hold(world)
        sent = send_times(world, "renew")
        world.run(3600)
        pauses = [later - earlier for earlier, later in itertools.pairwise(sent)]
        assert len(pauses) > 150
        assert min(pauses) >= 60 * 0.28
        assert max(pauses) <= 60 * 0.32
        assert len({round(pause, 3) for pause in pauses}) > 100


def test_rule_4_a_request_may_take_at_most_a_third_of_what_remains() -> None:
    with World(database=1) as world:
        _, lease = hold(world, on_lost="ignore")
        attempts: list[tuple[float, float]] = []
        world.server.listeners.append(
            lambda request, seconds: (
                attempts.append((seconds, lease.term.remaining(world.now)))
                if kind_of(request) == "renew"
                else None
            )
        )
        disturb(world, "renew", BLACK_HOLE)
        world.run(60)
        assert len(attempts) >= 3
        assert all(seconds <= left / 3 for seconds, left in attempts)


@pytest.mark.parametrize("hanging", [1, 2])
def test_rule_4_hung_requests_do_not_lose_a_lease(hanging: int) -> None:
    with World(database=1) as world:
        _, lease = hold(world)
        world.server.order("renew", BLACK_HOLE, times=hanging)
        world.run(600)
        assert lease.lost_reason is None
        assert world.server.sent["acquire"] == 1


@pytest.mark.parametrize("ratio", [0.0, -0.1, 0.32, 1.0, float("nan")])
def test_rule_4_a_ratio_that_leaves_fewer_than_three_attempts_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"at most 0\.3167.*it is " + repr(ratio)):
        Term(60, 0, renew_ratio=ratio)


# -- 5: three outcomes


def test_rule_5_gone_is_a_loss_at_once_and_is_not_tried_again() -> None:
    with World(database=1) as world:
        work, lease = hold(world, on_lost="ignore")
        world.server.restart()
        world.run(20)
        assert lease.lost_reason == "the server does not know its lease any more"
        assert world.server.sent["renew"] == 1
        world.run(600)
        assert world.server.sent["renew"] == 1
        assert work.state == "running"


def test_rule_5_whoever_asks_now_hears_no_answer_that_was_given_before() -> None:
    with World(database=1) as world:
        work, lease = hold(world, on_lost="ignore")
        world.server.order("renew", Fault(reply_late=3))
        world.run(30, until=lambda: world.server.sent["renew"] == 1)
        world.run(1)  # it is answered, and the answer is on its way
        world.server.restart()
        asking = world.loop.create_task(world.processes[0].keeper._tender.renew_now())
        world.run(5, until=asking.done)
        assert lease.lost_reason == "the server does not know its lease any more"
        assert world.server.sent["renew"] == 2
        assert work.state == "running"


@pytest.mark.parametrize(
    "fault",
    [Fault(status=429), Fault(status=500), Fault(status=503), BLACK_HOLE, REPLY_CUT, REFUSED],
    ids=["429", "500", "503", "time-out", "cut", "refused"],
)
def test_rule_5_unclear_answers_are_no_loss_and_are_tried_again(fault: Fault) -> None:
    with World(database=1) as world:
        _, lease = hold(world)
        disturb(world, "renew", fault)
        world.run(40)
        assert lease.lost_reason is None
        last_error = lease.last_error
        assert last_error is not None
        assert world.server.sent["renew"] >= 2
        world.server.quieten()
        world.run(15)
        assert lease.last_error is None
        assert lease.remaining() > 40


def test_rule_5_after_a_long_outage_a_new_lease_is_sought_for_as_long_as_the_work_runs() -> None:
    with World(database=1) as world:
        work, lease = hold(world)
        world.server.weather = lambda _: REFUSED
        world.run(500)
        assert lease.lost
        world.server.quieten()
        world.run(30)
        assert work.believes


# -- 6: renewal is independent


def test_rule_6_one_lease_whose_requests_hang_does_not_harm_the_others() -> None:
    with World(database=20) as world:
        process = world.process()
        works = [process.work("database", on_lost="ignore") for _ in range(20)]
        world.run(5)
        hanging = works[0].lease
        assert hanging is not None
        world.server.weather = lambda request: (
            BLACK_HOLE if str(hanging.id) in request.path else NONE
        )
        world.run(300)
        assert [work.believes for work in works] == [False] + [True] * 19


def test_rule_6_an_exception_inside_the_loop_cannot_stop_it() -> None:
    with World(database=2) as world:
        work, lease = hold(world)
        faults = iter([RuntimeError("bug"), ValueError("bug")])

        def explode(request: Request, _: float) -> None:
            if kind_of(request) in {"renew", "release"} and (fault := next(faults, None)):
                raise fault

        world.server.listeners.append(explode)
        world.run(30)
        assert lease.lost_reason is None
        assert world.server.sent["renew"] >= 2  # the first one exploded
        work.finish()
        world.run(5)
        assert world.server.used("tag:database") == 0
        assert next(faults, None) is None


# -- 7: stop, drain, release once


def test_rule_7_the_release_waits_for_the_renewal_under_way_and_no_renewal_follows() -> None:
    with World(database=1) as world:
        work, _ = hold(world)
        world.server.order("renew", Fault(request_late=4))
        order: list[str] = []
        world.server.listeners.append(lambda request, _: order.append(kind_of(request)))
        world.run(20, until=lambda: "renew" in order)
        work.finish()
        world.run(3)
        assert order == ["renew"]
        world.run(300)
        assert order == ["renew", "release"]
        assert world.server.used("tag:database") == 0


def test_rule_7_a_lease_is_released_once_however_often_it_is_asked_for() -> None:
    with World(database=1) as world:
        work, lease = hold(world)
        keeper = world.processes[0].keeper
        work.finish()
        keeper.release(lease)
        keeper.abandon(work.acquisition)
        world.run(60)
        assert world.server.sent["release"] == 1


# -- 8: an acquire leaks nothing

#: Where an exchange of 4 ms may be when its caller leaves: before, under way, answered.
MOMENTS = [0.0, 0.001, 0.002, 0.003, 0.004, 0.006, 0.009, 0.012, 5.0]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("fault", [NONE, REPLY_LOST, REPLY_CUT, Fault(status=504, acted=True)])
def test_rule_8_cancelled_at_any_moment_an_acquire_leaves_nothing(
    moment: float, fault: Fault
) -> None:
    with World(database=1) as world:
        world.server.order("acquire", fault)
        work = world.process().work("database")
        world.run(moment)
        work.interrupt()
        world.run(25)
        assert world.server.used("tag:database") == 0
        assert world.processes[0].books() == {}


@pytest.mark.parametrize("moment", MOMENTS)
def test_rule_8_killed_at_any_moment_a_process_holds_nothing_after_its_lease(moment: float) -> None:
    with World(database=1) as world:
        process = world.process()
        process.work("database")
        world.run(moment)
        process.crash()
        other = world.process().work("database")
        world.run(60 + 15 + 2)
        assert other.believes


def test_rule_8_a_lost_reply_is_undone_before_the_next_question() -> None:
    with World(database=1) as world:
        world.server.order("acquire", REPLY_CUT)
        order: list[str] = []
        world.server.listeners.append(lambda request, _: order.append(kind_of(request)))
        work = world.process().work("database")
        world.run(1)
        assert work.believes
        assert [kind for kind in order if kind != "other"] == ["acquire", "undo", "acquire"]


def test_rule_8_a_request_that_arrives_after_its_undo_is_undone_too() -> None:
    with World(database=2) as world:
        world.server.order("acquire", Fault(request_late=12))
        work = world.process().work("database")
        world.run(30)
        assert work.believes
        assert world.server.used("tag:database") == 1


def test_rule_8_what_a_plain_limit_cannot_take_back_is_told_and_free_after_one_lease(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with World(database=1) as world:
        world.server.order("acquire", REPLY_CUT)
        world.server.limits["plain"] = world.server.limits["tag:database"]
        work = world.process().work("plain", plain=True)
        world.run(50)
        assert [record.levelname for record in caplog.records if "lost" in record.message] == [
            "WARNING"
        ]
        assert work.state == "waiting"
        world.run(60 + 15 + 2 - 50)
        assert work.believes


def test_rule_8_a_grant_that_arrives_after_its_own_deadline_is_given_back() -> None:
    with World(database=1) as world:
        world.server.order("acquire", Fault(reply_late=58))
        process = world.process(request_timeout_seconds=90)
        work = process.work("database")
        world.run(64)
        assert work.believes
        assert work.lease is not None
        assert work.lease.acquired_at > START + 58
        assert world.server.used("tag:database") == 1
        assert process.books() == {"tag:database": 1}


def test_rule_8_a_grant_that_arrives_after_its_waiter_timed_out_is_given_back() -> None:
    with World(database=1) as world:
        world.server.order("acquire", Fault(reply_late=5))
        work = world.process().work("database", timeout_seconds=1)
        world.run(10)
        assert work.error is not None
        assert world.server.used("tag:database") == 0


# -- 10: loss is typed, prompt, told once


def test_rule_10_the_error_names_limits_reason_and_age() -> None:
    with World(database=1) as world:
        _, lease = hold(world, on_lost="ignore")
        disturb(world, "renew", BLACK_HOLE)
        world.run(58)
        with pytest.raises(LeaseLostError, match="tag 'database'") as caught:
            lease.check()
        assert caught.value.names == ("tag:database",)
        assert "no renewal was confirmed in time" in caught.value.reason
        assert caught.value.renewed_seconds_ago == pytest.approx(58, abs=1)


@pytest.mark.parametrize("policy", ["regain", "cancel", "ignore"])
def test_rule_10_a_loss_is_told_once(policy: OnLeaseLost, caplog: pytest.LogCaptureFixture) -> None:
    with World(database=1) as world:
        _, lease = hold(world, on_lost=policy)
        disturb(world, "renew", REPLY_LOST)
        world.run(58)
        world.server.quieten()
        world.run(300)
        told = [record for record in caplog.records if "lost its slot" in record.message]
        assert [record.levelno for record in told] == [logging.WARNING]
        assert lease.lost == (policy == "ignore")


def test_rule_10_after_the_body_ended_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with World(database=1) as world:
        work, lease = hold(world, on_lost="cancel")
        world.server.order("renew", Fault(reply_late=2))
        world.run(20, until=lambda: world.server.sent["renew"] == 1)
        world.server.restart()  # the renewal under way will say "gone"
        world.at(1, work.finish)
        world.run(300)
        assert not work.cancelled_by_loss
        assert not lease.lost
        assert not [record for record in caplog.records if "lost its slot" in record.message]


@pytest.mark.parametrize("policy", ["regain", "cancel", "ignore"])
def test_rule_10_a_body_that_ends_as_its_lease_is_lost_gives_everything_back(
    policy: OnLeaseLost,
) -> None:
    with World(database=1) as world:
        work, lease = hold(world, on_lost=policy)
        disturb(world, "renew", REPLY_LOST)
        # First in that moment: the keeper learns of the end after it has looked at the deadline.
        world.at(lease.term.deadline - world.now, work.finish)
        world.run(60)
        assert world.server.used("tag:database") == 0
        assert world.processes[0].books() == {}
