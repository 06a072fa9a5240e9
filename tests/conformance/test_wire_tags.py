"""PROTOCOL.md, "Legacy path" and "Limits, v1 form"."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from conformance.backends import GLOBALS, TAGS, path_of, path_of_tag, task_run

if TYPE_CHECKING:
    from conformance.backends import Backend


# -- slots by the old calls


def test_a_tag_without_a_limit_takes_nothing(backend: Backend) -> None:
    reply = backend.increment_tags([f"nowhere {uuid.uuid4()}"])
    assert (reply.status_code, reply.json()) == (200, [])


def test_a_run_takes_a_slot_and_is_listed_until_it_gives_it_back(backend: Backend) -> None:
    tag, run = backend.make_tag(2), str(uuid.uuid4())
    [taken] = backend.increment_tags([tag], run).json()
    assert (taken["name"], taken["limit"]) == (tag, 2)
    assert backend.runs(tag) == [run]
    for _ in range(2):
        assert backend.decrement_tags([tag], run).status_code == 200
        assert backend.runs(tag) == []


def test_a_run_gives_back_only_what_is_its_own(backend: Backend) -> None:
    tag, run = backend.make_tag(2), str(uuid.uuid4())
    backend.increment_tags([tag], run)
    backend.decrement_tags([tag], str(uuid.uuid4()))
    assert backend.runs(tag) == [run]


def test_a_run_that_asks_twice_holds_as_the_table_says_and_gives_all_of_it_back(
    backend: Backend,
) -> None:
    tag, run = backend.make_tag(2), str(uuid.uuid4())
    assert backend.increment_tags([tag], run).status_code == 200
    assert backend.increment_tags([tag], run).status_code == 200
    assert backend.runs(tag) == [run] * backend.expected.slots_of_one_run
    backend.decrement_tags([tag], run)
    assert backend.runs(tag) == []


def test_a_full_tag_is_locked_and_says_when_to_ask_again(backend: Backend) -> None:
    tag = backend.make_tag(1)
    backend.increment_tags([tag])
    full = backend.increment_tags([tag])
    assert full.status_code == 423
    least, most = backend.expected.tag_retry_after
    assert least <= float(full.headers["retry-after"]) <= most


def test_a_tag_whose_limit_is_0_is_locked_for_ever_and_says_so(backend: Backend) -> None:
    tag = backend.make_tag(0)
    locked = backend.increment_tags([tag])
    assert locked.status_code == 423
    assert "retry-after" not in locked.headers
    assert tag in locked.json()["detail"]
    assert " is 0" in locked.json()["detail"]


def test_all_tags_are_taken_or_none(backend: Backend) -> None:
    full, free = backend.make_tag(1), backend.make_tag(5)
    backend.increment_tags([full])
    assert backend.increment_tags([free, full]).status_code == 423
    assert backend.runs(free) == []


def test_a_run_without_a_proper_id_is_refused(backend: Backend) -> None:
    assert backend.increment_tags(["any"], "no uuid").status_code == 422


# -- where a tag's limit lives


def test_old_calls_and_leases_count_in_the_same_place(unified: Backend) -> None:
    tag = unified.make_tag(2)
    unified.increment_tags([tag])
    unified.lease(f"tag:{tag}", holder=task_run())
    assert unified.used(f"tag:{tag}") == 2
    assert unified.increment_tags([tag]).status_code == 423
    assert unified.acquire([f"tag:{tag}"]).status_code == 423


def test_only_task_runs_are_listed_as_holders_of_a_tag(unified: Backend) -> None:
    tag, run = unified.make_tag(2), str(uuid.uuid4())
    unified.lease(f"tag:{tag}", holder=task_run(run))
    unified.lease(f"tag:{tag}", holder={"type": "flow_run", "id": str(uuid.uuid4())})
    assert unified.runs(tag) == [run]
    assert unified.used(f"tag:{tag}") == 2


def test_the_trap_a_lease_never_sees_the_limit_that_the_tag_has(divided: Backend) -> None:
    tag = divided.make_tag(1)
    divided.increment_tags([tag])
    assert divided.ask("GET", path_of(f"tag:{tag}")).status_code == 404
    reply = divided.acquire([f"tag:{tag}"])
    assert reply.status_code == divided.expected.acquire_without_limits
    assert reply.json().get("limits", []) == []


# -- the limits


def test_making_a_tags_limit_again_changes_it(backend: Backend) -> None:
    body = {"tag": f"tag {uuid.uuid4()}", "concurrency_limit": 1}
    made = backend.ask("POST", f"{TAGS}/", body)
    assert made.status_code == backend.expected.tag_created
    again = backend.ask("POST", f"{TAGS}/", {**body, "concurrency_limit": 5})
    assert again.status_code == 200
    assert again.json()["id"] == made.json()["id"]
    seen = backend.ask("GET", path_of_tag(str(body["tag"]))).json()
    assert (seen["concurrency_limit"], seen["active_slots"]) == (5, [])


@pytest.mark.parametrize("character", "/%&><")
def test_a_tag_with_a_forbidden_character_is_refused_as_the_table_says(
    backend: Backend, character: str
) -> None:
    body = {"tag": f"a{character}{uuid.uuid4()}", "concurrency_limit": 1}
    assert backend.ask("POST", f"{TAGS}/", body).status_code == backend.expected.bad_tag


@pytest.mark.parametrize("tag", ["with space", "ü", "a#b", "a?b", "[x]", "a'b\"c", "日本語"])
def test_a_tag_that_needs_quoting_is_a_tag_like_any_other(backend: Backend, tag: str) -> None:
    tag = backend.make_tag(1, f"{tag} {uuid.uuid4()}")
    run = str(uuid.uuid4())
    backend.increment_tags([tag], run)
    assert backend.runs(tag) == [run]
    assert backend.ask("DELETE", path_of_tag(tag)).status_code == 200


def test_a_deleted_tag_has_no_limit_any_more(backend: Backend) -> None:
    tag = backend.make_tag(1)
    assert backend.ask("DELETE", path_of_tag(tag)).status_code == 200
    assert backend.ask("DELETE", path_of_tag(tag)).status_code == 404
    assert backend.ask("GET", path_of_tag(tag)).status_code == 404
    assert backend.increment_tags([tag]).json() == []


def test_a_tags_limit_can_be_read_and_deleted_by_its_id(backend: Backend) -> None:
    tag = backend.make_tag(1)
    by_tag = backend.ask("GET", path_of_tag(tag)).json()
    path = f"{TAGS}/{by_tag['id']}"
    assert backend.ask("GET", path).json() == by_tag
    assert backend.ask("DELETE", path).status_code == 200
    assert backend.ask("GET", path_of_tag(tag)).status_code == 404
    assert backend.ask("GET", path).status_code == 404


def test_what_is_not_there_cannot_be_read_or_reset(backend: Backend) -> None:
    path = path_of_tag(f"nowhere {uuid.uuid4()}")
    assert backend.ask("GET", path).status_code == 404
    assert backend.ask("POST", f"{path}/reset", {"slot_override": None}).status_code == 404


def test_tags_are_listed_in_order_from_where_the_last_page_ended(backend: Backend) -> None:
    made = {backend.make_tag(1, f"page {number} {uuid.uuid4()}") for number in range(5)}
    backend.make(1, name=f"a plain limit {uuid.uuid4()}")
    found: list[str] = []
    while True:
        reply = backend.ask("POST", f"{TAGS}/filter", {"limit": 200, "offset": len(found)})
        page = [one["tag"] for one in reply.json()]
        if not page:
            break
        found += page
    assert made <= set(found)
    assert found == sorted(set(found))


def test_a_page_of_tags_may_be_short_where_the_table_says_so(backend: Backend) -> None:
    # "!" comes before every other name, so plain limits fill what such a server looks at.
    plain = [backend.make(1, name=f"! {uuid.uuid4()}") for _ in range(3)]
    for _ in range(3):
        backend.make_tag(1)
    page = backend.ask("POST", f"{TAGS}/filter", {"limit": 3, "offset": 0}).json()
    assert (len(page) < 3) == backend.expected.short_tag_pages
    for name in plain:
        backend.ask("DELETE", path_of(name))


@pytest.mark.parametrize("path", [TAGS, GLOBALS])
@pytest.mark.parametrize("body", [{"limit": 201}, {"limit": -1}, {"limit": 1, "offset": -1}])
def test_a_page_has_two_hundred_limits_at_most(
    backend: Backend, path: str, body: dict[str, int]
) -> None:
    assert backend.ask("POST", f"{path}/filter", body).status_code == 422
