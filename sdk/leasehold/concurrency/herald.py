"""Saying why work waits, and why it cannot have what it asks for.

A waiting run that says nothing looks hung (USERS.md, row 5). So the first wait for a limit is told
within a second: the tag, how much of it is used, and who holds it, where the server knows. The
line comes again only for work that has itself waited for another minute.
"""

from __future__ import annotations

import logging
import math
import shlex
from typing import TYPE_CHECKING, Final, TypeVar

from leasehold.client.server import refused as refused_with
from leasehold.client.wire import Refusal
from leasehold.concurrency import lines
from leasehold.exceptions import (
    ConcurrencySlotAcquisitionError,
    LeaseholdError,
    NotARateLimitError,
    SlotsOverLimitError,
    UnexpectedReplyError,
    ZeroLimitError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from leasehold.client.wire import Refused, SlotRequest
    from leasehold.concurrency.connection import Connection
    from leasehold.concurrency.turnstile import Queue, Turnstile

T = TypeVar("T")

log = logging.getLogger("leasehold.concurrency")

#: A wait shorter than this is not worth a line; the line must come within 1 s.
DELAY_SECONDS: Final = 0.3

#: The pause between two lines about the same limits.
REPEAT_SECONDS: Final = 60.0

#: More holders than this are counted, not named.
_MOST_NAMED: Final = 5


class Herald:
    """Remembers which waits were told."""

    def __init__(self) -> None:
        self._told_at: dict[SlotRequest, float] = {}

    def due(self, waiting: Iterable[Queue[T]], now: float) -> tuple[list[Queue[T]], float]:
        """Choose the queues whose wait is to be told now, and say when to look again."""
        due, look_again = [], math.inf
        told_before, self._told_at = self._told_at, {}
        for queue in waiting:
            assert queue.head is not None
            waits_since = queue.head.joined_at
            told_at = told_before.get(queue.request)
            tell_at = (
                waits_since + DELAY_SECONDS
                if told_at is None
                else max(told_at, waits_since) + REPEAT_SECONDS
            )
            if now >= tell_at:
                due.append(queue)
                told_at, tell_at = now, now + REPEAT_SECONDS
            if told_at is not None:
                self._told_at[queue.request] = told_at
            look_again = min(look_again, tell_at)
        return due, look_again

    async def announce(
        self,
        queue: Queue[T],
        turnstile: Turnstile[T],
        connection: Connection,
        names_of_holders: Callable[[], Mapping[str, str]],
    ) -> None:
        """Log one line about a wait."""
        parts = []
        for name in queue.request.names:
            look = await connection.look_at(name)
            if look is None or look.size is None:
                continue
            if look.used:
                line = f"{look.used}/{look.size} in use"
            else:
                line = f"{turnstile.held(name)}/{look.size} in use by this process"
            line += _held_by(look.holders, names_of_holders())
            parts.append(line if len(queue.request.names) == 1 else f"{name}: {line}")
        count = len(queue.waiters) + lines.length(queue.request)
        if count:
            what = "1 task waits" if count == 1 else f"{count} tasks wait"
            log.info("%s for %s (%s).", what, queue.request.label, "; ".join(parts) or "full")


def _held_by(holders: Sequence[str], own: Mapping[str, str]) -> str:
    if not holders:
        return ""
    named = [own.get(holder, holder) for holder in holders[:_MOST_NAMED]]
    more = f" and {len(holders) - _MOST_NAMED} more" if len(holders) > _MOST_NAMED else ""
    return f", held by {', '.join(named)}{more}"


def warn_of_lost_reply(request: SlotRequest, *, expires: bool) -> None:
    """Say what becomes of slots that may have been granted in a reply that got lost."""
    if expires:
        free = f"is free again in {request.lease_seconds:.0f} s, when that lease has expired"
    else:
        free = "stays taken until somebody gives it back: see `leasehold doctor`"
    log.warning(
        "The reply to a question for %s got lost. If it was a grant, its slot %s.",
        request.label,
        free,
    )


async def explain(refused: Refused, request: SlotRequest, connection: Connection) -> LeaseholdError:
    """Turn a refusal into the error that says what to do."""
    address = connection.address
    label = request.label
    if refused.why is Refusal.UNAUTHORIZED:
        return refused_with(address, refused.status)
    if refused.why is Refusal.NOT_A_RATE_LIMIT:
        return NotARateLimitError(
            f"rate_limit() needs limits whose slots decay, and {label} has none that does. Give "
            f"it one: leasehold gcl update NAME --slot-decay-per-second 1.0",
            names=request.names,
        )
    if refused.why in {Refusal.TOO_MANY_SLOTS, Refusal.ZERO_LIMIT}:
        return await _explain_size(request, connection)
    return UnexpectedReplyError(
        f"The server at {address} answered HTTP {refused.status} to a request for {label}: "
        f"{refused.detail or 'no text'}. Is it a Prefect server?",
        address=address,
        status=refused.status,
    )


async def _explain_size(request: SlotRequest, connection: Connection) -> LeaseholdError:
    for name in request.names:
        look = await connection.look_at(name)
        size = None if look is None else look.size
        what = _what(name)
        if size == 0:
            return ZeroLimitError(
                f"The limit of {what} is 0: nothing may run under it. Raise it, or delete it if "
                f"there should be no limit: {_command(name)}",
                names=request.names,
            )
        if size is not None and size < request.slots:
            return SlotsOverLimitError(
                f"{request.slots} slots of {what} were asked for, but its limit is {size}: they "
                "could never be had. Raise the limit, or occupy fewer.",
                names=request.names,
                occupy=request.slots,
                limit=size,
            )
    return ConcurrencySlotAcquisitionError(
        f"More slots of {request.label} were asked for than there are.", names=request.names
    )


def _what(name: str) -> str:
    tag = name.removeprefix("tag:")
    return f"tag {tag!r}" if tag != name else f"{name!r}"


def _command(name: str) -> str:
    tag = name.removeprefix("tag:")
    if tag != name:
        return f"leasehold limit create {shlex.quote(tag)} N"
    return f"leasehold gcl update {shlex.quote(name)} --limit N"
