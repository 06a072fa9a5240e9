"""Who goes next, and when to ask the server. Pure: no I/O, no clock, no threads.

Work that wants the same slots waits in one queue, first in, first out. Rules:

1. One question at a time per queue: the head's. Its grant goes to whoever is the head by then.
2. Nobody asks while this process itself fills a limit; a local release lets the head ask at once.
   As what we know may be out of date (a limit was raised, or switched off), the head asks all the
   same now and then.
3. While others hold the slots the head asks again at min(Retry-After, `poll_seconds`) at the
   latest.
4. A queue may be passed by another one that shares a limit with it, but not for ever: a head that
   has waited for long gets the slots that fall free kept for it, in phases that grow with its
   waiting (5 s of being passed, 10 s of insisting, 20 s, 40 s, ...). So what it lacks piles up for
   it in the end, and a limit is never kept idle for much longer than somebody has waited.
5. A lease passes straight to the next in its own queue, unless a head elsewhere insists, or it is
   time that other processes have a chance: see `sharing`.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from leasehold.concurrency.sharing import Pace, Share

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from leasehold.client.wire import SlotRequest

T = TypeVar("T")

#: The shortest pause between two questions of one queue.
SHORTEST_POLL_SECONDS: Final = 0.02

#: After a failure comes a usual pause, doubled with each failure in a row, up to this.
LONGEST_BACKOFF_SECONDS: Final = 5.0

#: How often to ask although our own process fills the limit: after this long, then half as often
#: each time, up to the longest.
FIRST_PROBE_SECONDS: Final = 1.0
LONGEST_PROBE_SECONDS: Final = 15.0

#: So many requests are remembered of which this process has no slots now.
_MOST_SHARES: Final = 1024

#: How long a head lets itself be passed before it insists for the first time.
PATIENCE_SECONDS: Final = 5.0

_UNBOUNDED: Final = math.inf


@dataclass(eq=False, slots=True)
class Waiter(Generic[T]):
    """One piece of work in a queue.

    Attributes:
        payload: whatever the caller wants back.
        joined_at: clock when it began to wait.
        retries_left: how often it may still be told "full"; None: without end.
        told: whether it was told that it has to wait.
    """

    payload: T
    joined_at: float
    retries_left: int | None = None
    told: bool = False

    def insists(self, now: float) -> bool:
        """Whether slots are kept for it now (rule 4)."""
        return self._phase(now) % 2 == 1

    def phase_ends(self, now: float) -> float:
        """When `insists` changes next."""
        return self.joined_at + PATIENCE_SECONDS * (2.0 ** (self._phase(now) + 1) - 1)

    def _phase(self, now: float) -> int:
        return int(math.log2(max(now - self.joined_at, 0.0) / PATIENCE_SECONDS + 1))


@dataclass(eq=False, slots=True)
class Queue(Generic[T]):
    """Those who want the same slots, and what is known about asking for them."""

    request: SlotRequest
    serial: int
    waiters: OrderedDict[Waiter[T], None] = field(default_factory=OrderedDict)
    asking: bool = False
    ask_at: float = -math.inf
    probe_at: float = math.inf
    probes: int = 0
    failures: int = 0

    @property
    def head(self) -> Waiter[T] | None:
        """Who is next."""
        return next(iter(self.waiters), None)

    def take(self) -> Waiter[T] | None:
        """Take the head out."""
        return self.waiters.popitem(last=False)[0] if self.waiters else None


class Turnstile(Generic[T]):
    """All queues of a process that wait at one server.

    Args:
        poll_seconds: the longest pause between two questions (rule 3).
        jitter: gives a number from 0 to 1, to spread questions of several processes.
        handover_seconds: the longest that a lease passes on before other processes have a chance
            (rule 5); 0: leases never pass on.
    """

    def __init__(
        self, *, poll_seconds: float, jitter: Callable[[], float], handover_seconds: float = 5.0
    ) -> None:
        self._poll_seconds = poll_seconds
        self._pace = Pace(handover_seconds, poll_seconds, jitter)
        self._shares: OrderedDict[SlotRequest, Share] = OrderedDict()
        self._jitter = jitter
        self._queues: dict[SlotRequest, Queue[T]] = {}
        self._serial = 0
        self._held: Counter[str] = Counter()
        self._sizes: dict[str, float] = {}

    # -- coming and going

    def join(self, request: SlotRequest, waiter: Waiter[T], *, first: bool = False) -> int:
        """Stand at the end of the queue for `request`, or at its head; says how many are ahead."""
        queue = self._queues.get(request)
        if queue is None:
            self._serial += 1
            queue = self._queues[request] = Queue(request, self._serial)
            share = self._shares.get(request)
            if share is not None and waiter.retries_left != 0:
                queue.ask_at = share.rests_until
        queue.waiters[waiter] = None
        if first:
            queue.waiters.move_to_end(waiter, last=False)
        return 0 if first else len(queue.waiters) - 1

    def leave(self, request: SlotRequest, waiter: Waiter[T]) -> bool:
        """Stop waiting; False when it was not waiting any more."""
        queue = self._queues.get(request)
        if queue is None or waiter not in queue.waiters:
            return False
        del queue.waiters[waiter]
        self._tidy(queue)
        return True

    def waiting(self) -> Iterator[Queue[T]]:
        """All queues with somebody in them."""
        return (queue for queue in self._queues.values() if queue.waiters)

    def held(self, name: str) -> int:
        """How many slots of a limit this process holds or is asking for."""
        return self._held[name]

    def size(self, name: str) -> float | None:
        """The limit's size as last heard; None: not known."""
        return self._sizes.get(name)

    # -- asking

    def asks(self, now: float) -> list[Queue[T]]:
        """Say which queues' heads are to ask now, and note that they do."""
        kept: Counter[str] = Counter()
        asking = []
        for queue in self._by_age():
            if queue.asking:
                continue
            if self._may_ask(queue, kept, now):
                queue.asking = True
                queue.probe_at = math.inf
                self._count(queue.request, +1)
                asking.append(queue)
                continue
            self._keep(queue, kept, now)
        return asking

    def wake_at(self, now: float) -> float:
        """When to call `asks` again if nothing else happens; infinity: never."""
        times = [math.inf]
        for queue in self._queues.values():
            head = queue.head
            if head is None or queue.asking:
                continue
            times.append(queue.ask_at if queue.ask_at > now else queue.probe_at)
            if len(self._queues) > 1:
                times.append(head.phase_ends(now))
        return min(times)

    # -- what the server said

    def heard_after(self, seconds: float) -> None:
        """Learn how long the server takes for an answer."""
        self._pace.heard_after(seconds)

    def granted(
        self, queue: Queue[T], limits: Mapping[str, int], now: float, *, usable: bool = True
    ) -> Waiter[T] | None:
        """Take in a grant; None: nobody can use it any more, so give it back."""
        self._answered(queue)
        held, share = self._most_held(queue.request), self._share(queue.request, now)
        queue.ask_at = share.granted(held, now, first=held <= queue.request.slots)
        self._count(queue.request, -1, names=set(queue.request.names) - limits.keys())
        for name, size in limits.items():
            # More than the limit's size, granted: it is switched off, or its slots decay.
            over = self._held[name] > size
            self._sizes[name] = _UNBOUNDED if over else size
        if queue.request.mode == "rate_limit":
            self._count(queue.request, -1, names=limits)
        waiter = queue.take() if usable else None
        self._tidy(queue)
        return waiter

    def full(self, queue: Queue[T], retry_after: float | None, now: float) -> Waiter[T] | None:
        """Take in "all slots are taken"; gives back a waiter that is out of retries."""
        self._answered(queue)
        self._count(queue.request, -1)
        head = queue.head
        pause = self._share(queue.request, now).refused(
            self._most_held(queue.request),
            now,
            by_others=self._fits(queue.request, Counter()),  # it is not full of what we hold
        )
        for name in queue.request.names:
            if self._sizes.get(name) == _UNBOUNDED:
                del self._sizes[name]
        # Whoever counts refusals, or waits for slots to decay, gains nothing by asking often.
        patient = head is not None and head.retries_left is None
        if not patient or queue.request.mode == "rate_limit":
            pause = self._poll_seconds if retry_after is None else retry_after
        elif retry_after is not None:
            pause = min(pause, retry_after)
        pause = min(max(pause, SHORTEST_POLL_SECONDS), self._poll_seconds)
        queue.ask_at = now + pause * (1 - 0.3 * self._jitter())
        if head is None or head.retries_left is None:
            self._tidy(queue)
            return None
        head.retries_left -= 1
        if head.retries_left >= 0:
            return None
        queue.take()
        self._tidy(queue)
        return head

    def failed(
        self,
        queue: Queue[T],
        now: float,
        retry_after: float | None = None,
        *,
        latest: float = math.inf,
    ) -> None:
        """Take in "nobody knows": ask again later, but at `latest`, when patience ends."""
        failures = queue.failures + 1
        self._answered(queue)
        self._count(queue.request, -1)
        queue.failures = failures
        pause = min(self._pace.pause(0) * 2 ** min(failures - 1, 20), LONGEST_BACKOFF_SECONDS)
        if retry_after is not None:
            pause = min(max(pause, retry_after), LONGEST_BACKOFF_SECONDS)
        queue.ask_at = min(now + pause * (1 - 0.3 * self._jitter()), latest)
        self._tidy(queue)

    def closed(self, queue: Queue[T]) -> list[Waiter[T]]:
        """Take in an answer that is the same for all who wait here; gives all of them back."""
        self._answered(queue)
        self._count(queue.request, -1)
        return self.dissolve(queue)

    def dissolve(self, queue: Queue[T]) -> list[Waiter[T]]:
        """Send everybody in a queue away."""
        waiters = list(queue.waiters)
        queue.waiters.clear()
        self._tidy(queue)
        return waiters

    # -- slots that come back

    def pass_on(self, request: SlotRequest, now: float, taken_at: float) -> Waiter[T] | None:
        """Choose who gets a lease that just fell free; None: give it back (rule 5).

        Args:
            request: whose lease.
            now: the clock.
            taken_at: clock when it was taken from the server.
        """
        queue = self._queues.get(request)
        if queue is None or not queue.waiters:
            return None
        if not self._share(request, now).passes_on(self._most_held(request), now, taken_at):
            return None
        for other in self._queues.values():
            head = other.head
            if other is queue or head is None or not _overlap(other.request, request):
                continue
            if head.insists(now):
                return None
        waiter = queue.take()
        self._tidy(queue)
        return waiter

    def released(self, request: SlotRequest, names: Collection[str], now: float) -> None:
        """Take in that the server has the slots back.

        Whoever waits for them here may ask at once or, where others are to have a chance, soon.
        """
        self._count(request, -1, names=names)
        share = self._share(request, now)
        share.released(now)
        for queue in self._queues.values():
            if not set(names).isdisjoint(queue.request.names):
                pausing_until = queue.ask_at if queue.failures else -math.inf
                queue.ask_at = max(share.rests_until, pausing_until)

    # -- inside

    def _share(self, request: SlotRequest, now: float) -> Share:
        share = self._shares.get(request)
        if share is None:
            share = self._shares[request] = Share(self._pace, now)
            if len(self._shares) > _MOST_SHARES:
                self._shares.popitem(last=False)
        return share

    def _most_held(self, request: SlotRequest) -> int:
        return max((self._held[name] for name in request.names), default=0)

    def _may_ask(self, queue: Queue[T], kept: Counter[str], now: float) -> bool:
        head = queue.head
        if head is None or now < queue.ask_at:
            return False
        if self._fits(queue.request, kept) or head.retries_left is not None:
            queue.probes = 0
            return True
        if queue.probe_at == math.inf:
            pause = min(FIRST_PROBE_SECONDS * 2.0**queue.probes, LONGEST_PROBE_SECONDS)
            queue.probe_at = now + pause
        if now < queue.probe_at:
            return False
        queue.probes += 1
        return True

    def _fits(self, request: SlotRequest, kept: Counter[str]) -> bool:
        return all(
            self._held[name] + kept[name] + request.slots <= self._sizes.get(name, _UNBOUNDED)
            for name in request.names
        )

    @staticmethod
    def _keep(queue: Queue[T], kept: Counter[str], now: float) -> None:
        if queue.head is not None and queue.head.insists(now):
            for name in queue.request.names:
                kept[name] += queue.request.slots

    def _by_age(self) -> list[Queue[T]]:
        waiting = [queue for queue in self._queues.values() if queue.waiters]
        return sorted(
            waiting, key=lambda queue: (next(iter(queue.waiters)).joined_at, queue.serial)
        )

    def _answered(self, queue: Queue[T]) -> None:
        queue.asking = False
        queue.failures = 0

    def _count(self, request: SlotRequest, sign: int, names: Collection[str] | None = None) -> None:
        for name in request.names if names is None else names:
            self._held[name] += sign * request.slots
            if not self._held[name]:
                del self._held[name]

    def _tidy(self, queue: Queue[T]) -> None:
        if not queue.waiters and not queue.asking:
            self._queues.pop(queue.request, None)


def _overlap(one: SlotRequest, other: SlotRequest) -> bool:
    return not set(one.names).isdisjoint(other.names)
