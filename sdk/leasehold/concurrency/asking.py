"""Asking a server for slots, and what comes of each answer. Runs on the keeper's loop.

Rules (LEASES.md, 8): an acquire leaks nothing. Each has a holder's id of its own, by which what it
may have got is taken back when its reply got lost: before anything is asked for again.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

from leasehold.client import holders
from leasehold.client.dialect import read_acquire
from leasehold.client.wire import Full, Granted, Holder, Refused, Unknown, Unlimited
from leasehold.concurrency import herald
from leasehold.concurrency.lane import ACQUIRE
from leasehold.concurrency.lease import Lease
from leasehold.exceptions import LeaseholdError, ServerUnreachableError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine
    from uuid import UUID

    from leasehold.client.dialect import Dialect
    from leasehold.client.wire import Request, SlotRequest
    from leasehold.concurrency.acquisition import Acquisition
    from leasehold.concurrency.connection import Connection
    from leasehold.concurrency.guarding import Guarding
    from leasehold.concurrency.returning import Returner
    from leasehold.concurrency.turnstile import Queue, Turnstile

log = logging.getLogger("leasehold.concurrency")


class Spawn(Protocol):
    """How to start work on the keeper's loop."""

    def __call__(
        self, work: Coroutine[Any, Any, None], *, returns_slots: bool = False
    ) -> asyncio.Task[None]:
        """Start it; what returns slots is waited for before the process ends."""
        ...


class Asker:
    """Asks for the slots that the heads of queues want.

    Args:
        connection: how to reach the server.
        turnstile: who waits.
        returner: sends what takes slots back.
        guarding: is told of each acquire, in case that this process dies in it.
        clock: see `lease.read_clock`.
        rng: where holders' ids come from.
        spawn: starts work on the loop.
        on_grant: told of new slots.
        on_unlimited: told of names without a limit.
        on_no_regain: told of work that runs on without the slots that it has lost.
        on_end: called after each answer.
    """

    def __init__(
        self,
        connection: Connection,
        turnstile: Turnstile[Acquisition],
        returner: Returner,
        guarding: Guarding,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        spawn: Spawn,
        on_grant: Callable[[Queue[Acquisition], Lease], None],
        on_unlimited: Callable[[tuple[str, ...]], None],
        on_no_regain: Callable[[Acquisition], None],
        on_end: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._turnstile = turnstile
        self._returner = returner
        self._guarding = guarding
        self._clock = clock
        self._rng = rng
        self._spawn = spawn
        self._on_grant = on_grant
        self._on_unlimited = on_unlimited
        self._on_no_regain = on_no_regain
        self._on_end = on_end

    async def ask(self, queue: Queue[Acquisition]) -> None:
        """Ask for the slots that the head of a queue wants."""
        try:
            await self._ask_once(queue)
        except ServerUnreachableError:
            self._no_answer(queue)
        except LeaseholdError as error:
            self._dismiss(queue, error)
        except Exception as error:  # a fault of ours must reach the work, not hang it
            log.exception("Asking for %s failed in an unforeseen way.", queue.request.label)
            self._dismiss(queue, error)
        finally:
            self._on_end()

    async def _ask_once(self, queue: Queue[Acquisition]) -> None:
        request = queue.request
        dialect = await self._connection.dialect(request)
        may_be_lost = not dialect.expires and self._guarding.is_missing
        # A slot that comes when this process is dead would never come back. But a process whose
        # tags have no limits is to start nothing, so the server is asked first.
        if may_be_lost and await self._connection.has_tag_limit(request):
            await self._guarding.started()
        async with self._connection.lane.turn(ACQUIRE):
            head = queue.head
            if head is None:
                self._turnstile.full(queue, 0.0, self._clock())
                return
            own_holder = head.payload.holder is None
            holder = head.payload.holder or Holder(self._new_id(dialect))
            undo = dialect.undo(request, holder) if own_holder else None
            expires = request.lease_seconds if dialect.expires else None
            key, sent_at = self._guarding.expect(undo, expires), self._clock()
            try:
                reply = await self._connection.send(dialect.acquire(request, holder))
                outcome = read_acquire(dialect, reply, request, holder)
                self._turnstile.heard_after(self._clock() - sent_at)
            except ServerUnreachableError as error:
                outcome = Unknown(str(error), may_have_acted=error.delivered)
            except LeaseholdError:
                self._guarding.drop(key)
                raise
        if isinstance(outcome, Unknown):
            if outcome.may_have_acted and undo is not None:
                await self._undo(undo, key, request, sent_at)
            else:
                self._guarding.drop(key)
                if outcome.may_have_acted and request.mode == "concurrency":
                    herald.warn_of_lost_reply(request, expires=dialect.expires)
            self._no_answer(queue, outcome.retry_after)
        elif isinstance(outcome, Granted):
            lease = Lease(
                request,
                outcome,
                sent_at,
                holder_id=holder.id,
                clock=self._clock,
                seen=self._connection.sees_us,
            )
            self._guarding.keep(key, lease)
            self._on_grant(queue, lease)
        else:
            self._guarding.drop(key)
            await self._without(queue, outcome, sent_at)

    async def _without(
        self, queue: Queue[Acquisition], outcome: Full | Unlimited | Refused, sent_at: float
    ) -> None:
        """Take in an answer that is no grant."""
        request = queue.request
        if isinstance(outcome, Full):
            self._full(queue, outcome.retry_after)
        elif isinstance(outcome, Unlimited):
            self._on_unlimited(request.names)
            for waiter in self._turnstile.closed(queue):
                waiter.payload.settle(Lease(request, None, sent_at, who=waiter.payload.who))
        elif isinstance(outcome, Refused):
            if await self._connection.has_changed(outcome):
                self._turnstile.failed(queue, self._clock())
            else:
                self._dismiss(queue, await herald.explain(outcome, request, self._connection))

    def _full(self, queue: Queue[Acquisition], retry_after: float | None) -> None:
        spent = self._turnstile.full(queue, retry_after, self._clock())
        if spent is not None:
            acquisition = spent.payload
            impatient = acquisition.timeout_seconds == 0
            acquisition.fail(acquisition.timed_out() if impatient else acquisition.out_of_retries())

    def _no_answer(self, queue: Queue[Acquisition], retry_after: float | None = None) -> None:
        now, gives_up_at = self._clock(), self._connection.gives_up_at()
        if now >= gives_up_at:
            self._dismiss(queue, self._connection.error())
        else:
            self._turnstile.failed(queue, now, retry_after, latest=gives_up_at)

    def _new_id(self, dialect: Dialect) -> UUID:
        return holders.new_id(self._rng, now=time.time(), expires=dialect.expires)

    async def _undo(self, undo: Request, key: int, request: SlotRequest, sent_at: float) -> None:
        """Take back what a request without a reply may have got, before asking again (rule 8)."""
        taken_back = self._spawn(self._take_back(undo, key, request, sent_at), returns_slots=True)
        await asyncio.wait([taken_back], timeout=self._connection.request_seconds)

    async def _take_back(
        self, undo: Request, key: int, request: SlotRequest, sent_at: float
    ) -> None:
        until = sent_at + request.lease_seconds
        await self._returner.take_back(undo, until, request.label)
        self._guarding.drop(key)
        # Once more, later: the request may be under way still, and arrive after this.
        again = self._returner.take_back(undo, until, request.label)
        self._spawn(_later(self._connection.request_seconds, again))

    def _dismiss(self, queue: Queue[Acquisition], error: BaseException) -> None:
        for waiter in self._turnstile.closed(queue):
            if waiter.payload.lease is None:
                waiter.payload.fail(copy.copy(error))  # each raises its own, with its own traceback
            else:
                self._on_no_regain(waiter.payload)


async def _later(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        work.close()
        raise
    await work
