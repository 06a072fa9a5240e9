"""Keeping leases alive, and noticing their loss. Runs on the keeper's loop.

Rules (LEASES.md): every lease is tended on its own, so that one hanging request harms no other
(6); a loss is declared by our own clock at the deadline, not by a reply (2); the end of the work
stops renewals and waits for the one under way (7); unclear answers are tried again for as long as
the lease can live (5).

At the deadline whoever may know better is heard: after a standstill of this process the guard may
have renewed the lease, and the embedded ledger has kept it, because it sees that we live.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from leasehold.client import wire
from leasehold.client.wire import Fate
from leasehold.exceptions import LeaseholdError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from leasehold.concurrency.connection import Connection
    from leasehold.concurrency.lease import Lease

log = logging.getLogger("leasehold.concurrency")

#: As long as leases are held, how often to see whether the machine was suspended.
_TICK_SECONDS: Final = 5.0
_SKEW_SECONDS: Final = 1.0


@dataclass(eq=False, slots=True)
class _Care:
    """What it takes to keep one lease."""

    lease: Lease
    renew_at: float = 0.0
    is_last: bool = False
    failures: int = 0
    renewal: asyncio.Task[None] | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def stop(self) -> None:
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()


class Tender:
    """All leases that this process holds.

    Args:
        connection: how to reach the server.
        clock: see `lease.read_clock`.
        jitter: gives a number from 0 to 1.
        on_renewed: told of each renewal, and its round trip in seconds.
        on_lost: told once for each lost lease, and whether the server does not know it any more.
        before_loss: called when the time of a lease is up, to hear of renewals made elsewhere.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        on_renewed: Callable[[Lease, float], None],
        on_lost: Callable[[Lease, bool], None],
        before_loss: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._jitter = jitter
        self._on_renewed = on_renewed
        self._on_lost = on_lost
        self._before_loss = before_loss
        self._cares: dict[Lease, _Care] = {}
        self._skew = 0.0
        self._tick: asyncio.TimerHandle | None = None

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self._cares))

    def __contains__(self, lease: Lease) -> bool:
        return lease in self._cares

    def watch(self, lease: Lease) -> None:
        """Keep a lease from now on."""
        care = self._cares[lease] = _Care(lease)
        if lease.grant.renewal is not None:
            self._plan(care, lease.term.renew_at(2 * self._jitter() - 1))
            if self._tick is None:
                self._skew = self._read_skew()
                self._look_at_clocks()

    def renewed_elsewhere(self, lease: Lease, sent_at: float) -> None:
        """Take in that somebody else, who saw this process stand still, has renewed a lease."""
        care = self._cares.get(lease)
        if care is not None:
            lease.renewed(sent_at)
            self._on_renewed(lease, 0.0)
            self._plan(care, lease.term.renew_at(2 * self._jitter() - 1))

    async def renew_now(self) -> None:
        """Renew all leases, due or not; a renewal under way may have been answered too early."""
        await asyncio.gather(*(self._renew_now(care) for care in list(self._cares.values())))

    async def let_go(self, lease: Lease) -> bool:
        """Stop renewing; wait for a renewal under way. False when it was let go before."""
        care = self._cares.pop(lease, None)
        if care is None:
            return False
        care.stop()
        if care.renewal is not None:
            await asyncio.wait([care.renewal])
        return True

    def _read_skew(self) -> float:
        return self._clock() - asyncio.get_running_loop().time()

    def _look_at_clocks(self) -> None:
        """Plan anew after the machine was suspended: the loop's timers stood still meanwhile."""
        self._tick = None
        skew = self._read_skew()
        if abs(skew - self._skew) > _SKEW_SECONDS:
            for care in list(self._cares.values()):
                if care.timers:
                    self._plan(care, care.renew_at)
        self._skew = skew
        if self._cares:
            loop = asyncio.get_running_loop()
            self._tick = loop.call_later(_TICK_SECONDS, self._look_at_clocks)

    def _plan(self, care: _Care, renew_at: float) -> None:
        care.stop()
        care.renew_at = renew_at
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

    async def _renew_now(self, care: _Care) -> None:
        under_way = care.renewal
        if under_way is not None:
            await asyncio.wait([under_way])
        if care.lease.grant.renewal is not None:
            self._start(care)
        if care.renewal is not None:
            await asyncio.wait([care.renewal])

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
            care.failures, care.is_last = 0, False
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
        if self._clock() < care.lease.term.deadline:
            self._plan(care, care.lease.term.deadline)  # the timer's clock ran ahead of ours
            return
        # After a standstill timers may run before what was heard meanwhile is read.
        self._before_loss()
        if self._clock() < care.lease.term.deadline:
            return  # planned anew
        if care.lease.seen and not care.is_last:
            # The renewal under way, if there is one, plans anew when it ends; then comes the last.
            care.is_last = care.renewal is None
            self._start(care)
            return
        why = f" ({care.lease.last_error})" if care.lease.last_error else ""
        self._lose(care, f"no renewal was confirmed in time{why}")

    def _lose(self, care: _Care, reason: str, *, gone: bool = False) -> None:
        care.stop()
        if care.lease.declare_lost(reason):
            del self._cares[care.lease]
            self._on_lost(care.lease, gone)
        # Otherwise its work has just ended: the release is on its way, and will let it go.
