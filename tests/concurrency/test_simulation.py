"""Long times and many leases, simulated; and that the simulation itself is worth believing."""

from __future__ import annotations

import asyncio
import time

import pytest

from concurrency.simulated_server import BLACK_HOLE, REFUSED, REPLY_LOST, Fault
from concurrency.simulation import START, Process, VirtualLoop, Work, World
from leasehold.concurrency.lease import Term
from leasehold.exceptions import AcquireConcurrencySlotTimeoutError, SlotsOverLimitError

DAY_SECONDS = 86_400.0


def keep_busy(process: Process, *tags: str, seconds: float, until: float) -> list[Work]:
    """Have work of a kind follow work of the same kind; gives the list that it is noted in."""
    world, done = process.world, list[Work]()

    def next_one(_: object = None) -> None:
        if world.now < until:
            work = process.work(*tags, seconds=seconds)
            done.append(work)
            work.acquisition.future.add_done_callback(lambda _: world.at(seconds, next_one))

    next_one()
    return done


# -- the simulation


def test_virtual_time_passes_only_when_nothing_else_is_left_to_do() -> None:
    loop = VirtualLoop()
    seen: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, loop.time()))

    begun = loop.time()
    tasks = [loop.create_task(sleeper("a day", DAY_SECONDS)), loop.create_task(sleeper("a", 1))]
    loop.run(DAY_SECONDS - 1)
    assert seen == [("a", begun + 1)]
    loop.run(1)
    assert seen[-1] == ("a day", begun + DAY_SECONDS)
    assert all(task.done() for task in tasks)
    loop.close()


def test_two_runs_with_the_same_seed_are_the_same_run() -> None:
    def run() -> tuple[object, ...]:
        with World(seed=7, database=2) as world:
            processes = [world.process() for _ in range(3)]
            works = [process.work("database", seconds=0.7) for process in processes * 5]
            world.server.order("acquire", REPLY_LOST, times=3)
            world.run(300)
            return [work.began_at for work in works], world.server.sent, world.now

    assert run() == run()


def test_the_invariants_notice_a_body_without_a_lease() -> None:
    with World(database=1) as world:
        world.process().work("database")
        world.run(1)
        world.server.leases.clear()
        with pytest.raises(AssertionError, match="believes in a lease that the server has not"):
            world.run(1)


def test_the_invariants_notice_one_body_too_many() -> None:
    with World(database=1) as world:
        works = [world.process().work("database") for _ in range(2)]
        world.run(1)
        world.server.limits["tag:database"].used = 0
        with pytest.raises(AssertionError, match="given back twice"):
            world.run(5)
        world.loop.watchers.clear()
        world.run(5)
        assert all(work.believes for work in works)
        with pytest.raises(AssertionError, match="too many"):
            world.check()


# -- long


def test_a_day_of_one_lease_is_thousands_of_renewals_and_takes_milliseconds() -> None:
    began = time.process_time()
    term, renewals = Term(60, 0.0), 0
    while term.sent_at < DAY_SECONDS:
        sent_at = term.renew_at(1 - 2 * (renewals % 2))
        assert term.remaining(sent_at) > 38
        term, renewals = term.renewed(sent_at), renewals + 1
    assert renewals >= 4_700
    assert time.process_time() - began < 1


def test_a_day_with_1000_leases_of_which_none_is_lost_and_none_is_left() -> None:
    began = time.process_time()
    with World(database=10) as world:
        process = world.process()
        for number in range(1000):
            start = DAY_SECONDS / 1000 * number
            world.at(start, lambda: process.work("database", seconds=250))
        world.run(DAY_SECONDS)
        assert world.server.sent["renew"] > 12_000
        world.come_to_rest()
        leases = [work.lease for work in process.works]
        assert [lease for lease in leases if lease is None or lease.lost_reason is not None] == []
        assert world.server.sent["acquire"] == world.server.sent["release"] == 1000
    assert time.process_time() - began < 10  # about 1 s, with room for a slow machine


def test_1000_leases_at_once_stay_fresh_and_their_renewals_are_spread() -> None:
    with World(database=1000, latency_seconds=0, watched=False) as world:
        process = world.process()
        works = [process.work("database") for _ in range(1000)]
        world.run(60)
        for _ in range(120):
            world.run(1)
            world.check()
        assert all(work.believes for work in works)
        assert len(process.keeper.leases()) == 1000
        assert world.server.sent["acquire"] == 1000
        world.run(420)  # 56 a second on average: what was taken together has drifted apart
        before = world.server.sent["renew"]
        world.run(1)
        assert world.server.sent["renew"] - before < 200


# -- many


def test_work_of_several_processes_shares_a_limit_and_uses_it_fully() -> None:
    with World(database=4) as world:
        processes = [world.process() for _ in range(4)]
        works = [process.work("database", seconds=1.0) for process in processes for _ in range(25)]
        world.run(120, until=lambda: all(work.state == "ended" for work in works))
        assert world.now - START < 1.5 * (100 * 1.0 / 4)
        shares = [sum(w.began_at is not None for w in process.works) for process in processes]
        assert shares == [25, 25, 25, 25]
        world.come_to_rest()


def test_short_work_is_handed_over_with_fewer_requests_than_there_is_work() -> None:
    with World(database=1) as world:
        process = world.process()
        works = [process.work("database", seconds=0.02) for _ in range(200)]
        world.run(30, until=lambda: all(work.state == "ended" for work in works))
        assert all(work.error is None for work in works)
        assert world.server.sent["acquire"] < 20
        order = [work.began_at for work in works]
        assert order == sorted(order, key=lambda moment: moment or 0)


def test_a_waiter_on_two_limits_is_not_passed_for_ever_by_waiters_on_one() -> None:
    with World(database=1, gpu=1) as world:
        process, until = world.process(), world.now + 600
        for tag in ("database", "database", "database", "gpu", "gpu", "gpu"):
            keep_busy(process, tag, seconds=0.7, until=until)
        world.run(5)
        both = process.work("database", "gpu", seconds=1)
        world.run(120)
        assert both.state == "ended"
        assert both.error is None


def test_time_in_the_queue_counts_towards_the_time_out() -> None:
    with World(database=1) as world:
        process = world.process()
        process.work("database")
        world.run(1)
        late = [process.work("database", timeout_seconds=3) for _ in range(3)]
        begun = world.now
        world.run(10, until=lambda: all(work.state == "ended" for work in late))
        assert world.now - begun == pytest.approx(3, abs=0.1)
        assert all(isinstance(one.error, AcquireConcurrencySlotTimeoutError) for one in late)


def test_without_patience_a_free_slot_is_had_and_a_taken_one_is_not_waited_for() -> None:
    with World(database=1) as world:
        first = world.process().work("database", timeout_seconds=0)
        world.run(1)
        assert first.believes
        second = world.process().work("database", timeout_seconds=0)
        world.run(1)
        assert isinstance(second.error, AcquireConcurrencySlotTimeoutError)


def test_more_slots_than_the_limit_has_are_refused_at_once() -> None:
    with World(database=1) as world:
        work = world.process().work("database", slots=2)
        world.run(1)
        assert isinstance(work.error, SlotsOverLimitError)


def test_where_no_limit_exists_one_question_serves_all() -> None:
    with World() as world:
        process = world.process()
        works = [process.work("unlimited", seconds=1) for _ in range(100)]
        world.run(2)
        assert all(work.error is None for work in works)
        assert world.server.sent["acquire"] == 1


# -- outages


@pytest.mark.parametrize("seconds", [40, 90])
@pytest.mark.parametrize("fault", [REFUSED, BLACK_HOLE, Fault(status=500)])
def test_after_an_outage_every_body_still_runs_and_holds(seconds: float, fault: Fault) -> None:
    with World(database=3) as world:
        works = [world.process().work("database") for _ in range(3)]
        world.run(20)
        world.server.weather = lambda _: fault
        world.run(seconds)
        world.server.quieten()
        world.run(60)
        assert all(work.believes for work in works)
        world.come_to_rest()


def test_an_outage_and_a_loss_are_told_once_each(caplog: pytest.LogCaptureFixture) -> None:
    with World(database=1) as world:
        world.process().work("database")
        world.run(20)
        world.server.weather = lambda _: REFUSED
        world.run(90)
        world.server.quieten()
        world.run(60)
        warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert [text.startswith("No luck for") for text in warnings].count(True) == 1
        assert ["lost its slot" in text for text in warnings].count(True) == 1


def test_after_a_restart_slots_of_running_work_are_counted_once() -> None:
    with World(database=2) as world:
        works = [world.process().work("database") for _ in range(2)]
        world.run(5)
        world.server.restart()
        world.run(60)
        assert all(work.believes for work in works)
        assert world.server.used("tag:database") == 2
        world.come_to_rest()
        assert world.server.used("tag:database") == 0
