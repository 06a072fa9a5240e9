"""How slots are asked for, kept and given back: three dialects of one protocol. Pure.

- `LEASES`: a slot expires unless its holder reports in. All limits from 3.4.19 on; limits that are
  no tag's from 3.4.9 on.
- `TAG_CALLS`: the old calls for tags. The server remembers the holder's id, and the slot never
  expires.
- `COUNTERS`: a bare counter goes up and down. Limits that are no tag's before 3.4.9; rate limits on
  every server, where it goes down by itself.

`server` says which of them a server needs. What cannot be undone or cannot expire has no request
for it: whoever holds a grant need not know in which dialect it was made.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID

from leasehold.client.names import TAG_PREFIX
from leasehold.client.wire import (
    Full,
    Granted,
    Refusal,
    Refused,
    Request,
    Unknown,
    Unlimited,
    is_passing,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from leasehold.client.wire import Holder, Outcome, Reply, SlotRequest

_OK, _LOCKED, _INVALID, _TOO_MANY, _UNAVAILABLE = 200, 423, 422, 429, 503

_V1: Final = "/concurrency_limits"
_V2: Final = "/v2/concurrency_limits"


class Dialect(Protocol):
    """One way to hold slots."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def expires(self) -> bool:
        """Whether slots come back when nobody reports in."""
        ...

    def acquire(self, request: SlotRequest, holder: Holder) -> Request:
        """Ask for slots."""
        ...

    def granted(self, reply: Reply, request: SlotRequest, holder: Holder) -> Granted:
        """Read a grant; one without limits means that none of them exists.

        Raises:
            ValueError, KeyError, TypeError: the reply is no grant.
        """
        ...

    def undo(self, request: SlotRequest, holder: Holder) -> Request | None:
        """Take back whatever `holder` may have got; None where the protocol has no way.

        The holder's id must have been used for this one acquire only.
        """
        ...


class Leases:
    """Slots that expire unless their holder reports in."""

    name = "leases"
    expires = True

    def acquire(self, request: SlotRequest, holder: Holder) -> Request:
        """Ask for slots, for as long as `request.lease_seconds` and each renewal allow."""
        body = {
            **_wanted(request),
            "lease_duration": request.lease_seconds,
            "holder": {"type": holder.type, "id": str(holder.id)},
        }
        return Request("POST", f"{_V2}/increment-with-lease", body)

    def granted(self, reply: Reply, request: SlotRequest, holder: Holder) -> Granted:  # noqa: ARG002 - a lease has an id of its own
        """Read a lease."""
        lease = json.loads(reply.body)
        lease_id = UUID(str(lease["lease_id"]))
        return Granted(
            limits=_sizes(lease["limits"]),
            lease_id=lease_id,
            renewal=Request(
                "POST",
                f"{_V2}/leases/{lease_id}/renew",
                {"lease_duration": request.lease_seconds},
            ),
            release=Request("POST", f"{_V2}/decrement-with-lease", {"lease_id": str(lease_id)}),
        )

    def undo(self, request: SlotRequest, holder: Holder) -> Request | None:
        """Lead the way through the old tag calls: they find leases by their holder's id.

        Before 3.4.19 they find none. There, for tags that `limit convert` gave leases to, the
        server answers "done" and does nothing: a slot whose grant got lost is taken until its lease
        has expired. The bare counters would be no better: that lease would be counted down twice.
        """
        return TAG_CALLS.undo(request, holder)


class TagCalls:
    """Slots of tags that never expire: the holder's id alone gives them back."""

    name = "the old tag calls"
    expires = False

    def acquire(self, request: SlotRequest, holder: Holder) -> Request:
        """Ask for one slot of each tag."""
        return Request("POST", f"{_V1}/increment", self._body(request, holder))

    def granted(self, reply: Reply, request: SlotRequest, holder: Holder) -> Granted:
        """Read which of the tags have a limit."""
        sizes = _sizes(json.loads(reply.body))
        release = Request("POST", f"{_V1}/decrement", self._body(request, holder))
        return Granted({TAG_PREFIX + tag: size for tag, size in sizes.items()}, release=release)

    def undo(self, request: SlotRequest, holder: Holder) -> Request | None:
        """Give back whatever the holder's id has, on every tag."""
        if request.mode == "rate_limit" or len(request.tags) != len(request.names):
            return None
        return Request("POST", f"{_V1}/decrement", self._body(request, holder))

    @staticmethod
    def _body(request: SlotRequest, holder: Holder) -> dict[str, Any]:
        return {"names": request.tags, "task_run_id": str(holder.id)}


class Counters:
    """Slots that are only counted: nobody knows who has them."""

    name = "bare counters"
    expires = False

    def acquire(self, request: SlotRequest, holder: Holder) -> Request:  # noqa: ARG002 - see the class
        """Count up."""
        return Request("POST", f"{_V2}/increment", _wanted(request))

    def granted(self, reply: Reply, request: SlotRequest, holder: Holder) -> Granted:  # noqa: ARG002 - see the class
        """Read which of the limits exist; what a rate limit gives is used up, not given back."""
        limits = _sizes(json.loads(reply.body))
        if request.mode == "rate_limit":
            return Granted(limits)
        body = {"names": sorted(limits), "slots": request.slots}
        return Granted(limits, release=Request("POST", f"{_V2}/decrement", body), counted=True)

    def undo(self, request: SlotRequest, holder: Holder) -> Request | None:  # noqa: ARG002 - see the class
        """Find no way: counting down what was never counted up would admit one too many."""
        return None


LEASES: Final = Leases()
TAG_CALLS: Final = TagCalls()
COUNTERS: Final = Counters()


def read_acquire(dialect: Dialect, reply: Reply, request: SlotRequest, holder: Holder) -> Outcome:
    """Say what the reply to an acquire means."""
    if reply.status == _OK:
        try:
            grant = dialect.granted(reply, request, holder)
        except (ValueError, KeyError, TypeError):
            return Refused(Refusal.NOT_UNDERSTOOD, reply.status, reply.text)
        return grant if grant.limits else Unlimited()
    if reply.status == _LOCKED and (reply.retry_after is not None or dialect is not TAG_CALLS):
        return Full(reply.retry_after)
    if is_passing(reply.status):
        tried = reply.status not in {_TOO_MANY, _UNAVAILABLE}
        return Unknown(f"HTTP {reply.status}", reply.retry_after, may_have_acted=tried)
    return Refused(_why(reply), reply.status, reply.text)


def _sizes(limits: Any) -> dict[str, int]:
    """Read the limits of a grant; whatever is not plainly a list of them is none (see `wire`)."""
    # By hand: nothing else on the way to a slot needs pydantic, whose import took more than a third
    # of the first slot's time.
    if not isinstance(limits, list):
        raise TypeError(limits)
    sizes = {}
    for limit in limits:
        name, size = limit["name"], limit["limit"]
        if not isinstance(name, str) or type(size) is not int:
            raise TypeError(limit)
        sizes[name] = size
    return sizes


def _why(reply: Reply) -> Refusal:
    if reply.status in {401, 403}:
        return Refusal.UNAUTHORIZED
    if reply.status in {404, 405}:
        return Refusal.NO_SUCH_ENDPOINT
    if reply.status == _LOCKED:  # the old calls say "full" with a Retry-After, and 0 without
        return Refusal.ZERO_LIMIT
    if reply.status == _INVALID and b"greater than the limit" in reply.body:
        return Refusal.TOO_MANY_SLOTS
    if reply.status == _INVALID and b"slot decay" in reply.body:
        return Refusal.NOT_A_RATE_LIMIT
    return Refusal.NOT_UNDERSTOOD


def _wanted(request: SlotRequest) -> Mapping[str, Any]:
    return {"names": list(request.names), "slots": request.slots, "mode": request.mode}
