"""The one background thread that acquires, renews and releases.

One daemon thread per process, with one event loop and one connection, started at the first work
that needs a slot. Callers hand in an `Acquisition` and get a future: sync callers wait on it, async
callers await it, runners add a callback. So a blocked event loop starves no renewal, and a
thousand leases cost one thread.

What to do next is decided by the pure `turnstile` and `lease`; here it is done.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import logging
import math
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from leasehold.client.api import open_api
from leasehold.concurrency import crash, events, herald
from leasehold.concurrency.acquisition import CONSEQUENCES, Acquisition
from leasehold.concurrency.asking import Asker
from leasehold.concurrency.connection import Connection
from leasehold.concurrency.guarding import Guarding
from leasehold.concurrency.healing import heal
from leasehold.concurrency.lease import Lease, read_clock
from leasehold.concurrency.loop import KeeperLoop
from leasehold.concurrency.returning import Returner
from leasehold.concurrency.tending import Tender
from leasehold.concurrency.turnstile import Queue, Turnstile, Waiter
from leasehold.concurrency.unlimited import Unlimited
from leasehold.forks import background

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from leasehold.client.api import Api
    from leasehold.settings import Settings

log = logging.getLogger("leasehold.concurrency")

#: Releases that are still under way when the process ends get this long; with `END_SECONDS`, it is
#: held up for 2 s at most.
FLUSH_SECONDS: Final = 1.5

#: The thread gets this long to end, whatever else took its time.
END_SECONDS: Final = 0.5

#: The keeper's thread gets this long to take in what happened while nobody looked.
CATCH_UP_SECONDS: Final = 1.0

#: Asking the ledger is cheap: the longest pause between two questions there.
LEDGER_POLL_SECONDS: Final = 0.15

#: Work that cannot have new slots now, because the server refuses, asks again after this long.
REGAIN_SECONDS: Final = 15.0


class Keeper:
    """Takes, keeps and gives back the slots of this process at one server.

    Args:
        settings: where the server is, and how patient to be.
        clock: see `lease.read_clock`.
        rng: where jitter comes from.
        open_api: opens the client; tests put a simulated server here.
        loop: an event loop that somebody else runs, on which to work; None: one of its own, on a
            thread of its own. Tests put a loop on a manual clock here.
        unlimited: where to note which limits do not exist; None: where nobody else looks.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = read_clock,
        rng: random.Random | None = None,
        open_api: Callable[[Settings], Api] = open_api,
        loop: asyncio.AbstractEventLoop | None = None,
        unlimited: Unlimited | None = None,
    ) -> None:
        self.settings = settings
        self.unlimited = unlimited or Unlimited(clock)
        self.pid = os.getpid()
        rng = rng or random.Random()  # noqa: S311 - spreads requests, guards nothing
        jitter = rng.random
        self._clock = clock
        self._loop = loop or KeeperLoop()
        self._connection = Connection(settings, clock=clock, open_api=open_api)
        longest = LEDGER_POLL_SECONDS if settings.api_url is None else math.inf
        self._turnstile = Turnstile[Acquisition](
            poll_seconds=min(settings.poll_seconds, longest),
            handover_seconds=settings.handover_seconds,
            jitter=jitter,
        )
        self._tender = Tender(
            self._connection,
            clock=clock,
            jitter=jitter,
            on_renewed=self._renewed,
            on_lost=self._lost,
            before_loss=self._hear_of_renewals,
        )
        self._returner = Returner(self._connection, clock=clock, jitter=jitter)
        self._guarding = Guarding(settings, self._loop, clock, self._tender.renewed_elsewhere)
        self._asker = Asker(
            self._connection,
            self._turnstile,
            self._returner,
            self._guarding,
            clock=clock,
            rng=rng,
            spawn=self._spawn,
            on_grant=self._granted,
            on_unlimited=self._unlimited,
            on_no_regain=self._regain_later,
            on_end=self._pump_soon,
        )
        self._holders: dict[Lease, Acquisition] = {}
        self._herald = herald.Herald()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: set[asyncio.Task[None]] = set()
        self._returns: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._pumping = False
        self._closing = False
        self._stopping = False
        self._hurried = False
        self._waited_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="leasehold-keeper", daemon=True)
        if loop is None:
            self._thread.start()

    # -- for any thread

    def acquire(self, acquisition: Acquisition) -> None:
        """Begin to wait; the outcome comes through `acquisition.future`.

        The future's result is a `Lease`, one without limits where none exists. Whoever stops
        waiting calls `abandon`.
        """
        if not self._post(self._join, acquisition):
            acquisition.fail(acquisition.going_away())

    def abandon(self, acquisition: Acquisition) -> None:
        """Stop waiting; what was granted in the meantime is given back."""
        self._post(self._abandon, acquisition)

    def release(self, lease: Lease) -> None:
        """Give a lease back, or on to the next in its queue; returns at once, never raises.

        May be called again: whoever is interrupted in it does not know how far it came.
        """
        lease.end()
        if lease.limits and os.getpid() == self.pid:
            self._post(self._begin_release, lease)

    def catch_up(self) -> None:
        """Have what the guard has said taken in, and wait for that, but not for long."""

        def hear(heard: concurrent.futures.Future[None]) -> None:
            self._hear_of_renewals()
            heard.set_result(None)

        self._have_done(hear)

    def renew_now(self) -> None:
        """Renew all leases, due or not, and wait until that is answered, but not for long.

        So a loss is noticed at once that would be noticed at the next renewal.
        """

        def renew(renewed: concurrent.futures.Future[None]) -> None:
            renewals = self._spawn(self._tender.renew_now())
            renewals.add_done_callback(lambda _: renewed.set_result(None))

        self._have_done(renew)

    def leases(self) -> list[Lease]:
        """The leases that are held now."""
        return list(self._holders)

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until what was released is given back; False when that takes longer.

        What was waited in vain counts: a server out of reach is not waited for twice.
        """
        if os.getpid() != self.pid or not self._thread.is_alive():
            return True
        flushed: concurrent.futures.Future[None] = concurrent.futures.Future()
        if not self._post(self._begin_flush, flushed):
            return True
        began, left = time.monotonic(), max(seconds - self._waited_seconds, 0.0)
        try:
            flushed.result(0 if self._hurried else left)
        except concurrent.futures.TimeoutError:
            self._waited_seconds += time.monotonic() - began
            return False
        except KeyboardInterrupt:  # somebody does not want to wait: not here, nor at the exit
            self._hurried = True
            raise
        finally:
            flushed.cancel()
        return True

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Give everything back, in at most `seconds`, and end the thread."""
        if os.getpid() != self.pid or not self._thread.is_alive():
            return
        ends_at = time.monotonic() + seconds
        self._closing = True  # now: nobody here is to get the slots of the work that is ended next
        for end_work in tuple(crash.work_elsewhere):
            end_work()
        self._post(self._release_all)
        self.flush(ends_at - time.monotonic())
        self._post(self._stop)
        self._thread.join(max(ends_at - time.monotonic(), END_SECONDS))

    def after_fork(self) -> None:
        """Let go, in a forked child, of what would keep the parent's slots after its death."""
        self._guarding.forget()

    # -- on the keeper's thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with background.work():
            try:
                self._loop.run_forever()
            finally:
                self._guarding.close()  # first: a release that is cut short has given nothing back
                for task in self._tasks:
                    task.cancel()
                self._loop.run_until_complete(self._wind_up())
                self._loop.close()

    def _stop(self) -> None:
        if not self._stopping:  # a second stop would cut the winding up short
            self._stopping = True
            self._loop.stop()

    async def _wind_up(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.close()

    def _post(self, function: Callable[..., Any], *args: Any) -> bool:
        """Have something done on the keeper's thread; False when the keeper has ended."""
        # In a context of its own: the caller's says, for example, which event loop *it* runs in.
        try:
            self._loop.call_soon_threadsafe(function, *args, context=contextvars.Context())
        except RuntimeError:
            return False
        return True

    def _have_done(self, work: Callable[[concurrent.futures.Future[None]], object]) -> None:
        """Have something done on the keeper's thread, and wait for it, but not for long."""
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        elsewhere = threading.current_thread() is not self._thread
        if elsewhere and os.getpid() == self.pid and self._post(work, done):
            concurrent.futures.wait([done], CATCH_UP_SECONDS)

    def _spawn(
        self, work: Coroutine[Any, Any, None], *, returns_slots: bool = False
    ) -> asyncio.Task[None]:
        """Start work; `flush` waits for what returns slots."""
        task = self._loop.create_task(work)
        for group in (self._tasks, self._returns) if returns_slots else (self._tasks,):
            group.add(task)
            task.add_done_callback(group.discard)
        return task

    def _join(self, acquisition: Acquisition) -> None:
        if acquisition.abandoned:
            return
        if self._closing:
            acquisition.fail(acquisition.going_away())
            return
        # Without patience the server is asked once, and those who came before are not waited for.
        impatient = acquisition.timeout_seconds == 0
        retries = 0 if impatient else acquisition.max_retries
        waiter = acquisition.waiter = Waiter(acquisition, self._clock(), retries)
        ahead = self._turnstile.join(acquisition.request, waiter)
        if ahead:
            self._has_to_wait(waiter, ahead)
        if impatient and ahead:
            self._time_out(acquisition)
        elif acquisition.timeout_seconds:
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
            asking = self._spawn(self._asker.ask(queue))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)
        for queue in self._turnstile.waiting():
            if not queue.asking and queue.head is not None and not queue.head.told:
                self._has_to_wait(queue.head, 0)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        wake_at = self._turnstile.wake_at(now)
        if wake_at != float("inf"):
            self._alarm = self._loop.call_later(max(wake_at - now, 0.0), self._pump_soon)
        self._look_at_waits()

    @staticmethod
    def _has_to_wait(waiter: Waiter[Acquisition], ahead: int) -> None:
        waiter.told = True
        acquisition = waiter.payload
        events.emit(
            lambda: events.Waiting(
                limits=acquisition.request.names, who=acquisition.who, ahead=ahead
            )
        )

    def _look_at_waits(self) -> None:
        """Have long waits told, and look again when the next one is due."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        now = self._clock()
        due, look_again = self._herald.due(self._turnstile.waiting(), now)
        for queue in due:
            self._spawn(
                self._herald.announce(queue, self._turnstile, self._connection, self._who_holds)
            )
        if look_again != float("inf"):
            self._look = self._loop.call_later(max(look_again - now, 0.0), self._look_at_waits)

    def _who_holds(self) -> dict[str, str]:
        return {str(lease.holder_id): lease.who for lease in self._holders}

    def _unlimited(self, names: tuple[str, ...]) -> None:
        self.unlimited.note(names, self.settings.unlimited_seconds)

    def _granted(self, queue: Queue[Acquisition], lease: Lease) -> None:
        round_trip = self._clock() - lease.acquired_at
        # A reply that took longer than the lease lives is nobody's: the head asks again.
        usable = not lease.lost and not self._closing
        waiter = self._turnstile.granted(queue, lease.limits, self._clock(), usable=usable)
        if waiter is not None:
            self._hand(lease, waiter, round_trip)
            return
        lease.end()
        self._spawn(self._give_back(lease), returns_slots=True)

    def _hand(self, lease: Lease, waiter: Waiter[Acquisition], round_trip: float | None) -> None:
        """Give slots to the work that has waited for them."""
        acquisition, now = waiter.payload, self._clock()
        lost = acquisition.lease
        if lost is not None:  # it had slots and lost them: these take their place
            lost.regained(lease)
            self._guarding.pass_on(lease, lost)
            lease = lost
            log.info("%s has its slot of %s again.", lease.who, lease.request.label)
        else:
            lease.who, lease.entered_at = acquisition.who, now
        if lease.grant.release is not None:
            crash.arm(self.close)
            self._holders[lease] = acquisition
            lease.ask = self.catch_up if lease.guard_key else None
            self._tender.watch(lease)
        acquisition.settle(lease)
        facts: dict[str, Any] = _facts(lease)
        if lost is not None:
            events.emit(lambda: events.Regained(**facts, lost_seconds=now - lease.lost_at))
        else:
            waited = now - waiter.joined_at
            events.emit(
                lambda: events.Acquired(
                    **facts, waited_seconds=waited, round_trip_seconds=round_trip
                )
            )

    def _abandon(self, acquisition: Acquisition) -> None:
        acquisition.abandoned = True
        if acquisition.waiter is not None:
            self._turnstile.leave(acquisition.request, acquisition.waiter)
        acquisition.stop_timer()
        if acquisition.lease is not None:
            acquisition.lease.end()
            self._begin_release(acquisition.lease)
        self._pump_soon()

    def _time_out(self, acquisition: Acquisition) -> None:
        assert acquisition.waiter is not None
        if self._turnstile.leave(acquisition.request, acquisition.waiter):
            acquisition.fail(acquisition.timed_out())
        self._pump_soon()

    # -- slots that are kept, and that come back

    def _renewed(self, lease: Lease, round_trip: float) -> None:
        self._guarding.renewed(lease)
        events.emit(lambda: events.Renewed(**_facts(lease), round_trip_seconds=round_trip))

    def _hear_of_renewals(self) -> None:
        self._guarding.catch_up()

    def _begin_release(self, lease: Lease) -> None:
        acquisition = self._holders.pop(lease, None)
        if acquisition is None:  # there is nothing to give back, or it is on its way
            return
        if acquisition.waiter is not None and lease.lost_reason is not None:
            self._turnstile.leave(lease.request, acquisition.waiter)  # it was being regained
        held = self._clock() - lease.entered_at
        events.emit(lambda: events.Released(**_facts(lease), held_seconds=held))
        self._spawn(self._release(lease), returns_slots=True)

    async def _release(self, lease: Lease) -> None:
        if not await self._tender.let_go(lease):
            return
        heir = None
        if self._fresh(lease):
            heir = self._turnstile.pass_on(lease.request, self._clock(), lease.acquired_at)
        if heir is not None:
            successor = lease.successor(heir.payload.who)
            self._guarding.pass_on(lease, successor)
            self._hand(successor, heir, None)
        else:
            await self._give_back(lease)

    def _fresh(self, lease: Lease) -> bool:
        """Whether a lease may pass on: it is far from its end."""
        remaining = lease.term.remaining(self._clock())
        return remaining > lease.request.lease_seconds / 3 and not self._closing

    async def _give_back(self, lease: Lease, *, forgotten: bool = False) -> None:
        self._guarding.returning(lease)
        try:
            if forgotten:
                await heal(lease, self._connection)
            elif lease.grant.release is not None:
                await self._returner.give_back(lease)
            self._waited_seconds = 0.0
        finally:
            self._guarding.drop(lease.guard_key)
            self._turnstile.released(lease.request, lease.limits.keys(), self._clock())
            self._pump_soon()

    def _lost(self, lease: Lease, gone: bool) -> None:  # noqa: FBT001 - the tender calls it so
        """Decide what a loss means for the work."""
        acquisition = self._holders[lease]
        policy, reason = acquisition.on_lost, str(lease.lost_reason)
        log.warning(
            "%s lost its slot of %s: %s. %s",
            lease.who,
            lease.request.label,
            reason,
            CONSEQUENCES[policy],
        )
        age = self._clock() - lease.term.sent_at
        events.emit(lambda: events.Lost(**_facts(lease), reason=reason, renewed_seconds_ago=age))
        if policy == "cancel" and acquisition.on_cancel is not None:
            acquisition.on_cancel(lease)
        self._spawn(self._after_loss(lease, acquisition, gone=gone), returns_slots=True)

    async def _after_loss(self, lease: Lease, acquisition: Acquisition, *, gone: bool) -> None:
        """Make the server forget the old slots, then ask for new ones where that is the policy."""
        # If only our renewals got lost, the server still counts the old lease against us.
        await self._give_back(lease, forgotten=gone)
        if acquisition.on_lost == "regain":
            self._regain(acquisition)

    def _regain(self, acquisition: Acquisition) -> None:
        """Have work that runs without slots wait for new ones."""
        if acquisition.lease in self._holders and not self._closing:
            acquisition.waiter = Waiter(acquisition, self._clock())
            # First, because it is running already: whoever is let in before it is one too many.
            self._turnstile.join(acquisition.request, acquisition.waiter, first=True)
            self._pump_soon()

    def _regain_later(self, acquisition: Acquisition) -> None:
        self._loop.call_later(REGAIN_SECONDS, self._regain, acquisition)

    def _release_all(self) -> None:
        for queue in list(self._turnstile.waiting()):
            for waiter in self._turnstile.dissolve(queue):
                waiter.payload.fail(waiter.payload.going_away())
        for lease in self.leases():
            lease.end()
            self._begin_release(lease)

    def _begin_flush(self, flushed: concurrent.futures.Future[None]) -> None:
        def tell(_: asyncio.Task[None]) -> None:
            if flushed.set_running_or_notify_cancel():
                flushed.set_result(None)

        self._spawn(self._flush()).add_done_callback(tell)

    async def _flush(self) -> None:
        # At the end an answer that is still to come may be a grant: that is given back, too.
        while under_way := self._returns | (self._asking if self._closing else set()):
            await asyncio.wait(under_way)


def _facts(lease: Lease) -> dict[str, Any]:
    return {"limits": lease.request.names, "who": lease.who, "holder_id": lease.holder_id}
