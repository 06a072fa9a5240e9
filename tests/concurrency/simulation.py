"""Deterministic simulation: real keepers on a virtual clock, against a simulated server.

The manner is FoundationDB's: everything that waits, waits on one event loop whose clock jumps to
the next timer as soon as nothing is ready. So hours pass in milliseconds, every run of a test is
the same run, and what must always hold is looked at in every single moment of it. Keeper,
turnstile, tender, lane and connection run unchanged; only the thread, the clock and the network
below them are replaced.
"""

from __future__ import annotations

import asyncio
import functools
import random
import selectors
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import TypeVarTuple, Unpack

from concurrency.simulated_server import (
    ADDRESS,
    ServerLimit,
    SimulatedApi,
    SimulatedServer,
)
from leasehold.client.wire import SlotRequest
from leasehold.concurrency.acquisition import Acquisition
from leasehold.concurrency.keeper import Keeper
from leasehold.exceptions import LeaseholdError
from leasehold.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from typing_extensions import Self

    from leasehold.concurrency.acquisition import OnLeaseLost
    from leasehold.concurrency.lease import Lease

Ts = TypeVarTuple("Ts")

#: When simulated time begins. Not 0, so that nobody takes a clock for a duration.
START = 10_000.0


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when nothing else is left to do.

    Example:
        >>> loop = VirtualLoop()
        >>> _ = loop.call_later(3600, print, "an hour later")
        >>> loop.run(7200)
        an hour later

    Attributes:
        watchers: called whenever nothing is ready, before the clock moves and after; an error
            that they raise ends the run.
        errors: what callbacks and tasks raised and nobody caught.
    """

    def __init__(self) -> None:
        self.watchers: list[Callable[[], None]] = []
        self.errors: list[dict[str, Any]] = []
        self._now = self._horizon = START
        self._until: Callable[[], bool] | None = None
        super().__init__(_Jumps(self._jump))
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        """The virtual clock, in seconds."""
        return self._now

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: Unpack[Ts],
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Call soon: there is one thread only, and nobody sleeps who must be woken."""
        return self.call_soon(callback, *args, context=context)

    def run(self, seconds: float = 0.0, until: Callable[[], bool] | None = None) -> None:
        """Let time pass; less than that when `until` says so. 0 does all that is ready."""
        self._horizon, self._until = self._now + seconds, until
        self.run_forever()

    def _jump(self, seconds: float | None) -> None:
        self._watch()
        if self._until is not None and self._until():
            self.stop()
        elif seconds is None or self._now + seconds > self._horizon:
            self._now = self._horizon
            self.stop()
        else:
            self._now += seconds
        self._watch()

    def _watch(self) -> None:
        for watcher in self.watchers:
            watcher()


class _Jumps(selectors.SelectSelector):
    """Where other loops sleep until something happens, this one has the clock moved."""

    def __init__(self, jump: Callable[[float | None], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self._jump(timeout)
        return []


#: Long enough for the slowest request, a grant that comes of it, that lease's end, and the reaper.
REST_SECONDS = 300.0

State = Literal["waiting", "running", "ended"]


class Work:
    """One piece of work: waits for slots, runs for a while, gives them back.

    Attributes:
        state: what it does.
        error: why it could not run.
        lease: under which it runs or ran.
        began_at: clock when its body began.
        cancelled_by_loss: the keeper told it that its lease is lost.
    """

    def __init__(self, process: Process, acquisition: Acquisition, seconds: float | None) -> None:
        self.state: State = "waiting"
        self.error: BaseException | None = None
        self.lease: Lease | None = None
        self.began_at: float | None = None
        self.cancelled_by_loss = False
        self.acquisition = acquisition
        self._process = process
        self._seconds = seconds
        acquisition.on_cancel = self._lost
        acquisition.future.add_done_callback(lambda _: self._begin())
        process.keeper.acquire(acquisition)

    @property
    def believes(self) -> bool:
        """Whether it runs in the belief that the slots are its own."""
        return self.state == "running" and self.lease is not None and not self.lease.lost

    def finish(self) -> None:
        """End the body, or the wait for it."""
        if self.state == "running":
            assert self.lease is not None
            self.state = "ended"
            del self._process.running[self]
            self._process.keeper.release(self.lease)
        elif self.state == "waiting":
            self.state = "ended"
            self._process.keeper.abandon(self.acquisition)

    def interrupt(self) -> None:
        """End as by Ctrl-C in the wait: without knowing whether slots were granted meanwhile."""
        self._process.running.pop(self, None)
        self.state = "ended"
        self._process.keeper.abandon(self.acquisition)

    def _begin(self) -> None:
        if self.state != "waiting":
            return
        self.error = self.acquisition.future.exception()
        loop = self._process.world.loop
        if self.error is not None:
            self.state = "ended"
            if not isinstance(self.error, LeaseholdError):  # a fault of ours, not the server's
                loop.errors.append({"message": "work failed", "exception": self.error})
            return
        self.state, self.began_at = "running", loop.time()
        self._process.running[self] = None
        self.lease = self.acquisition.future.result()
        if self._seconds is not None:
            loop.call_later(self._seconds, self.finish)

    def _lost(self, lease: Lease) -> None:
        self.cancelled_by_loss = True
        self.finish()


class Process:
    """One process of a user's: a keeper, and the work that wants slots of it."""

    def __init__(self, world: World, number: int, settings: Settings) -> None:
        self.world = world
        self.api = SimulatedApi(world.server)
        self.works: list[Work] = []
        self.running: dict[Work, None] = {}
        self.keeper = Keeper(
            settings,
            clock=world.loop.time,
            rng=random.Random(f"{world.seed} {number}"),
            open_api=lambda _: self.api,
            loop=world.loop,
        )

    def work(
        self,
        *tags: str,
        seconds: float | None = None,
        slots: int = 1,
        lease_seconds: float = 60.0,
        timeout_seconds: float | None = None,
        max_retries: int | None = None,
        on_lost: OnLeaseLost = "regain",
        plain: bool = False,
    ) -> Work:
        """Begin a piece of work; `seconds` None: it runs until it is told to finish."""
        names = tuple(sorted(tags if plain else (f"tag:{tag}" for tag in tags)))
        acquisition = Acquisition(
            SlotRequest(names, slots, lease_seconds=lease_seconds),
            who=f"work {len(self.works)}",
            timeout_seconds=timeout_seconds,
            max_retries=max_retries,
            on_lost=on_lost,
        )
        work = Work(self, acquisition, seconds)
        self.works.append(work)
        return work

    def crash(self) -> None:
        """End at once, as by SIGKILL: nothing is given back, nothing is sent any more."""
        self.api.dead = True
        self.running.clear()
        for work in self.works:
            work.state = "ended"

    def books(self) -> dict[str, int]:
        """What the keeper still counts as held, by limit; empty when all came back."""
        return {name: held for name, held in self.keeper._turnstile._held.items() if held}


class World:
    """Processes, one server, one clock; and what must be true in every moment.

    Example:
        >>> with World(database=1) as world:
        ...     work = world.process().work("database", seconds=5)
        ...     world.run(10)
        >>> work.state
        'ended'

    Args:
        seed: where all chance comes from.
        latency_seconds: what a request takes, there and back.
        watched: whether to look at the invariants in every moment.
        limits: sizes by tag.
    """

    def __init__(
        self, *, seed: int = 0, latency_seconds: float = 0.004, watched: bool = True, **limits: int
    ) -> None:
        self.seed = seed
        self.loop = VirtualLoop()
        sizes = {f"tag:{tag}": ServerLimit(size) for tag, size in limits.items()}
        self.server = SimulatedServer(self.loop, sizes, latency_seconds=latency_seconds)
        self.processes: list[Process] = []
        if watched:
            self.loop.watchers.append(self.check)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def now(self) -> float:
        """The virtual clock, in seconds."""
        return self.loop.time()

    def process(self, **settings: Any) -> Process:
        """Start a process."""
        process = Process(
            self, len(self.processes), Settings(api_url=ADDRESS, guard=False, **settings)
        )
        self.processes.append(process)
        return process

    def run(self, seconds: float = 0.0, until: Callable[[], bool] | None = None) -> None:
        """Let time pass; see `VirtualLoop.run`."""
        self.loop.run(seconds, until)
        assert self.loop.errors == [], self.loop.errors

    def at(self, seconds: float, function: Callable[..., object], *args: object) -> None:
        """Have something happen in the middle of a run, `seconds` from now."""
        self.loop.call_later(seconds, functools.partial(function, *args))

    def check(self) -> None:
        """Look at what must be true in every moment (LEASES.md, "The safety bound")."""
        server, bodies = self.server, Counter[str]()
        for work in self.running():
            lease = work.lease
            assert lease is not None
            if lease.lost or not lease.limits:
                continue
            live = server.is_live(lease.id) or str(lease.id) in server.forgotten
            assert live, f"{work.acquisition.who} believes in a lease that the server has not"
            for name in lease.limits:
                bodies[name] += lease.request.slots
        for name, limit in server.limits.items():
            assert bodies[name] <= limit.size, f"{bodies[name]} bodies hold {name}: too many"
            assert limit.used >= server.leased(name), f"{name} was given back twice"
        assert server.misdeeds == []

    def running(self) -> list[Work]:
        """All bodies that run."""
        return [work for process in self.processes for work in process.running]

    def come_to_rest(self) -> None:
        """Stop all faults and all work, let what is under way end, and see that nothing is left.

        What the protocol cannot take back is free after its lease and the reaper's next round.
        """
        self.server.quieten()
        for process in self.processes:
            for work in process.works:
                work.finish()
        self.run(REST_SECONDS)
        assert self.server.leases == {}
        for name, limit in self.server.limits.items():
            assert limit.used <= self.server.zombies[name], f"slots of {name} stay taken"
        for process in self.processes:
            if not process.api.dead:
                assert process.keeper.leases() == []
                assert process.books() == {}

    def close(self) -> None:
        """End everything that still runs on the loop."""
        self.loop.watchers.clear()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run()
        self.loop.close()
