"""What the reply to an acquire means; nothing that is not understood is taken for "no limit"."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from leasehold.client.dialect import COUNTERS, LEASES, TAG_CALLS, read_acquire
from leasehold.client.wire import (
    Granted,
    Holder,
    Refusal,
    Refused,
    Reply,
    SlotRequest,
    Unlimited,
)

if TYPE_CHECKING:
    from leasehold.client.dialect import Dialect
    from leasehold.client.wire import Outcome

LEASE = "01234567-89ab-cdef-0123-456789abcdef"
LIMIT = {"id": LEASE, "name": "tag:a", "limit": 3}


def read(dialect: Dialect, content: Any) -> Outcome:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    request = SlotRequest(("tag:a",))
    return read_acquire(dialect, Reply(200, {}, body), request, Holder(uuid.uuid4()))


def test_a_lease_says_how_it_is_kept_and_given_back() -> None:
    granted = read(LEASES, {"lease_id": LEASE, "limits": [LIMIT]})
    assert isinstance(granted, Granted)
    assert granted.limits == {"tag:a": 3}
    assert granted.lease_id == uuid.UUID(LEASE)
    assert granted.renewal is not None
    assert LEASE in granted.renewal.path
    assert granted.release is not None
    assert granted.release.body == {"lease_id": LEASE}


def test_the_old_calls_name_tags() -> None:
    granted = read(TAG_CALLS, [{**LIMIT, "name": "a"}])
    assert isinstance(granted, Granted)
    assert granted.limits == {"tag:a": 3}


@pytest.mark.parametrize("dialect", [TAG_CALLS, COUNTERS])
def test_no_limit_is_an_empty_list(dialect: Dialect) -> None:
    assert read(dialect, []) == Unlimited()
    assert read(LEASES, {"lease_id": LEASE, "limits": []}) == Unlimited()


BROKEN_LISTS: list[Any] = [
    None,
    "",
    0,
    {},
    {"name": "tag:a", "limit": 3},
    ["tag:a"],
    [None],
    [{}],
    [{"name": "tag:a"}],
    [{"limit": 3}],
    [{"name": "tag:a", "limit": None}],
    [{"name": "tag:a", "limit": "3"}],
    [{"name": "tag:a", "limit": True}],
    [{"name": "tag:a", "limit": 2.5}],
    [{"name": 7, "limit": 3}],
    [LIMIT, {}],
]
BROKEN_BODIES: list[Any] = [b"", b"\xff", b"<html>", b"[", "text", 7, None]


@pytest.mark.parametrize("content", [*BROKEN_BODIES, *BROKEN_LISTS])
@pytest.mark.parametrize("dialect", [TAG_CALLS, COUNTERS])
def test_what_is_no_list_of_limits_is_refused(dialect: Dialect, content: Any) -> None:
    refused = read(dialect, content)
    assert isinstance(refused, Refused)
    assert refused.why is Refusal.NOT_UNDERSTOOD


@pytest.mark.parametrize(
    "content",
    [
        *BROKEN_BODIES,
        [],
        [LIMIT],
        {},
        {"lease_id": LEASE},
        {"limits": []},
        {"limits": [LIMIT]},
        {"lease_id": None, "limits": [LIMIT]},
        {"lease_id": "x", "limits": [LIMIT]},
        {"lease_id": 7, "limits": []},
        *({"lease_id": LEASE, "limits": limits} for limits in BROKEN_LISTS),
    ],
)
def test_what_is_no_lease_is_refused(content: Any) -> None:
    refused = read(LEASES, content)
    assert isinstance(refused, Refused)
    assert refused.why is Refusal.NOT_UNDERSTOOD
