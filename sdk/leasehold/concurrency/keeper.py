"""The one background thread that acquires, renews and releases.

One daemon thread per process, with one event loop and one connection, started at the first work
that needs a slot. Callers hand in an `Acquisition` and get a future: sync callers wait on it, async
callers await it, runners add a callback. So a blocked event loop starves no renewal, and a
thousand leases cost one thread.

What to do next is decided by the pure `turnstile` and `lease`; here it is done.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import copy
import os
import random
import threading
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from leasehold.client import wire
from leasehold.client.wire import Full, Granted, Holder, Outcome, Refused, SlotRequest, Unlimited
from leasehold.concurrency import herald
from leasehold.concurrency.connection import Connection
from leasehold.concurrency.lane import ACQUIRE
from leasehold.concurrency.lease import Lease, Term, read_clock
from leasehold.concurrency.tending import Tender
from leasehold.concurrency.turnstile import Queue, Turnstile, Waiter
from leasehold.exceptions import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    LeaseholdError,
    ServerUnreachableError,
)
from leasehold.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from leasehold.client.http import AsyncApi
    from leasehold.settings import Settings

log = get_logger("concurrency")

OnLeaseLost = Literal["regain", "cancel", "ignore"]

#: Releases that are still under way when the process ends get this long.
FLUSH_SECONDS: Final = 2.0


@dataclass(eq=False, slots=True)
class Acquisition:
    """One piece of work that wants slots.

    Args:
        request: which slots.
        who: what messages call the work.
        holder: who the server is to list; None: an id of its own, by which a lost reply can be
            undone.
        timeout_seconds: the most it waits, the queue included; None: without end.
        max_retries: how often it may be told "full"; None: without end.
        on_lost: what to do when the lease is lost.
        on_cancel: called on the keeper's thread when the lease is lost and `on_lost` is "cancel".
    """

    request: SlotRequest
    who: str
    holder: Holder | None = None
    timeout_seconds: float | None = None
    max_retries: int | None = None
    on_lost: OnLeaseLost = "regain"
    on_cancel: Callable[[Lease], None] | None = None
    future: concurrent.futures.Future[Lease] = field(default_factory=concurrent.futures.Future)
    lease: Lease | None = None
    waiter: Waiter[Acquisition] | None = None
    timer: asyncio.TimerHandle | None = None
    abandoned: bool = False


class Keeper:
    """Takes, keeps and gives back the slots of this process at one server.

    Args:
        settings: where the server is, and how patient to be.
        clock: see `lease.read_clock`.
        rng: where jitter comes from.
        open_api: opens the client; tests put a simulated server here.
        loop: an event loop that somebody else runs, on which to work; None: one of its own, on a
            thread of its own. Tests put a loop on a manual clock here.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = read_clock,
        rng: random.Random | None = None,
        open_api: Callable[[Settings], AsyncApi] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.settings = settings
        self.pid = os.getpid()
        jitter = (rng or random.Random()).random  # noqa: S311 - spreads requests, guards nothing
        self._clock = clock
        self._loop = loop or asyncio.new_event_loop()
        self._connection = Connection(settings, clock=clock, open_api=open_api)
        self._turnstile = Turnstile[Acquisition](poll_seconds=settings.poll_seconds, jitter=jitter)
        self._tender = Tender(self._connection, clock=clock, jitter=jitter, on_lost=self._lost)
        self._holders: dict[Lease, Acquisition] = {}
        self._unlimited_until: dict[tuple[str, ...], float] = {}
        self._herald = herald.Herald()
        self._tasks: set[asyncio.Task[None]] = set()
        self._returns: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._pumping = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="leasehold-keeper", daemon=True)
        if loop is None:
            self._thread.start()

    # -- for any thread

    def knows_no_limit(self, names: tuple[str, ...]) -> bool:
        """Whether the server said a moment ago that none of these limits exists."""
        return self._unlimited_until.get(names, 0.0) > self._clock()

    def forget(self, names: tuple[str, ...] = ()) -> None:
        """Drop what is believed of limits that do not exist; of all of them without names."""
        for known in list(self._unlimited_until):
            if not names or not set(names).isdisjoint(known):
                self._unlimited_until.pop(known, None)

    def acquire(self, acquisition: Acquisition) -> None:
        """Begin to wait; the outcome comes through `acquisition.future`.

        The future's result is a `Lease`, one without limits where none exists. Whoever stops
        waiting calls `abandon`.
        """
        try:
            self._loop.call_soon_threadsafe(self._join, acquisition)
        except RuntimeError:  # the loop is closed
            acquisition.future.set_exception(_going_away(acquisition))

    def abandon(self, acquisition: Acquisition) -> None:
        """Stop waiting; what was granted in the meantime is given back."""
        self._post(self._abandon, acquisition)

    def release(self, lease: Lease) -> None:
        """Give a lease back, or on to the next in its queue; returns at once, never raises."""
        if lease.end() and lease.limits and os.getpid() == self.pid:
            self._post(self._begin_release, lease)

    def leases(self) -> list[Lease]:
        """The leases that are held now."""
        return list(self._holders)

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until what was released is given back; False when that takes longer."""
        if os.getpid() != self.pid or not self._thread.is_alive():
            return True
        flushed = asyncio.run_coroutine_threadsafe(self._flush(), self._loop)
        try:
            flushed.result(seconds)
        except concurrent.futures.TimeoutError:
            flushed.cancel()
            return False
        return True

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Give everything back, in at most `seconds`, and end the thread."""
        if os.getpid() != self.pid or not self._thread.is_alive():
            return
        self._post(self._release_all)
        self.flush(seconds)
        self._post(self._loop.stop)
        self._thread.join(seconds)

    # -- on the keeper's thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            for task in self._tasks:
                task.cancel()
            self._loop.run_until_complete(self._wind_up())
            self._loop.close()

    async def _wind_up(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.close()

    def _post(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            log.debug("The keeper has ended; %s comes too late.", function.__name__)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _spawn_return(self, work: Coroutine[Any, Any, None]) -> None:
        """Start something that gives slots back: `flush` waits for these."""
        task = self._spawn(work)
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)

    def _join(self, acquisition: Acquisition) -> None:
        if acquisition.abandoned:
            return
        if self._closing:
            acquisition.future.set_exception(_going_away(acquisition))
            return
        waiter = Waiter(acquisition, self._clock(), acquisition.max_retries)
        acquisition.waiter = waiter
        self._turnstile.join(acquisition.request, waiter)
        if acquisition.timeout_seconds is not None:
            acquisition.timer = self._loop.call_later(
                acquisition.timeout_seconds, self._time_out, acquisition
            )
        self._pump_soon()

    def _pump_soon(self) -> None:
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Let everybody ask who may, and set the alarm for the next who may later."""
        self._pumping = False
        now = self._clock()
        for queue in self._turnstile.asks(now):
            self._spawn(self._ask(queue))
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        wake_at = self._turnstile.wake_at(now)
        if wake_at != float("inf"):
            self._alarm = self._loop.call_later(max(wake_at - now, 0.0), self._pump_soon)
        if self._look is None:
            self._look_at_waits()

    def _look_at_waits(self) -> None:
        """Have long waits told, and look again when the next one may be due."""
        self._look = None
        now = self._clock()
        due, look_again = self._herald.due(self._turnstile.waiting(), now)
        for queue in due:
            self._spawn(
                self._herald.announce(queue, self._turnstile, self._connection, self._who_holds)
            )
        if look_again != float("inf"):
            seconds = min(look_again - now, herald.LOOK_SECONDS)
            self._look = self._loop.call_later(max(seconds, 0.0), self._look_at_waits)

    def _who_holds(self) -> dict[str, str]:
        return {
            str(lease.holder_id): acquisition.who for lease, acquisition in self._holders.items()
        }

    async def _ask(self, queue: Queue[Acquisition]) -> None:
        try:
            await self._ask_once(queue)
        except ServerUnreachableError:
            if self._connection.given_up():
                self._dismiss(queue, self._connection.error())
            else:
                self._turnstile.failed(queue, self._clock())
        except LeaseholdError as error:
            self._dismiss(queue, error)
        except Exception as error:  # a fault of ours must reach the work, not hang it
            log.exception("Asking for %s failed in an unforeseen way.", queue.request.label)
            self._dismiss(queue, error)
        finally:
            self._pump_soon()

    async def _ask_once(self, queue: Queue[Acquisition]) -> None:
        await self._connection.know_server()
        request = queue.request
        async with self._connection.lane.turn(ACQUIRE):
            head = queue.head
            if head is None:
                self._turnstile.full(queue, 0.0, self._clock())
                return
            holder = head.payload.holder or Holder(uuid.uuid4())
            sent_at = self._clock()
            try:
                reply = await self._connection.send(wire.acquire(request, holder))
            except ServerUnreachableError as error:
                if error.delivered:
                    await self._undo(head.payload, request, holder, sent_at)
                raise
        await self._answered(queue, wire.read_acquire(reply, request), holder, sent_at)

    async def _answered(
        self, queue: Queue[Acquisition], outcome: Outcome, holder: Holder, sent_at: float
    ) -> None:
        request = queue.request
        if isinstance(outcome, Granted):
            self._granted(queue, outcome, holder, sent_at)
        elif isinstance(outcome, Full):
            spent = self._turnstile.full(queue, outcome.retry_after, self._clock())
            if spent is not None:
                _fail(spent.payload, _out_of_retries(spent.payload))
        elif isinstance(outcome, Unlimited):
            until = self._clock() + self.settings.unlimited_seconds
            self._unlimited_until[request.names] = until
            term = Term(request.lease_seconds, sent_at)
            for waiter in self._turnstile.closed(queue):
                free = Lease(request, term, lease_id=None, limits={}, clock=self._clock)
                _settle(waiter.payload, free)
        elif isinstance(outcome, Refused):
            self._dismiss(queue, await herald.explain(outcome, request, self._connection))
        elif self._connection.given_up():
            self._dismiss(queue, self._connection.error())
        else:
            self._turnstile.failed(queue, self._clock(), outcome.retry_after)

    async def _undo(
        self, acquisition: Acquisition, request: SlotRequest, holder: Holder, sent_at: float
    ) -> None:
        """Take back what a request without a reply may have got (rule 8)."""
        undo = wire.undo(request, holder) if acquisition.holder is None else None
        expires_at = sent_at + request.lease_seconds
        if undo is not None:
            self._spawn_return(self._tender.give_back(undo, expires_at, request.label))
        elif request.mode == "concurrency":
            log.warning(
                "The reply to a question for %s got lost. If it was a grant, its slot is free "
                "again in %.0f s, when that lease has expired.",
                request.label,
                request.lease_seconds,
            )

    def _granted(
        self, queue: Queue[Acquisition], outcome: Granted, holder: Holder, sent_at: float
    ) -> None:
        lease = Lease(
            queue.request,
            Term(queue.request.lease_seconds, sent_at),
            lease_id=outcome.lease_id,
            holder_id=holder.id,
            limits=outcome.limits,
            clock=self._clock,
        )
        waiter = None if lease.lost else self._turnstile.granted(queue, outcome.limits)
        if waiter is not None:
            self._hand(lease, waiter.payload)
            return
        if lease.lost:  # the reply took longer than the lease lives: ask again
            self._turnstile.failed(queue, self._clock())
        lease.end()
        if lease.id is not None:
            self._spawn_return(self._give_back(lease))

    def _hand(self, lease: Lease, acquisition: Acquisition) -> None:
        if acquisition.lease is not None:  # it lost its slots, and this is the new lease
            lost = acquisition.lease
            lost.regained(lease.id, lease.holder_id, lease.term)
            lease = lost
            log.info("%s has its slot of %s again.", acquisition.who, lease.request.label)
        if lease.id is not None:
            self._holders[lease] = acquisition
            self._tender.watch(lease)
        _settle(acquisition, lease)

    def _abandon(self, acquisition: Acquisition) -> None:
        acquisition.abandoned = True
        if acquisition.waiter is not None:
            self._turnstile.leave(acquisition.request, acquisition.waiter)
        if acquisition.timer is not None:
            acquisition.timer.cancel()
        if acquisition.lease is not None and acquisition.lease.end():
            self._begin_release(acquisition.lease)
        self._pump_soon()

    def _time_out(self, acquisition: Acquisition) -> None:
        assert acquisition.waiter is not None
        assert acquisition.timeout_seconds is not None
        if self._turnstile.leave(acquisition.request, acquisition.waiter):
            acquisition.future.set_exception(
                AcquireConcurrencySlotTimeoutError(
                    f"{acquisition.who} got no slot of {acquisition.request.label} within "
                    f"{acquisition.timeout_seconds:g} s.",
                    names=acquisition.request.names,
                    timeout_seconds=acquisition.timeout_seconds,
                )
            )
        self._pump_soon()

    def _dismiss(self, queue: Queue[Acquisition], error: BaseException) -> None:
        for waiter in self._turnstile.closed(queue):
            _fail(waiter.payload, copy.copy(error))  # each raises its own, with its own traceback

    # -- slots that come back

    def _begin_release(self, lease: Lease) -> None:
        self._spawn_return(self._release(lease))

    async def _release(self, lease: Lease) -> None:
        acquisition = self._holders.pop(lease, None)
        if acquisition is None:
            return
        if acquisition.waiter is not None and lease.lost_reason is not None:
            self._turnstile.leave(lease.request, acquisition.waiter)  # it was being regained
        if not await self._tender.let_go(lease):
            return
        heir = self._turnstile.pass_on(lease.request, self._clock()) if self._fresh(lease) else None
        if heir is not None:
            self._hand(lease.successor(), heir.payload)
        else:
            await self._give_back(lease)

    def _fresh(self, lease: Lease) -> bool:
        """Whether a lease may pass on: others have their turn soon, and it is far from its end."""
        now = self._clock()
        young = now - lease.acquired_at < self.settings.handover_seconds
        alive = lease.term.remaining(now) > lease.request.lease_seconds / 3
        return young and alive and not self._closing

    async def _give_back(self, lease: Lease) -> None:
        assert lease.id is not None
        expires_at = lease.term.sent_at + lease.request.lease_seconds
        try:
            await self._tender.give_back(wire.release(lease.id), expires_at, lease.request.label)
        finally:
            self._turnstile.released(lease.request, lease.limits.keys())
            self._pump_soon()

    def _lost(self, lease: Lease) -> None:
        """Decide what a loss means for the work."""
        acquisition = self._holders[lease]
        policy = acquisition.on_lost
        log.warning(
            "%s lost its slot of %s: %s. %s",
            acquisition.who,
            lease.request.label,
            lease.lost_reason,
            _CONSEQUENCES[policy],
        )
        # If only our renewals got lost, the server still counts the old lease against us.
        self._spawn_return(self._give_back(lease))
        if policy == "cancel":
            if acquisition.on_cancel is not None:
                acquisition.on_cancel(lease)
        elif policy == "regain":
            acquisition.waiter = Waiter(acquisition, self._clock())
            self._turnstile.join(lease.request, acquisition.waiter)
            self._pump_soon()

    def _release_all(self) -> None:
        self._closing = True
        for queue in list(self._turnstile.waiting()):
            for waiter in self._turnstile.dissolve(queue):
                _fail(waiter.payload, _going_away(waiter.payload))
        for lease in self.leases():
            lease.end()
            self._begin_release(lease)

    async def _flush(self) -> None:
        while self._returns:
            await asyncio.wait(self._returns)


_CONSEQUENCES: Final[dict[OnLeaseLost, str]] = {
    "regain": "It goes on, and gets a new one as soon as there is one.",
    "cancel": "It is cancelled.",
    "ignore": "It goes on without.",
}


def _settle(acquisition: Acquisition, lease: Lease) -> None:
    if acquisition.timer is not None:
        acquisition.timer.cancel()
    acquisition.lease = lease
    if not acquisition.future.done():
        acquisition.future.set_result(lease)


def _fail(acquisition: Acquisition, error: BaseException) -> None:
    if acquisition.timer is not None:
        acquisition.timer.cancel()
    if not acquisition.future.done():
        acquisition.future.set_exception(error)


def _going_away(acquisition: Acquisition) -> LeaseholdError:
    return ConcurrencySlotAcquisitionError(
        f"{acquisition.who} got no slot of {acquisition.request.label}: the process is ending.",
        names=acquisition.request.names,
    )


def _out_of_retries(acquisition: Acquisition) -> LeaseholdError:
    return ConcurrencySlotAcquisitionError(
        f"{acquisition.who} got no slot of {acquisition.request.label}: all are taken, after "
        f"{acquisition.max_retries} retries.",
        names=acquisition.request.names,
    )


# -- one keeper per process

_lock = threading.Lock()
_keeper: Keeper | None = None
_left_behind: list[Keeper | None] = []


def current() -> Keeper:
    """The process's keeper, started by the first call.

    Raises:
        SettingsError: a setting that cannot be used.
    """
    global _keeper  # noqa: PLW0603 - one per process is the point
    keeper = _keeper
    if keeper is not None:
        return keeper
    with _lock:
        if _keeper is None:
            from leasehold.settings import load

            _keeper = Keeper(load())
            atexit.register(_keeper.close)
        return _keeper


def running() -> Keeper | None:
    """The process's keeper, if one was started."""
    return _keeper


def shut_down() -> None:
    """Give everything back and end the keeper; the next work starts another with new settings."""
    global _keeper
    with _lock:
        keeper, _keeper = _keeper, None
    if keeper is not None:
        keeper.close()
        atexit.unregister(keeper.close)


def _after_fork_in_child() -> None:
    """Start anew: the parent's thread, loop and leases are the parent's (rule 9)."""
    global _keeper, _lock
    _left_behind.append(_keeper)  # collecting it would touch file descriptors that are shared
    _keeper, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
