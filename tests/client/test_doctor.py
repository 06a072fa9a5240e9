"""What two looks at a server say: pure judgement, on every kind of limit."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from typing import Any

import pytest

from leasehold.client.doctor import Finding, Look, findings
from leasehold.client.holders import new_id, read_id
from leasehold.client.models import (
    ConcurrencyLimit,
    ConcurrencyLimitUse,
    GlobalConcurrencyLimitResponse,
    RunHolder,
)

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.timezone.utc)


def tag_limit(
    *holders: RunHolder, size: int = 3, counted: int | None = None, apart: bool = False
) -> tuple[ConcurrencyLimitUse, list[RunHolder]]:
    """Describe the limit of tag 'db'; `counted` is its counter, `apart` a second limit's."""
    ids = [holder.id for holder in holders]
    limit = ConcurrencyLimit(
        id=uuid.UUID(int=1), tag="db", concurrency_limit=size, active_slots=ids
    )
    if counted is None:
        return ConcurrencyLimitUse(limit=limit), list(holders)
    other = GlobalConcurrencyLimitResponse(
        id=uuid.UUID(int=2 if apart else 1), name="tag:db", limit=size, active_slots=counted
    )
    return ConcurrencyLimitUse(limit=limit, counted=other), list(holders)


def look(*tags: tuple[ConcurrencyLimitUse, list[RunHolder]], others: Any = ()) -> Look:
    return Look(at=NOW, tags=list(tags), others=list(others))


def seen_twice(tag: tuple[ConcurrencyLimitUse, list[RunHolder]]) -> list[Finding]:
    return findings(look(tag), look(tag))


def running(**values: Any) -> RunHolder:
    return RunHolder(id=uuid.uuid4(), name="load-1", state="Running", **values)


def unknown(**values: Any) -> RunHolder:
    return RunHolder(id=uuid.uuid4(), **values)


def ours(*, expires: bool, hours: float) -> RunHolder:
    made = new_id(random.Random(1), now=NOW.timestamp() - hours * 3600, expires=expires)
    origin = read_id(made)
    assert origin is not None
    return RunHolder(id=made, since=origin.since, expires=expires, is_ours=True)


@pytest.mark.parametrize(
    "tag",
    [
        tag_limit(),
        tag_limit(counted=0),
        tag_limit(running(), counted=1),
        tag_limit(running(expires=False)),
        tag_limit(ours(expires=True, hours=30), counted=1),
        tag_limit(ours(expires=False, hours=0.5)),
        tag_limit(unknown(expires=True), counted=1),
        tag_limit(counted=2, apart=True),
    ],
)
def test_limits_at_work_are_no_finding(tag: Any) -> None:
    assert seen_twice(tag) == []


@pytest.mark.parametrize("expires", [None, False])
def test_a_holder_that_the_server_does_not_know_is_found(expires: Any) -> None:
    holder = unknown(expires=expires)
    (found,) = seen_twice(tag_limit(holder, counted=None if expires is False else 1))
    assert (found.kind, found.holder, found.suspicion) == ("stale holder", holder.id, False)
    assert "'db'" in found.explanation
    assert str(holder.id) in found.explanation
    assert ("never comes back" in found.explanation) is (expires is False)


def test_a_holder_whose_run_is_over_is_found() -> None:
    holder = RunHolder(id=uuid.uuid4(), name="load-1", state="Crashed", has_ended=True)
    (found,) = seen_twice(tag_limit(holder, counted=1))
    assert (found.kind, found.suspicion, found.mendable) == ("stale holder", False, True)
    assert "'load-1'" in found.explanation
    assert "Crashed" in found.explanation


def test_a_slot_of_ours_that_cannot_expire_and_is_old_is_a_suspicion() -> None:
    (found,) = seen_twice(tag_limit(ours(expires=False, hours=30)))
    assert (found.kind, found.suspicion) == ("long holder", True)
    assert "30 h" in found.explanation


def test_slots_that_nobody_on_the_list_holds_are_a_suspicion() -> None:
    (found,) = seen_twice(tag_limit(running(), counted=3))
    assert (found.kind, found.slots, found.suspicion) == ("unlisted slots", 2, True)
    assert "says 3 slots, and the list of task runs that hold one has 1" in found.explanation


def test_slots_that_are_held_and_not_counted_are_found() -> None:
    (found,) = seen_twice(tag_limit(running(), running(), counted=1))
    assert (found.kind, found.slots, found.suspicion) == ("uncounted slots", 1, False)


def test_a_slot_in_motion_is_no_finding() -> None:
    taken, given_back = unknown(), unknown()
    first = look(tag_limit(taken, counted=2))  # one is counted already, and not yet listed
    second = look(tag_limit(given_back, counted=1))
    assert findings(first, second) == []


def test_of_a_difference_that_changes_the_smaller_one_counts() -> None:
    (found,) = findings(look(tag_limit(counted=3)), look(tag_limit(counted=1)))
    assert found.slots == 1


def test_a_limit_that_was_made_between_the_looks_is_not_judged() -> None:
    assert findings(look(), look(tag_limit(unknown(), counted=2))) == []


@pytest.mark.parametrize("counted", [None, 0])
def test_a_tag_with_a_limit_of_0_is_found_and_left_to_people(counted: int | None) -> None:
    (found,) = seen_twice(tag_limit(size=0, counted=counted))
    assert (found.kind, found.mendable) == ("size", False)
    assert "leasehold limit update 'db' N" in found.explanation


@pytest.mark.parametrize("active", [True, False])
def test_another_limit_of_0_is_found_where_it_is_enforced(*, active: bool) -> None:
    limit = GlobalConcurrencyLimitResponse(
        id=uuid.uuid4(), name="api", limit=0, active_slots=0, active=active
    )
    found = findings(look(), look(others=[limit]))
    assert [one.name for one in found] == (["api"] if active else [])


def test_a_tag_with_two_limits_that_differ_is_found_and_left_to_people() -> None:
    use, holders = tag_limit(counted=0, apart=True)
    counted = use.counted
    assert counted is not None
    use = use.model_copy(update={"counted": counted.model_copy(update={"limit": 5})})
    (found,) = seen_twice((use, holders))
    assert (found.kind, found.mendable) == ("size", False)
    assert "limit of 3" in found.explanation
    assert "of 5" in found.explanation
