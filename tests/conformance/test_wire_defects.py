"""PROTOCOL.md, "Server defects": real servers have them, the embedded ledger has not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from conformance.backends import EXPECTED, path_of_tag, task_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.backends import Backend


def test_a_reset_leaves_the_counter_that_the_table_says_and_a_patch_mends_it(
    unified: Backend,
) -> None:
    tag = unified.make_tag(2)
    for _ in range(2):
        unified.lease(f"tag:{tag}", holder=task_run())
    assert unified.ask("POST", f"{path_of_tag(tag)}/reset", {"slot_override": None}).is_success
    assert unified.runs(tag) == []
    assert unified.used(f"tag:{tag}") == unified.expected.reset_leaves
    assert unified.acquire([f"tag:{tag}"]).status_code == unified.expected.after_reset
    assert unified.patch(f"tag:{tag}", active_slots=0) == 204
    assert unified.acquire([f"tag:{tag}"]).status_code == 200


def test_after_a_reset_by_the_old_calls_the_next_asker_is_answered_as_the_table_says(
    backend: Backend,
) -> None:
    tag = backend.make_tag(2)
    for _ in range(2):
        backend.increment_tags([tag])
    assert backend.ask("POST", f"{path_of_tag(tag)}/reset", {"slot_override": None}).is_success
    assert backend.runs(tag) == []
    assert backend.increment_tags([tag]).status_code == backend.expected.after_reset


def test_a_reset_may_name_who_holds_a_slot_afterwards(backend: Backend) -> None:
    tag, run = backend.make_tag(2), task_run()["id"]
    assert backend.ask("POST", f"{path_of_tag(tag)}/reset", {"slot_override": [run]}).is_success
    assert backend.runs(tag) == [run]


def test_a_limit_switched_off_while_held_leaves_the_counter_that_the_table_says(
    leasing: Backend,
) -> None:
    name = leasing.make(2)
    lease = leasing.lease(name)
    leasing.patch(name, active=False)
    leasing.release(lease)
    assert leasing.used(name) == leasing.expected.switched_off_leaves


def test_a_slot_from_before_a_limit_was_switched_on_frees_what_the_table_says(
    leasing: Backend,
) -> None:
    name = leasing.make(2, active=False)
    uncounted = leasing.lease(name)
    leasing.patch(name, active=True)
    leasing.lease(name)
    leasing.release(uncounted)
    assert leasing.used(name) == leasing.expected.switched_on_leaves


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.server(*(name for name in EXPECTED if name != "embedded"))
def test_a_lease_that_nobody_renews_ends_as_the_table_says(
    open_backend: Callable[[str], Backend],
) -> None:
    everywhere = [open_backend(name) for name, row in EXPECTED.items() if row.leases]
    held = [(place, place.make(1)) for place in everywhere]
    for place, name in held:
        place.lease(name, holder=task_run())
    time.sleep(40)
    for place, name in held:
        assert place.acquire([name]).status_code == 423, place.name
    time.sleep(25)  # the lease has lasted for a minute, and the reaper looks every second
    for place, name in held:
        assert place.acquire([name]).status_code == place.expected.after_its_time, place.name
