"""PROTOCOL.md, "Lease path": global limits, their counters and their decay."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from conformance.backends import GLOBALS, path_of

if TYPE_CHECKING:
    import httpx

    from conformance.backends import Backend


def increment(
    backend: Backend, name: str, slots: int = 1, mode: str = "rate_limit"
) -> httpx.Response:
    """Take slots without a lease."""
    body = {"names": [name], "slots": slots, "mode": mode}
    return backend.ask("POST", f"{GLOBALS}/increment", body)


def test_a_limit_is_found_by_its_name_and_by_its_id(backend: Backend) -> None:
    body = {"name": f"limit {uuid.uuid4()}", "limit": 3, "slot_decay_per_second": 0.5}
    made = backend.ask("POST", f"{GLOBALS}/", body)
    assert made.status_code == 201
    by_name = backend.ask("GET", path_of(str(body["name"]))).json()
    by_id = backend.ask("GET", path_of(made.json()["id"])).json()
    assert by_name == by_id
    assert by_name.items() >= {**body, "active": True, "active_slots": 0}.items()
    assert {"id", "created", "updated"} <= set(by_name)


def test_a_name_can_be_taken_once(backend: Backend) -> None:
    one, other = backend.make(1), backend.make(1)
    assert backend.ask("POST", f"{GLOBALS}/", {"name": one, "limit": 2}).status_code == 409
    assert backend.patch(other, name=one) == 409
    assert backend.patch(one, name=one) == 204


@pytest.mark.parametrize(
    "values",
    [
        *({"name": f"a{character}b"} for character in "/%&><"),
        {"name": ""},
        {"limit": -1},
        {"slot_decay_per_second": -1},
        {"unknown": 1},
    ],
    ids=str,
)
def test_what_can_be_no_limit_is_refused(backend: Backend, values: dict[str, Any]) -> None:
    body = {"name": f"limit {uuid.uuid4()}", "limit": 1, **values}
    assert backend.ask("POST", f"{GLOBALS}/", body).status_code == 422


def test_a_number_that_no_database_keeps_makes_no_limit(backend: Backend) -> None:
    body = {"name": f"limit {uuid.uuid4()}", "limit": 2**63}
    assert backend.ask("POST", f"{GLOBALS}/", body).status_code == backend.expected.too_big
    assert backend.ask("GET", path_of(str(body["name"]))).status_code == 404


@pytest.mark.parametrize("name", ["with space", "ü", "a#b", "a?b", "[x]", "a'b\"c", "日本語"])
def test_a_name_that_needs_quoting_is_a_name_like_any_other(backend: Backend, name: str) -> None:
    name = backend.make(1, name=f"{name} {uuid.uuid4()}")
    assert increment(backend, name, mode="concurrency").json()[0]["name"] == name
    assert backend.used(name) == 1
    assert backend.ask("DELETE", path_of(name)).status_code == 204


def test_every_value_of_a_limit_can_be_changed(backend: Backend) -> None:
    name = backend.make(1)
    right: list[dict[str, Any]] = [
        {"limit": 5},
        {"active_slots": 2},
        {"denied_slots": 1},
        {"active": False},
        {},
    ]
    wrong: list[dict[str, Any]] = [{"limit": -1}, {"active_slots": -1}, {"name": "a/b"}]
    assert {backend.patch(name, **values) for values in right} == {204}
    assert {backend.patch(name, **values) for values in wrong} == {422}
    seen = backend.ask("GET", path_of(name)).json()
    assert (seen["limit"], seen["active_slots"], seen["active"]) == (5, 2, False)


def test_what_is_not_there_cannot_be_read_changed_or_deleted(backend: Backend) -> None:
    name = backend.make(1)
    assert backend.ask("DELETE", path_of(name)).status_code == 204
    assert backend.ask("DELETE", path_of(name)).status_code == 404
    assert backend.ask("GET", path_of(name)).status_code == 404
    assert backend.patch(name, limit=1) == 404


def test_limits_are_listed_by_name_page_after_page(backend: Backend) -> None:
    made = {backend.make(1) for _ in range(5)}
    found: list[str] = []
    while True:
        body = {"limit": 2, "offset": len(found)}
        page = [one["name"] for one in backend.ask("POST", f"{GLOBALS}/filter", body).json()]
        found += page
        if len(page) < 2:
            break
    assert made <= set(found)
    assert found == sorted(set(found))


# -- counters without leases


def test_slots_can_be_taken_and_given_back_without_a_lease(backend: Backend) -> None:
    name = backend.make(3)
    assert increment(backend, name, 2, mode="concurrency").status_code == 200
    assert increment(backend, name, 2, mode="concurrency").status_code == 423
    body = {"names": [name], "slots": 1, "occupancy_seconds": 1.0}
    assert backend.ask("POST", f"{GLOBALS}/decrement", body).status_code == 200
    assert backend.used(name) == 1


def test_a_counter_never_falls_below_0(backend: Backend) -> None:
    name = backend.make(3)
    increment(backend, name, mode="concurrency")
    backend.ask("POST", f"{GLOBALS}/decrement", {"names": [name], "slots": 5})
    assert backend.used(name) == 0


def test_lowering_an_unknown_counter_makes_a_limit_only_where_the_table_says_so(
    backend: Backend,
) -> None:
    name = f"nowhere {uuid.uuid4()}"
    reply = backend.ask("POST", f"{GLOBALS}/decrement", {"names": [name], "slots": 1})
    assert reply.status_code == 200
    there = backend.ask("GET", path_of(name)).status_code == 200
    assert there == bool(reply.json()) == backend.expected.unknown_is_made


# -- decay


def test_a_limit_without_decay_is_no_rate_limit(backend: Backend) -> None:
    refused = increment(backend, backend.make(2))
    assert refused.status_code == 422
    assert "with slot decay can be used for rate limiting" in refused.json()["detail"]


def test_a_rate_limit_is_used_up_and_says_when_to_ask_again(backend: Backend) -> None:
    name = backend.make(2, slot_decay_per_second=0.01)
    assert increment(backend, name, 2).status_code == 200
    full = increment(backend, name)
    assert (full.status_code, full.json()) == (423, {"detail": "Locked"})
    assert float(full.headers["retry-after"]) > 1
    assert increment(backend, name, 3).status_code == 422


def test_a_rate_limit_has_room_again_when_slots_have_decayed(backend: Backend) -> None:
    name = backend.make(2, slot_decay_per_second=2.0)
    increment(backend, name, 2)
    time.sleep(1.5)  # a real server has its own clock
    assert (backend.used(name) < 2) == backend.expected.reads_decay
    assert increment(backend, name, 2).status_code == 200
