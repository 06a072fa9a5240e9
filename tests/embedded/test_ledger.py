"""The ledger's operations, on a clock that the test moves."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import settings as checks
from hypothesis import strategies as st

from leasehold.embedded.identity import Process
from leasehold.embedded.ledger import Ledger

HOUR: Final = 3600.0


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.seconds


class Registry:
    """Knows which processes live and which have ended, and remembers who was asked about."""

    def __init__(self) -> None:
        self.living: set[Process] = set()
        self.ended: set[Process] = set()
        self.asked: list[Process] = []

    def __call__(self, process: Process) -> bool | None:
        """Say whether a process lives, where that is known."""
        self.asked.append(process)
        if process in self.ended:
            return False
        return True if process in self.living else None


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock, registry: Registry) -> Ledger:
    return Ledger(tmp_path / "ledger.db", now=clock, lives=registry)


def process(pid: int) -> Process:
    return Process("boot", "namespace", pid, f"start of {pid}")


def take(
    ledger: Ledger, *names: str, slots: int = 1, seconds: float = 60, who: Process | None = None
) -> str | None:
    """Take slots; give the lease's id, or None when a limit is full."""
    return ledger.acquire(names, slots, seconds=seconds, process=who).lease_id


def used(ledger: Ledger, name: str) -> int:
    limit = ledger.read(name)
    assert limit is not None
    return limit.used_now(ledger.now())


# -- leases


def test_slots_are_granted_up_to_the_limit_and_a_release_makes_room(ledger: Ledger) -> None:
    ledger.create("a", 2)
    first = take(ledger, "a")
    assert first
    assert take(ledger, "a")
    assert take(ledger, "a") is None
    ledger.release(first)
    assert take(ledger, "a")


def test_all_limits_are_taken_or_none(ledger: Ledger) -> None:
    ledger.create("a", 5)
    ledger.create("b", 1)
    assert take(ledger, "b")
    assert take(ledger, "a", "b") is None
    assert (used(ledger, "a"), used(ledger, "b")) == (0, 1)


def test_a_lease_on_five_hundred_limits_is_taken_and_given_back_as_one(ledger: Ledger) -> None:
    names = [f"limit {number}" for number in range(500)]
    for name in names:
        ledger.create(name, 1)
    lease = take(ledger, *names)
    assert lease
    assert {used(ledger, name) for name in names} == {1}
    ledger.release(lease)
    assert {used(ledger, name) for name in names} == {0}


@pytest.mark.parametrize("name", ["ü#?", "a'b\"c", "日本語", " ", "%_", "x" * 10_000, "tag:tag:a"])
def test_a_name_is_only_a_name(ledger: Ledger, name: str) -> None:
    assert ledger.create(name, 1)
    assert ledger.create(name, 1) is None
    assert take(ledger, name)
    assert take(ledger, name) is None
    assert [limit.name for limit in ledger.list_limits(10, 0)] == [name]


def test_releasing_twice_frees_once(ledger: Ledger) -> None:
    ledger.create("a", 2)
    lease = take(ledger, "a")
    assert lease
    assert take(ledger, "a")
    ledger.release(lease)
    ledger.release(lease)
    assert used(ledger, "a") == 1


def test_an_expired_lease_gives_its_slots_back_to_whoever_asks_next(
    ledger: Ledger, clock: Clock
) -> None:
    ledger.create("a", 1)
    assert take(ledger, "a", seconds=60)
    clock.seconds += 59.9
    assert take(ledger, "a") is None
    clock.seconds += 0.1
    assert take(ledger, "a")


def test_an_expired_lease_cannot_be_renewed_and_its_late_release_frees_nobody_elses_slot(
    ledger: Ledger, clock: Clock
) -> None:
    ledger.create("a", 1)
    old = take(ledger, "a")
    assert old
    clock.seconds += 61
    assert not ledger.renew(old, 60)
    assert take(ledger, "a")
    ledger.release(old)
    assert used(ledger, "a") == 1


def test_a_renewed_lease_lives_for_its_duration_from_the_renewal_on(
    ledger: Ledger, clock: Clock
) -> None:
    ledger.create("a", 1)
    lease = take(ledger, "a", seconds=60)
    assert lease
    clock.seconds += 50
    assert ledger.renew(lease, 60)
    clock.seconds += 59
    assert used(ledger, "a") == 1
    clock.seconds += 2
    assert used(ledger, "a") == 0


# -- limits that change while they are held


def test_a_limit_switched_off_while_held_keeps_no_counter_behind(ledger: Ledger) -> None:
    ledger.create("a", 1)
    lease = take(ledger, "a")
    assert lease
    ledger.update("a", active=False)
    ledger.release(lease)
    ledger.update("a", active=True)
    assert take(ledger, "a")


def test_what_was_taken_while_a_limit_was_off_frees_nobody_elses_slot(ledger: Ledger) -> None:
    ledger.create("a", 1, active=False)
    uncounted = take(ledger, "a")
    assert uncounted
    ledger.update("a", active=True)
    assert take(ledger, "a")
    ledger.release(uncounted)
    assert take(ledger, "a") is None


def test_a_lease_outlives_the_deletion_of_one_of_its_limits(ledger: Ledger) -> None:
    ledger.create("a", 1)
    ledger.create("b", 1)
    lease = take(ledger, "a", "b")
    assert lease
    ledger.delete("a")
    assert ledger.renew(lease, 60)
    ledger.create("a", 1)
    assert (used(ledger, "a"), used(ledger, "b")) == (0, 1)
    ledger.release(lease)
    assert (used(ledger, "a"), used(ledger, "b")) == (0, 0)


def test_a_shrunken_limit_admits_nobody_until_enough_have_left(ledger: Ledger) -> None:
    ledger.create("a", 3)
    leases = [take(ledger, "a") for _ in range(3)]
    ledger.update("a", limit=1)
    for lease in leases:
        assert take(ledger, "a") is None
        assert lease
        ledger.release(lease)
    assert take(ledger, "a")


def test_a_reset_leaves_the_named_holders_and_nobody_else(ledger: Ledger) -> None:
    ledger.create("tag:a", 3)
    lease = take(ledger, "tag:a", slots=3)
    assert lease
    assert ledger.reset("tag:a", ["run"], HOUR)
    limit = ledger.read("tag:a")
    assert limit is not None
    assert limit.used == 1
    assert ledger.holders(limit.id) == [("task_run", "run")]
    assert not ledger.renew(lease, 60)


def test_a_renamed_limit_keeps_its_holders(ledger: Ledger) -> None:
    ledger.create("a", 1)
    ledger.create("taken", 1)
    lease = take(ledger, "a")
    assert lease
    assert ledger.update("a", name="taken") is None
    assert ledger.update("a", name="b")
    assert used(ledger, "b") == 1
    ledger.release(lease)
    assert used(ledger, "b") == 0


# -- decay


def test_slots_decay_one_by_one(ledger: Ledger, clock: Clock) -> None:
    ledger.create("rate", 3, slot_decay_per_second=0.5)
    ledger.acquire(["rate"], 3, seconds=None)
    seen = []
    for _ in range(7):
        seen.append(used(ledger, "rate"))
        clock.seconds += 1
    assert seen == [3, 3, 2, 2, 1, 1, 0]


def test_many_small_takings_decay_as_fast_as_one(ledger: Ledger, clock: Clock) -> None:
    ledger.create("rate", 5, slot_decay_per_second=1.0)
    granted = 0
    for _ in range(1000):
        clock.seconds += 0.3
        granted += ledger.acquire(["rate"], 1, seconds=None).full is None
    assert granted == pytest.approx(5 + 300, abs=1)


@pytest.mark.parametrize("decay", [0.001, 0.3, 7.0])
def test_the_time_until_decay_makes_room_is_exact(
    ledger: Ledger, clock: Clock, decay: float
) -> None:
    ledger.create("rate", 10, slot_decay_per_second=decay)
    ledger.acquire(["rate"], 10, seconds=None)
    clock.seconds += 0.4 / decay
    full = ledger.acquire(["rate"], 3, seconds=None).full
    assert full
    wait = full.seconds_until_free(3, clock())
    assert wait == pytest.approx(2.6 / decay)
    clock.seconds += wait * 0.99
    assert ledger.acquire(["rate"], 3, seconds=None).full
    clock.seconds += wait * 0.02
    assert ledger.acquire(["rate"], 3, seconds=None).full is None


def test_the_fastest_decay_there_can_be_overflows_nothing(ledger: Ledger, clock: Clock) -> None:
    ledger.create("rate", 1, slot_decay_per_second=1e300)
    for _ in range(3):
        assert ledger.acquire(["rate"], 1, seconds=None).full is None
        clock.seconds += 1e9


def test_a_clock_set_back_by_an_hour_does_not_stop_decay(ledger: Ledger, clock: Clock) -> None:
    ledger.create("rate", 1, slot_decay_per_second=1.0)
    ledger.acquire(["rate"], 1, seconds=None)
    clock.seconds -= HOUR
    assert ledger.acquire(["rate"], 1, seconds=None).full is not None
    clock.seconds += 1.01
    assert ledger.acquire(["rate"], 1, seconds=None).full is None


# -- processes that have ended


def test_the_slots_of_ended_processes_come_back_at_once(ledger: Ledger, registry: Registry) -> None:
    ledger.create("a", 2)
    assert take(ledger, "a", who=process(1), seconds=HOUR)
    assert take(ledger, "a", who=process(2), seconds=HOUR)
    assert take(ledger, "a", who=process(3)) is None
    registry.ended.add(process(1))
    assert take(ledger, "a", who=process(3))
    assert take(ledger, "a", who=process(4)) is None


def test_nobody_is_asked_about_while_there_is_room_and_each_process_once_when_there_is_none(
    ledger: Ledger, registry: Registry
) -> None:
    ledger.create("a", 3)
    for _ in range(3):
        assert take(ledger, "a", who=process(1))
    assert registry.asked == []
    assert take(ledger, "a", who=process(2)) is None
    assert registry.asked == [process(1)]


def test_the_slots_of_ended_processes_are_not_shown_as_used(
    ledger: Ledger, registry: Registry
) -> None:
    ledger.create("a", 3)
    take(ledger, "a", who=process(1))
    registry.ended.add(process(1))
    assert used(ledger, "a") == 0
    take(ledger, "a", who=process(1))
    assert [limit.used for limit in ledger.list_limits(10, 0)] == [0]


def test_a_lease_without_a_process_ends_by_expiry_alone(ledger: Ledger, registry: Registry) -> None:
    ledger.create("a", 1)
    take(ledger, "a", who=None)
    assert take(ledger, "a") is None
    assert registry.asked == []


# -- processes that live


def test_the_lease_of_a_process_that_stands_still_does_not_expire_while_it_lives(
    ledger: Ledger, clock: Clock, registry: Registry
) -> None:
    ledger.create("a", 1)
    lease = take(ledger, "a", who=process(1), seconds=60)
    assert lease
    registry.living.add(process(1))
    clock.seconds += HOUR
    assert take(ledger, "a", who=process(2)) is None
    assert used(ledger, "a") == 1
    assert ledger.renew(lease, 60)
    ledger.release(lease)
    assert used(ledger, "a") == 0


def test_once_it_has_ended_or_nobody_can_tell_any_more_its_lease_has_expired(
    ledger: Ledger, clock: Clock, registry: Registry
) -> None:
    ledger.create("a", 1)
    for fate in ("ended", "unknown"):
        registry.living = {process(1)}
        lease = take(ledger, "a", who=process(1), seconds=60)
        assert lease
        clock.seconds += HOUR
        assert take(ledger, "a", who=process(2)) is None
        registry.living = set()
        registry.ended = {process(1)} if fate == "ended" else set()
        assert used(ledger, "a") == 0
        assert not ledger.renew(lease, 60)
        registry.ended = set()


def test_a_clock_that_jumps_ahead_takes_no_slot_from_a_process_that_lives(
    ledger: Ledger, clock: Clock, registry: Registry
) -> None:
    ledger.create("a", 1)
    assert take(ledger, "a", who=process(1), seconds=60)
    registry.living.add(process(1))
    clock.seconds += 365 * 24 * HOUR
    assert take(ledger, "a", who=process(2)) is None


def test_of_a_thousand_leases_of_a_process_that_stood_still_it_is_asked_about_once(
    ledger: Ledger, clock: Clock, registry: Registry
) -> None:
    ledger.create("a", 1000)
    for _ in range(1000):
        assert take(ledger, "a", who=process(1), seconds=60)
    registry.living.add(process(1))
    registry.asked.clear()
    clock.seconds += HOUR
    assert used(ledger, "a") == 1000
    assert (
        registry.asked.count(process(1)) <= 2
    )  # once for expired leases, once for ended processes


# -- rule 1

WHATS: Final = ["take", "take both", "release", "undo", "switch", "delete", "wait", "die"]
STEPS: Final = st.lists(
    st.tuples(
        st.sampled_from(WHATS),
        st.integers(1, 3),
    ),
    max_size=40,
)


@checks(deadline=None, max_examples=40)
@given(steps=STEPS)
def test_counters_and_leases_agree_whatever_happens(steps: list[tuple[str, int]]) -> None:
    clock, registry = Clock(), Registry()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        ledger = Ledger(path, now=clock, lives=registry)
        leases: list[str] = []
        for name in ("tag:a", "tag:b"):
            ledger.create(name, 4)
        for what, number in steps:
            if what.startswith("take"):
                names = ["tag:a", "tag:b"] if what == "take both" else ["tag:a"]
                lease = ledger.acquire(
                    names,
                    number,
                    seconds=60,
                    holder=("task_run", str(number)),
                    process=process(number),
                ).lease_id
                leases += [lease] if lease else []
            elif what == "release" and leases:
                ledger.release(leases[number % len(leases)])
            elif what == "undo":
                ledger.release_holder(["tag:a"], str(number))
            elif what == "switch":
                ledger.update("tag:a", active=number > 1)
            elif what == "delete":
                ledger.delete("tag:b")
                ledger.create("tag:b", 4)
            elif what == "wait":
                clock.seconds += 25 * number
            elif what == "die":
                registry.ended, registry.living = {process(number)}, {process(number % 3 + 1)}
            assert_counters_agree(path)
        ledger.close()


def assert_counters_agree(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        wrong = db.execute(
            "SELECT name, used, sum(coalesce(slots, 0)) AS held FROM limits"
            " LEFT JOIN lease_limits ON limit_id = limits.id"
            " LEFT JOIN leases ON lease_id = leases.id GROUP BY limits.id"
            " HAVING used != held OR used > size"
        ).fetchall()
    assert wrong == []
