"""Giving slots back: releases and undone acquires, until they are answered.

Runs on the keeper's loop. Rules (LEASES.md): nothing is released twice on purpose, and no renewal
follows a release (7); a failure concerns nobody but this file: it is tried again, for long.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from leasehold.client import wire
from leasehold.client.server import RESTART_SECONDS
from leasehold.client.wire import Fate
from leasehold.concurrency.healing import heal
from leasehold.concurrency.lane import RELEASE
from leasehold.exceptions import LeaseholdError, ServerUnreachableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from leasehold.concurrency.connection import Connection
    from leasehold.concurrency.lease import Lease

log = logging.getLogger("leasehold.concurrency")

#: A release that fails is tried again after this long, doubled each time, up to the longest.
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0


@dataclass(eq=False, slots=True)
class _WayBack:
    """How far a lease is on its way back.

    Attributes:
        confirmed_at: clock when a request was sent after which the server knew the lease.
        certain: whether no release of it can have been carried out yet.
    """

    lease: Lease
    confirmed_at: float
    certain: bool = True


class Returner:
    """Sends what gives slots back.

    Args:
        connection: how to reach the server.
        clock: see `lease.read_clock`.
        jitter: gives a number from 0 to 1.
    """

    def __init__(
        self, connection: Connection, *, clock: Callable[[], float], jitter: Callable[[], float]
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._jitter = jitter

    async def give_back(self, lease: Lease) -> None:
        """Release a lease, and try again until the server has answered (rule 7).

        A server that was restarted says "done" to the release of a slot that it has forgotten, and
        goes on counting it. So where nothing was heard of it for a while, it is asked for first:
        the renewal of a lease tells, and for slots that do not expire, the list of holders.
        """
        way = _WayBack(lease, lease.term.sent_at)
        until = lease.term.sent_at + lease.term.seconds
        patience = self._clock() + self._connection.outage_seconds
        await self._insist(
            lambda: self._try_to_release(way), max(until, patience), lease.request.label
        )

    async def take_back(self, undo: wire.Request, until: float, label: str) -> None:
        """Undo an acquire, and try again until that is answered or `until` has come."""

        async def attempt() -> str | None:
            return await self._released(undo)

        await self._insist(attempt, until, label)

    async def _insist(
        self, attempt: Callable[[], Awaitable[str | None]], until: float, label: str
    ) -> None:
        """Call `attempt` until it gives no reason to call it again."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                reason = await attempt()
            except LeaseholdError as error:
                reason = str(error)
            except Exception as error:  # a fault of ours must not end it
                log.exception("Giving back a slot of %s failed in an unforeseen way.", label)
                reason = repr(error)
            if reason is None:
                return
            if self._clock() + pause >= until:
                log.warning(
                    "The slot of %s could not be given back (%s). If it is held by a lease, it is "
                    "free again when that has expired.",
                    label,
                    reason,
                )
                return
            await asyncio.sleep(pause * (1 - 0.3 * self._jitter()))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _try_to_release(self, way: _WayBack) -> str | None:
        lease, release = way.lease, way.lease.grant.release
        assert release is not None
        # What is only counted cannot be forgotten: servers keep their counters.
        doubtful = not lease.grant.counted and (self._clock() - way.confirmed_at > RESTART_SECONDS)
        forgotten = False
        # A lease at its end is not revived, and once a release may have been carried out no renewal
        # follows it (rule 7).
        if doubtful and way.certain and lease.term.remaining(self._clock()):
            fate = await self._ask_whether_known(way)
            doubtful, forgotten = fate is Fate.UNKNOWN, fate is Fate.GONE
        if forgotten and lease.grant.renewal is not None:
            await heal(lease, self._connection)
            return None
        certain, way.certain = way.certain, False
        try:
            reason = await self._released(release)
        except ServerUnreachableError as error:
            way.certain = certain and not error.delivered
            raise
        if reason is None and (forgotten or doubtful or not certain):
            await heal(lease, self._connection, sure=forgotten)
        return reason

    async def _ask_whether_known(self, way: _WayBack) -> Fate:
        sent_at = self._clock()
        fate = await (self._renew(way.lease) if way.lease.grant.renewal else self._look(way.lease))
        if fate is Fate.DONE:
            way.confirmed_at = sent_at
        return fate

    async def _renew(self, lease: Lease) -> Fate:
        assert lease.grant.renewal is not None
        seconds = lease.term.request_seconds(self._clock(), self._connection.request_seconds)
        try:
            return wire.read_renew(await self._connection.send(lease.grant.renewal, seconds))
        except LeaseholdError:
            return Fate.UNKNOWN

    async def _look(self, lease: Lease) -> Fate:
        """Look for the holder of slots that do not expire; gone where one of the limits misses it.

        Others may still list it, so such slots are released all the same.
        """
        looks = [await self._connection.look_at(name) for name in lease.limits]
        if any(one and one.is_listed and str(lease.holder_id) not in one.holders for one in looks):
            return Fate.GONE
        return Fate.UNKNOWN if None in looks else Fate.DONE

    async def _released(self, release: wire.Request) -> str | None:
        """Send a release; gives the reason to send it again, None when it was answered."""
        async with self._connection.lane.turn(RELEASE):
            reply = await self._connection.send(release)
        return None if wire.read_release(reply) is not Fate.UNKNOWN else f"HTTP {reply.status}"
