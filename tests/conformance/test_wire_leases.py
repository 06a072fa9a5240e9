"""PROTOCOL.md, "Lease path"."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from conformance.backends import GLOBALS, path_of, task_run

if TYPE_CHECKING:
    from conformance.backends import Backend

#: An id that is the same in every run, for the names of tests.
A_RUN = "00000000-0000-4000-8000-000000000001"


def test_every_place_tells_its_version_and_its_health(backend: Backend) -> None:
    version = backend.ask("GET", "/admin/version").json()
    assert version == {"embedded": "3.8.8"}.get(backend.name, backend.name)
    assert backend.ask("GET", "/health").json() is True


def test_without_csrf_protection_no_token_is_to_be_had(backend: Backend) -> None:
    reply = backend.ask("GET", f"/csrf-token?client={uuid.uuid4()}")
    assert (reply.status_code, reply.json()) == (422, {"detail": "CSRF protection is disabled."})


def test_a_lease_on_names_without_limits_holds_nothing_or_does_not_exist(backend: Backend) -> None:
    reply = backend.acquire([f"nowhere {uuid.uuid4()}"], holder=task_run())
    assert reply.status_code == backend.expected.acquire_without_limits
    assert reply.json().get("limits", []) == []


def test_renewing_what_was_never_there_is_the_same_as_renewing_what_is_gone(
    backend: Backend,
) -> None:
    assert backend.renew(str(uuid.uuid4())) == backend.expected.renew_gone


def test_a_wrong_method_and_an_unknown_path_are_told_apart(backend: Backend) -> None:
    assert backend.ask("PUT", path_of("any"), {}).status_code == 405
    assert backend.ask("GET", "/nowhere").status_code == 404


# -- acquire


def test_a_grant_names_the_limits_that_exist_and_counts_there(leasing: Backend) -> None:
    name = leasing.make(2)
    granted = leasing.acquire([name, f"nowhere {uuid.uuid4()}"], holder=task_run())
    assert granted.status_code == 200
    assert uuid.UUID(granted.json()["lease_id"])
    [limit] = granted.json()["limits"]
    assert (limit["name"], limit["limit"]) == (name, 2)
    assert limit["id"] == leasing.ask("GET", path_of(name)).json()["id"]
    assert leasing.used(name) == 1


def test_a_name_given_twice_counts_once(leasing: Backend) -> None:
    name = leasing.make(3)
    leasing.lease(name, name)
    assert leasing.used(name) == 1


def test_no_names_at_all_are_no_limits(leasing: Backend) -> None:
    reply = leasing.acquire([])
    assert (reply.status_code, reply.json()["limits"]) == (200, [])


def test_a_full_limit_is_locked_and_says_when_to_ask_again(leasing: Backend) -> None:
    name = leasing.make(1)
    leasing.lease(name)
    full = leasing.acquire([name])
    assert (full.status_code, full.json()) == (423, {"detail": "Locked"})
    assert float(full.headers["retry-after"]) > 0
    assert leasing.used(name) == 1


def test_all_names_are_taken_or_none(leasing: Backend) -> None:
    full, free = leasing.make(1), leasing.make(5)
    leasing.lease(full)
    assert leasing.acquire([free, full]).status_code == 423
    assert leasing.used(free) == 0


@pytest.mark.parametrize(("limit", "slots"), [(0, 1), (2, 3)])
def test_more_slots_than_the_limit_has_are_refused(
    leasing: Backend, limit: int, slots: int
) -> None:
    refused = leasing.acquire([leasing.make(limit)], slots)
    assert refused.status_code == 422
    assert refused.json() == {"detail": "Slots requested is greater than the limit"}


def test_an_inactive_limit_is_listed_but_not_counted(leasing: Backend) -> None:
    name = leasing.make(1, active=False)
    for slots in (1, 1, 5):
        granted = leasing.acquire([name], slots)
        assert [limit["name"] for limit in granted.json()["limits"]] == [name]
    assert leasing.used(name) == 0


def test_a_shrunken_limit_is_full(leasing: Backend) -> None:
    name = leasing.make(2)
    leasing.lease(name, slots=2)
    leasing.patch(name, limit=1)
    assert leasing.used(name) == 2
    assert leasing.acquire([name]).status_code == 423


@pytest.mark.parametrize(
    ("seconds", "status"), [(59.9, 422), (60, 200), (86400, 200), (86401, 422)]
)
def test_a_lease_lasts_from_a_minute_to_a_day(
    leasing: Backend, seconds: float, status: int
) -> None:
    name = leasing.make(1)
    assert leasing.acquire([name], lease_duration=seconds).status_code == status


@pytest.mark.parametrize(
    "values",
    [
        {"lease_duration": 59},
        {"slots": 0},
        {"slots": -1},
        {"names": None},
        {"mode": "other"},
        {"holder": {"type": "other", "id": A_RUN}},
        {"holder": {"type": "task_run", "id": "no uuid"}},
        {"holder": {"type": "task_run", "id": A_RUN, "name": "more"}},
    ],
    ids=str,
)
def test_a_bad_body_is_refused_in_words_of_its_own(
    leasing: Backend, values: dict[str, Any]
) -> None:
    name = leasing.make(1)
    body = {"names": [name], "slots": 1, "lease_duration": 60, **values}
    refused = leasing.ask("POST", f"{GLOBALS}/increment-with-lease", body)
    assert refused.status_code == 422
    assert refused.json()["exception_message"] == "Invalid request received."
    assert refused.json()["exception_detail"]
    assert leasing.used(name) == 0


def test_only_a_limit_that_decays_can_be_used_for_rate_limiting(leasing: Backend) -> None:
    refused = leasing.acquire([leasing.make(1)], mode="rate_limit")
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith(
        "Only concurrency limits with slot decay can be used for rate limiting"
    )


# -- renew and release


def test_a_held_lease_can_be_renewed(leasing: Backend) -> None:
    assert leasing.renew(leasing.lease(leasing.make(1))) == 204


def test_a_renewal_for_less_than_a_minute_is_refused(leasing: Backend) -> None:
    path = f"{GLOBALS}/leases/{leasing.lease(leasing.make(1))}/renew"
    assert leasing.ask("POST", path, {"lease_duration": 59}).status_code == 422


def test_a_release_frees_the_slots_of_all_names(leasing: Backend) -> None:
    one, other = leasing.make(3), leasing.make(3)
    lease = leasing.lease(one, other, slots=2)
    assert (leasing.used(one), leasing.used(other)) == (2, 2)
    assert leasing.release(lease) == 204
    assert (leasing.used(one), leasing.used(other)) == (0, 0)


def test_a_released_lease_is_gone_and_releasing_it_again_frees_nothing(leasing: Backend) -> None:
    name = leasing.make(2)
    lease = leasing.lease(name)
    leasing.lease(name)
    assert leasing.release(lease) == 204
    assert leasing.release(lease) == 204
    assert leasing.used(name) == 1
    assert leasing.renew(lease) == leasing.expected.renew_gone


def test_releasing_what_was_never_there_is_fine(leasing: Backend) -> None:
    assert leasing.release(str(uuid.uuid4())) == 204


def test_an_id_that_is_none_is_refused(leasing: Backend) -> None:
    assert leasing.release("no uuid") == 422
    assert leasing.renew("no-uuid") == 422


def test_a_lease_that_holds_nothing_can_be_renewed_and_released(leasing: Backend) -> None:
    lease = leasing.lease(f"nowhere {uuid.uuid4()}")
    assert leasing.renew(lease) == 204
    assert leasing.release(lease) == 204


def test_a_lease_outlives_its_limit(leasing: Backend) -> None:
    name = leasing.make(1)
    lease = leasing.lease(name, holder=task_run())
    leasing.ask("DELETE", path_of(name))
    assert leasing.renew(lease) == 204
    assert leasing.release(lease) == 204


# -- undoing an acquire whose reply was lost


@pytest.mark.parametrize("kind", ["task_run", "flow_run", "deployment"])
def test_every_lease_of_a_holder_on_a_tag_can_be_undone_by_the_holders_id(
    unified: Backend, kind: str
) -> None:
    tag = unified.make_tag(5)
    run = str(uuid.uuid4())
    holder = {"type": kind, "id": run}
    lost = [unified.lease(f"tag:{tag}", slots=slots, holder=holder) for slots in (1, 2)]
    kept = unified.lease(f"tag:{tag}", holder=task_run())
    assert unified.decrement_tags([tag], run).status_code == 200
    assert unified.used(f"tag:{tag}") == 1
    assert [unified.renew(lease) for lease in lost] == [unified.expected.renew_gone] * 2
    assert unified.renew(kept) == 204


def test_undoing_on_one_tag_undoes_the_whole_lease(unified: Backend) -> None:
    one, other = unified.make_tag(1), unified.make_tag(1)
    run = str(uuid.uuid4())
    unified.lease(f"tag:{one}", f"tag:{other}", holder=task_run(run))
    unified.decrement_tags([one], run)
    assert (unified.used(f"tag:{one}"), unified.used(f"tag:{other}")) == (0, 0)


def test_undoing_what_never_happened_changes_nothing(unified: Backend) -> None:
    tag = unified.make_tag(1)
    unified.lease(f"tag:{tag}", holder=task_run())
    assert unified.decrement_tags([tag], str(uuid.uuid4())).status_code == 200
    assert unified.used(f"tag:{tag}") == 1
