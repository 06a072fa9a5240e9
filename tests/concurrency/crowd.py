"""Several processes at one server, on a simulated clock: who gets how much of a limit?

The turnstiles are the real ones. Around them there is as little as will do: a server that takes one
change after the other and is busy now and then, and processes whose bodies only take time.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from leasehold.client.wire import SlotRequest
from leasehold.concurrency.turnstile import Queue, Turnstile, Waiter

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST: Final = SlotRequest(("limit",))

AGAIN_SECONDS: Final = 0.1

RELEASE, ACQUIRE = 0, 1


@dataclass(frozen=True)
class Kind:
    """What limits are kept by: how long a message takes, a change, how often it is busy."""

    trip_seconds: float
    change_seconds: float
    busy_chance: float
    poll_seconds: float


#: Measured on two cores.
SERVER: Final = Kind(trip_seconds=0.0015, change_seconds=0.01, busy_chance=0.25, poll_seconds=1)
LEDGER: Final = Kind(trip_seconds=0.0003, change_seconds=0.0007, busy_chance=0, poll_seconds=0.15)


@dataclass
class Server:
    """A limit, and the clock that it and its processes live by."""

    size: int
    seed: int = 0
    kind: Kind = SERVER
    now: float = 0.0
    used: int = 0
    most_used: int = 0
    requests: int = 0
    free_at: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _serial: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def at(self, time: float, do: Callable[[], None]) -> None:
        """Have something done later."""
        heapq.heappush(self._events, (time, next(self._serial), do))

    def run(self) -> None:
        """Let time pass until nothing is left to happen."""
        while self._events:
            self.now, _, do = heapq.heappop(self._events)
            do()

    def send(self, kind: int, reply: Callable[[str], None]) -> None:
        """Take a request, and answer it when those before it are done."""
        self.requests += 1
        arrives, seconds = self.now + self.kind.trip_seconds, self.kind.change_seconds
        if self.free_at > arrives and self.rng.random() < self.kind.busy_chance:
            self.at(arrives + seconds, lambda: reply("busy"))
            return
        self.free_at = max(arrives, self.free_at) + seconds * self.rng.uniform(0.7, 1.3)
        self.at(self.free_at, lambda: self._answer(kind, reply))

    def _answer(self, kind: int, reply: Callable[[str], None]) -> None:
        outcome = "done"
        if kind == RELEASE:
            self.used -= 1
        elif self.used < self.size:
            self.used += 1
            self.most_used = max(self.most_used, self.used)
        else:
            outcome = "full"
        self.at(self.now + self.kind.trip_seconds, lambda: reply(outcome))


class Process:
    """A process with so many equal tasks, all of them submitted at once."""

    def __init__(self, server: Server, *, tasks: int, seconds: float, starts_at: float = 0) -> None:
        self.server = server
        self.starts_at = starts_at
        self.first_at = self.ended_at = math.inf
        self._tasks, self._seconds = tasks, seconds
        self._turnstile = Turnstile[None](
            poll_seconds=server.kind.poll_seconds, jitter=server.rng.random
        )
        self._lane: list[tuple[int, int, Callable[[str], None]]] = []
        self._sending = False
        self._serial = itertools.count()
        self._wakes_at = math.inf
        server.at(starts_at, self._begin)

    def _begin(self) -> None:
        for _ in range(self._tasks):
            self._turnstile.join(REQUEST, Waiter(None, self.server.now))
        self._pump()

    def _pump(self) -> None:
        for queue in self._turnstile.asks(self.server.now):
            self._send(ACQUIRE, functools.partial(self._answered, queue))
        wakes_at = self._wakes_at = self._turnstile.wake_at(self.server.now)
        if wakes_at < math.inf:
            self.server.at(
                max(wakes_at, self.server.now),
                lambda: self._pump() if self._wakes_at == wakes_at else None,
            )

    def _send(self, kind: int, reply: Callable[[str], None]) -> None:
        """Send one change at a time, releases first."""
        heapq.heappush(self._lane, (kind, next(self._serial), reply))
        self._send_next()

    def _send_next(self) -> None:
        if self._sending or not self._lane:
            return
        self._sending, sent_at = True, self.server.now
        kind, _, reply = heapq.heappop(self._lane)

        def answered(outcome: str) -> None:
            self._sending = False
            self._turnstile.heard_after(self.server.now - sent_at)
            reply(outcome)
            self._send_next()

        self.server.send(kind, answered)

    def _answered(self, queue: Queue[None], outcome: str) -> None:
        now = self.server.now
        if outcome == "full":
            self._turnstile.full(queue, None, now)
        elif outcome == "busy":
            self._turnstile.failed(queue, now)
        elif self._turnstile.granted(queue, {"limit": self.server.size}, now) is not None:
            self.first_at = min(self.first_at, now)
            self._run(taken_at=now)
        else:
            self._send(RELEASE, self._released)
        self._pump()

    def _run(self, taken_at: float) -> None:
        self.server.at(self.server.now + self._seconds, lambda: self._ended(taken_at))

    def _ended(self, taken_at: float) -> None:
        self._tasks -= 1
        if not self._tasks:
            self.ended_at = self.server.now
        if self._turnstile.pass_on(REQUEST, self.server.now, taken_at) is not None:
            self._run(taken_at)
        else:
            self._send(RELEASE, self._released)
        self._pump()

    def _released(self, outcome: str) -> None:
        if outcome == "busy":
            again = self.server.now + AGAIN_SECONDS
            self.server.at(again, lambda: self._send(RELEASE, self._released))
            return
        self._turnstile.released(REQUEST, REQUEST.names, self.server.now)
        self._pump()


@dataclass(frozen=True)
class Result:
    """How a crowd fared.

    Attributes:
        overhead: until all was done, in multiples of the ideal.
        spread: when the slowest process was done, in multiples of the fastest one's time.
        requests: per second.
    """

    overhead: float
    spread: float
    requests: float


def crowd(
    *,
    processes: int,
    tasks: int,
    seconds: float,
    limit: int,
    kind: Kind = SERVER,
    within: float = 0.05,
    seed: int = 0,
) -> Result:
    """Have equal processes compete that start at about the same time, `within` some seconds."""
    server = Server(limit, seed, kind)
    everybody = [
        Process(server, tasks=tasks, seconds=seconds, starts_at=server.rng.uniform(0, within))
        for _ in range(processes)
    ]
    server.run()
    assert server.used == 0
    assert server.most_used <= limit
    ends = [process.ended_at for process in everybody]
    ideal = processes * tasks * seconds / limit
    return Result(max(ends) / ideal, max(ends) / min(ends), server.requests / max(ends))
