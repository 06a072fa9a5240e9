"""What happened to slots, as frozen objects for whoever wants to know.

Example:
    >>> from leasehold.concurrency import on_event
    >>> from leasehold.concurrency.events import Released
    >>> def measure(event):
    ...     if isinstance(event, Released):
    ...         print(event.who, event.held_seconds)
    >>> stop = on_event(measure)
    >>> stop()

Each event also goes to the logger ``leasehold.concurrency``, at level DEBUG. Hooks are called on
the keeper's thread, one after the other, and must be quick: while one runs, nothing is renewed.
What a hook raises is logged and changes nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

log = logging.getLogger("leasehold.concurrency")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to slots.

    Attributes:
        limits: the names of the limits.
        who: the work that waits for the slots or holds them, as messages call it.
        holder_id: whom the server lists as their holder; None as long as there is none.
    """

    limits: tuple[str, ...]
    who: str
    holder_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(Event):
    """All slots are taken, and the work has begun to wait.

    Attributes:
        ahead: how many wait before it in this process.
    """

    ahead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquired(Event):
    """The work has its slots.

    Attributes:
        waited_seconds: since it asked for them.
        round_trip_seconds: how long the server took to grant them; None when they were handed over
            by other work of this process.
    """

    waited_seconds: float
    round_trip_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed(Event):
    """The server confirmed that the slots are still held.

    Attributes:
        round_trip_seconds: how long it took to; 0 when the guard has done it.
    """

    round_trip_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost(Event):
    """The slots may belong to somebody else by now, and the work has not ended.

    Attributes:
        reason: why.
        renewed_seconds_ago: the age of the last renewal that the server confirmed.
    """

    reason: str
    renewed_seconds_ago: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Regained(Event):
    """The work has slots again, after it had lost them.

    Attributes:
        lost_seconds: how long it was without.
    """

    lost_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Released(Event):
    """The work has ended, and needs its slots no more.

    Attributes:
        held_seconds: since it got them.
    """

    held_seconds: float


_hooks: list[Callable[[Event], object]] = []


def on_event(hook: Callable[[Event], object]) -> Callable[[], None]:
    """Have `hook` called with each event of this process.

    Args:
        hook: called on the keeper's thread; it must be quick.

    Returns:
        A function that ends it.
    """
    _hooks.append(hook)

    def stop() -> None:
        if hook in _hooks:
            _hooks.remove(hook)

    return stop


def emit(kind: Callable[[], Event]) -> None:
    """Tell the log and the hooks; where nobody listens the event is not even made."""
    if not _hooks and not log.isEnabledFor(logging.DEBUG):
        return
    event = kind()
    log.debug("%s", event)
    for hook in tuple(_hooks):
        _call(hook, event)


def _call(hook: Callable[[Event], object], event: Event) -> None:
    try:
        hook(event)
    except Exception:
        log.exception("A hook for events of slots failed; the slots are not affected.")
