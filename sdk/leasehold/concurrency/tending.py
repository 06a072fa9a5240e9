"""Keeping leases alive, noticing their loss, giving them back. Runs on the keeper's loop.

Rules (LEASES.md): every lease is tended on its own, so that one hanging request harms no other
(6); a loss is declared by our own clock at the deadline, not by a reply (2); the end of the work
stops renewals, waits for the one under way, and only then releases, once (7); unclear answers are
tried again for as long as the lease can live (5).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from leasehold.client import wire
from leasehold.client.wire import Fate
from leasehold.concurrency.healing import heal
from leasehold.concurrency.lane import RELEASE
from leasehold.exceptions import LeaseholdError, ServerUnreachableError
from leasehold.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from leasehold.concurrency.connection import Connection
    from leasehold.concurrency.lease import Lease

log = get_logger("concurrency")

#: A release that fails is tried again after this long, doubled each time, up to the longest.
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0

#: A server needs longer than this to restart: what it confirmed so recently it has not forgotten.
_CONFIRMED_SECONDS: Final = 5.0


@dataclass(eq=False, slots=True)
class _Care:
    """What it takes to keep one lease."""

    lease: Lease
    failures: int = 0
    renewal: asyncio.Task[None] | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def stop(self) -> None:
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()


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


class Tender:
    """All leases that this process holds.

    Args:
        connection: how to reach the server.
        clock: see `lease.read_clock`.
        jitter: gives a number from 0 to 1.
        on_renewed: told of each renewal, and its round trip in seconds.
        on_lost: told once for each lost lease, and whether the server does not know it any more.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        on_renewed: Callable[[Lease, float], None],
        on_lost: Callable[[Lease, bool], None],
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._jitter = jitter
        self._on_renewed = on_renewed
        self._on_lost = on_lost
        self._cares: dict[Lease, _Care] = {}

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self._cares))

    def __contains__(self, lease: Lease) -> bool:
        return lease in self._cares

    def watch(self, lease: Lease) -> None:
        """Keep a lease from now on."""
        care = self._cares[lease] = _Care(lease)
        if lease.grant.renewal is not None:
            self._plan(care, lease.term.renew_at(2 * self._jitter() - 1))

    def renewed_elsewhere(self, lease: Lease, sent_at: float) -> None:
        """Take in that somebody else, who saw this process stand still, has renewed a lease."""
        care = self._cares.get(lease)
        if care is not None:
            lease.renewed(sent_at)
            self._on_renewed(lease, 0.0)
            self._plan(care, lease.term.renew_at(2 * self._jitter() - 1))

    async def let_go(self, lease: Lease) -> bool:
        """Stop renewing; wait for a renewal under way. False when it was let go before."""
        care = self._cares.pop(lease, None)
        if care is None:
            return False
        care.stop()
        if care.renewal is not None:
            await asyncio.wait([care.renewal])
        return True

    async def give_back(self, lease: Lease) -> None:
        """Release a lease, and try again until the server has answered (rule 7).

        A server that was restarted says "done" to the release of a lease that it has forgotten, and
        goes on counting its slots. So a lease of which nothing was heard for a while is renewed
        first: that tells.
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
        doubtful = lease.grant.renewal is not None and (
            self._clock() - way.confirmed_at > _CONFIRMED_SECONDS
        )
        # A lease at its end is not revived, and once a release may have been carried out no renewal
        # follows it (rule 7).
        if doubtful and way.certain and lease.term.remaining(self._clock()):
            fate = await self._ask_whether_known(way)
            if fate is Fate.GONE:
                await heal(lease, self._connection)
                return None
            doubtful = fate is Fate.UNKNOWN
        certain, way.certain = way.certain, False
        try:
            reason = await self._released(release)
        except ServerUnreachableError as error:
            way.certain = certain and not error.delivered
            raise
        if reason is None and (doubtful or not certain):
            await heal(lease, self._connection, sure=False)
        return reason

    async def _ask_whether_known(self, way: _WayBack) -> Fate:
        term, sent_at = way.lease.term, self._clock()
        assert way.lease.grant.renewal is not None
        seconds = term.request_seconds(sent_at, self._connection.request_seconds)
        try:
            fate = wire.read_renew(await self._connection.send(way.lease.grant.renewal, seconds))
        except LeaseholdError:
            return Fate.UNKNOWN
        if fate is Fate.DONE:
            way.confirmed_at = sent_at
        return fate

    async def _released(self, release: wire.Request) -> str | None:
        """Send a release; gives the reason to send it again, None when it was answered."""
        async with self._connection.lane.turn(RELEASE):
            reply = await self._connection.send(release)
        return None if wire.read_release(reply) is not Fate.UNKNOWN else f"HTTP {reply.status}"

    def _plan(self, care: _Care, renew_at: float) -> None:
        care.stop()
        now = self._clock()
        loop = asyncio.get_running_loop()
        deadline = care.lease.term.deadline
        care.timers.append(loop.call_later(max(deadline - now, 0), self._lose_if_due, care))
        if renew_at < deadline:
            care.timers.append(loop.call_later(max(renew_at - now, 0), self._start, care))

    def _start(self, care: _Care) -> None:
        kept = self._cares.get(care.lease) is care and not care.lease.lost
        if kept and care.renewal is None:
            care.renewal = asyncio.get_running_loop().create_task(self._renew(care))

    async def _renew(self, care: _Care) -> None:
        lease, sent_at = care.lease, self._clock()
        request = lease.grant.renewal
        assert request is not None
        seconds = lease.term.request_seconds(sent_at, self._connection.request_seconds)
        try:
            reply = await self._connection.send(request, seconds)
            fate, reason = wire.read_renew(reply), f"HTTP {reply.status}"
        except LeaseholdError as error:
            fate, reason = Fate.UNKNOWN, str(error)
        except Exception as error:  # a fault of ours must not end the lease's care (rule 6)
            log.exception("A renewal of %s failed in an unforeseen way.", lease.request.label)
            fate, reason = Fate.UNKNOWN, repr(error)
        finally:
            care.renewal = None
        if self._cares.get(lease) is not care:  # let go, or lost, and perhaps regained
            if fate is Fate.DONE and lease not in self._cares:
                lease.renewed(sent_at)
            return
        if fate is Fate.GONE:
            self._lose(care, "the server does not know its lease any more", gone=True)
        elif fate is Fate.DONE:
            care.failures = 0
            lease.renewed(sent_at)
            self._on_renewed(lease, self._clock() - sent_at)
            self._plan(care, lease.term.renew_at(2 * self._jitter() - 1))
        else:
            care.failures += 1
            lease.last_error = reason
            self._plan(care, lease.term.retry_at(self._clock(), care.failures))

    def _lose_if_due(self, care: _Care) -> None:
        if self._cares.get(care.lease) is not care:
            return
        if self._clock() >= care.lease.term.deadline:
            why = f" ({care.lease.last_error})" if care.lease.last_error else ""
            self._lose(care, f"no renewal was confirmed in time{why}")
        else:
            self._plan(care, care.lease.term.deadline)  # the timer's clock ran ahead of ours

    def _lose(self, care: _Care, reason: str, *, gone: bool = False) -> None:
        care.stop()
        if care.lease.declare_lost(reason):
            del self._cares[care.lease]
            self._on_lost(care.lease, gone)
        # Otherwise its work has just ended: the release is on its way, and will let it go.
