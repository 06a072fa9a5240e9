"""Bodies of requests, and what replies mean. Pure: no I/O, no clock.

Rules, from PROTOCOL.md:

- an acquire has five outcomes: `Granted`, `Full`, `Unlimited`, `Refused`, `Unknown`;
- a renewal and a release have three: done, gone, unknown;
- *unknown* is everything that may or may not have been carried out (time-outs, 429, 5xx): it is
  never read as a loss, and never as a grant;
- what cannot be understood is refused, never taken for "there is no limit".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID  # noqa: TC003 - pydantic reads the annotations

from pydantic import BaseModel, TypeAdapter, ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

Mode = Literal["concurrency", "rate_limit"]


#: Bounds of a lease's duration, in seconds (PROTOCOL.md, "Lease path").
SHORTEST_LEASE_SECONDS: Final = 60.0
LONGEST_LEASE_SECONDS: Final = 86_400.0

_OK, _NO_CONTENT, _LOCKED, _INVALID = 200, 204, 423, 422
_NOT_FOUND, _GONE, _TOO_MANY, _SERVER_ERROR = 404, 410, 429, 500


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP reply, without the HTTP library."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after(self) -> float | None:
        """The Retry-After header in seconds, where it is there and a number of seconds."""
        try:
            seconds = float(self.headers["retry-after"])
        except (KeyError, ValueError):
            return None
        return seconds if 0 <= seconds < float("inf") else None

    @property
    def text(self) -> str:
        """The start of the body, for messages."""
        return self.body[:200].decode("utf-8", "replace").strip()


@dataclass(frozen=True, slots=True)
class Request:
    """A method, a path below the API's address, and a body."""

    method: str
    path: str
    body: Any = None


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """What is wanted: `slots` slots on every limit in `names`, all or none.

    Requests that are equal can be served by the same lease, so this is also the key of a queue.

    Attributes:
        names: the limits, sorted, each once.
        slots: how many on each.
        mode: "concurrency" is held and given back; "rate_limit" is used up and decays.
        lease_seconds: how long the server keeps a lease that nobody renews.
    """

    names: tuple[str, ...]
    slots: int = 1
    mode: Mode = "concurrency"
    lease_seconds: float = SHORTEST_LEASE_SECONDS

    @property
    def label(self) -> str:
        """What messages call these limits: a task's author knows tags, not `tag:` names."""
        return describe(self.names)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who the server lists as the holder of a lease."""

    id: UUID
    type: str = "task_run"


@dataclass(frozen=True, slots=True)
class Granted:
    """The slots are ours.

    Attributes:
        lease_id: None where the grant is not held by a lease (rate limits).
        limits: size by name, of the limits that exist.
    """

    lease_id: UUID | None
    limits: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Full:
    """All slots are taken; `retry_after` is the server's advice in seconds."""

    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Unlimited:
    """None of the names has a limit; nothing is held."""


class Refusal(enum.Enum):
    """Why an acquire was refused for good."""

    TOO_MANY_SLOTS = "more slots were asked for than the limit has"
    NOT_A_RATE_LIMIT = "the limit has no slot decay"
    UNAUTHORIZED = "the server refuses the credentials"
    NO_SUCH_ENDPOINT = "the server has no such endpoint"
    NOT_UNDERSTOOD = "the server's answer is not understood"


@dataclass(frozen=True, slots=True)
class Refused:
    """The same request would be refused again."""

    why: Refusal
    status: int
    detail: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have been carried out, or not.

    Attributes:
        reason: for messages.
        busy: the server said itself that it is too busy (429, 503).
        retry_after: its advice in seconds, if it gave one.
    """

    reason: str
    busy: bool = False
    retry_after: float | None = None


Outcome = Granted | Full | Unlimited | Refused | Unknown


class Fate(enum.Enum):
    """What became of a renewal or a release."""

    DONE = "done"
    GONE = "gone"
    UNKNOWN = "unknown"


class _LimitReply(BaseModel):
    name: str
    limit: int


class _LeaseReply(BaseModel):
    lease_id: UUID
    limits: list[_LimitReply]


_LIMITS = TypeAdapter(list[_LimitReply])


def describe(names: tuple[str, ...]) -> str:
    """Name limits as their authors do: ``tag 'database'``, ``limit 'api'``."""
    tags = [repr(name.removeprefix("tag:")) for name in names if name.startswith("tag:")]
    plain = [repr(name) for name in names if not name.startswith("tag:")]
    parts = []
    if tags:
        parts.append(("tag " if len(tags) == 1 else "tags ") + ", ".join(tags))
    if plain:
        parts.append(("limit " if len(plain) == 1 else "limits ") + ", ".join(plain))
    return " and ".join(parts)


def acquire(request: SlotRequest, holder: Holder) -> Request:
    """Ask for slots."""
    body: dict[str, Any] = {
        "names": list(request.names),
        "slots": request.slots,
        "mode": request.mode,
    }
    if request.mode == "rate_limit":
        return Request("POST", "/v2/concurrency_limits/increment", body)
    body["lease_duration"] = request.lease_seconds
    body["holder"] = {"type": holder.type, "id": str(holder.id)}
    return Request("POST", "/v2/concurrency_limits/increment-with-lease", body)


def renew(lease_id: UUID, lease_seconds: float) -> Request:
    """Report in."""
    path = f"/v2/concurrency_limits/leases/{lease_id}/renew"
    return Request("POST", path, {"lease_duration": lease_seconds})


def release(lease_id: UUID) -> Request:
    """Give slots back."""
    path = "/v2/concurrency_limits/decrement-with-lease"
    return Request("POST", path, {"lease_id": str(lease_id)})


def undo(request: SlotRequest, holder: Holder) -> Request | None:
    """Take back whatever `holder` may have got; None where the protocol has no way.

    The way leads through the old tag calls, so every name must be a tag's, and the holder's id
    must have been used for this one acquire only.
    """
    if request.mode == "rate_limit" or not all(name.startswith("tag:") for name in request.names):
        return None
    tags = [name.removeprefix("tag:") for name in request.names]
    body = {"names": tags, "task_run_id": str(holder.id)}
    return Request("POST", "/concurrency_limits/decrement", body)


def read_acquire(reply: Reply, request: SlotRequest) -> Outcome:
    """Say what the reply to an acquire means."""
    if reply.status == _OK:
        return _read_grant(reply, request)
    if reply.status == _LOCKED:
        return Full(reply.retry_after)
    if is_passing(reply.status):
        return Unknown(f"HTTP {reply.status}", busy=True, retry_after=reply.retry_after)
    return _read_refusal(reply)


def is_passing(status: int) -> bool:
    """Say whether asking again later may give another answer."""
    return status == _TOO_MANY or status >= _SERVER_ERROR


def _read_grant(reply: Reply, request: SlotRequest) -> Outcome:
    try:
        if request.mode == "rate_limit":
            lease_id, limits = None, _LIMITS.validate_json(reply.body)
        else:
            grant = _LeaseReply.model_validate_json(reply.body)
            lease_id, limits = grant.lease_id, grant.limits
    except ValidationError:
        return Refused(Refusal.NOT_UNDERSTOOD, reply.status, reply.text)
    if not limits:
        return Unlimited()
    return Granted(lease_id, {limit.name: limit.limit for limit in limits})


def _read_refusal(reply: Reply) -> Refused:
    if reply.status in {401, 403}:
        why = Refusal.UNAUTHORIZED
    elif reply.status in {_NOT_FOUND, 405}:
        why = Refusal.NO_SUCH_ENDPOINT
    elif reply.status == _INVALID and b"greater than the limit" in reply.body:
        why = Refusal.TOO_MANY_SLOTS
    elif reply.status == _INVALID and b"slot decay" in reply.body:
        why = Refusal.NOT_A_RATE_LIMIT
    else:
        why = Refusal.NOT_UNDERSTOOD
    return Refused(why, reply.status, reply.text)


def read_renew(reply: Reply) -> Fate:
    """Say what the reply to a renewal means."""
    if reply.status in {_NOT_FOUND, _GONE}:
        return Fate.GONE
    return Fate.DONE if reply.status == _NO_CONTENT else Fate.UNKNOWN


def read_release(reply: Reply) -> Fate:
    """Say what the reply to a release or an undo means."""
    if reply.status in {_NOT_FOUND, _GONE}:
        return Fate.GONE
    return Fate.DONE if reply.status in {_OK, _NO_CONTENT} else Fate.UNKNOWN
