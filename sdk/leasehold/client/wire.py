"""Requests, replies, and what a reply can mean. Pure: no I/O, no clock.

Rules, from PROTOCOL.md:

- an acquire has five outcomes: `Granted`, `Full`, `Unlimited`, `Refused`, `Unknown`;
- a renewal and a release have three: done, gone, unknown;
- *unknown* is everything that may or may not have been carried out (time-outs, 429, 5xx): it is
  never read as a loss, and never as a grant;
- what cannot be understood is refused, never taken for "there is no limit".

How slots are asked for depends on the server: see `dialect`.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from leasehold.client.names import TAG_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

Mode = Literal["concurrency", "rate_limit"]


#: Bounds of a lease's duration, in seconds (PROTOCOL.md, "Lease path").
SHORTEST_LEASE_SECONDS: Final = 60.0
LONGEST_LEASE_SECONDS: Final = 86_400.0

_OK, _NO_CONTENT = 200, 204
_NOT_FOUND, _GONE, _TOO_MANY, _SERVER_ERROR = 404, 410, 429, 500


class Reply(NamedTuple):
    """An HTTP reply, without the HTTP library.

    Attributes:
        status: the status code.
        headers: by name; names in any case.
        body: as it came.
        repeated: whether an earlier try of the same request may have been carried out.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    repeated: bool = False

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


class Request(NamedTuple):
    """A method, a path below the API's address, and a body."""

    method: str
    path: str
    body: Any = None


class SlotRequest(NamedTuple):
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
    def tags(self) -> list[str]:
        """The tags whose limits are wanted."""
        return [name.removeprefix(TAG_PREFIX) for name in self.names if name.startswith(TAG_PREFIX)]

    @property
    def label(self) -> str:
        """What messages call these limits: a task's author knows tags, not `tag:` names."""
        return describe(self.names)


class Holder(NamedTuple):
    """Who the server lists as the holder of a lease."""

    id: UUID
    type: str = "task_run"


class Granted(NamedTuple):
    """The slots are ours.

    A grant carries the requests that keep it and give it back. So slots are returned on the path on
    which they were taken, whatever becomes of the server in between.

    Attributes:
        limits: size by name, of the limits that exist.
        lease_id: the server's name for it; None where it has none.
        renewal: reports in; None where the slots do not expire.
        release: gives the slots back; None where they are used up instead (rate limits).
        counted: whether a second release would take from others: it counts down, whoever held.
    """

    limits: Mapping[str, int]
    lease_id: UUID | None = None
    renewal: Request | None = None
    release: Request | None = None
    counted: bool = False


class Full(NamedTuple):
    """All slots are taken; `retry_after` is the server's advice in seconds."""

    retry_after: float | None


class Unlimited(NamedTuple):
    """None of the names has a limit; nothing is held."""


class Refusal(enum.Enum):
    """Why an acquire was refused for good."""

    TOO_MANY_SLOTS = "more slots were asked for than the limit has"
    ZERO_LIMIT = "a limit of 0 admits nothing"
    NOT_A_RATE_LIMIT = "the limit has no slot decay"
    UNAUTHORIZED = "the server refuses the credentials"
    NO_SUCH_ENDPOINT = "the server has no such endpoint"
    NOT_UNDERSTOOD = "the server's answer is not understood"


class Refused(NamedTuple):
    """The same request would be refused again."""

    why: Refusal
    status: int
    detail: str


class Unknown(NamedTuple):
    """It may have been carried out, or not.

    Attributes:
        reason: for messages.
        retry_after: the server's advice in seconds, if it gave one.
        may_have_acted: False when the server said that it did not even try (429, 503).
    """

    reason: str
    retry_after: float | None = None
    may_have_acted: bool = True


Outcome = Granted | Full | Unlimited | Refused | Unknown


class Fate(enum.Enum):
    """What became of a renewal or a release."""

    DONE = "done"
    GONE = "gone"
    UNKNOWN = "unknown"


def describe(names: tuple[str, ...]) -> str:
    """Name limits as their authors do: ``tag 'database'``, ``limit 'api'``."""
    tags = [repr(name.removeprefix(TAG_PREFIX)) for name in names if name.startswith(TAG_PREFIX)]
    plain = [repr(name) for name in names if not name.startswith(TAG_PREFIX)]
    parts = []
    if tags:
        parts.append(("tag " if len(tags) == 1 else "tags ") + ", ".join(tags))
    if plain:
        parts.append(("limit " if len(plain) == 1 else "limits ") + ", ".join(plain))
    return " and ".join(parts)


def is_passing(status: int) -> bool:
    """Say whether asking again later may give another answer."""
    return status == _TOO_MANY or status >= _SERVER_ERROR


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
