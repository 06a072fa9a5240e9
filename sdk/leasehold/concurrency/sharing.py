"""How processes share slots, although none knows of the others. Pure: no I/O, no clock.

No server tells who waits, and a question that is refused leaves no trace on it. So who gets a slot
that falls free is chance, and what can be done is to make the chances fair and frequent:

1. A process learns that others hold slots when it is refused although it does not hold all of them
   itself. It believes that for `MET_SECONDS`.
2. Where others were met, a lease is used for a short while, then given back: for a seventh of
   `handover_seconds` at most, and for less where the process has several. After each change it
   waits before it asks for another: for longer where it has several. So whoever has few slots keeps
   them, and asks first for those that fall free, and the shares become equal.
3. Where nobody was met, one slot at a time is *offered*: given back, and left alone for a moment.
   Each offer that nobody took makes the time until the next one two and a half times as long, up
   to `handover_seconds`.
4. Whoever is refused asks again soon, then less and less often.
5. All of these times are multiples of the server's round trip where that is long. So a server that
   is slow, or that many processes ask, is asked less.

The numbers come from a simulation of 2 to 40 processes: with them neither idle slots nor unequal
shares cost much, for tasks of 0.02 to 2 s and limits of 1 to 100.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: How long others are believed to be there after they were met.
MET_SECONDS: Final = 2.0

#: After what share of `handover_seconds` the first slot is offered.
FIRST_RATIO: Final = 0.02

#: By how much longer it takes until the next offer, if nobody took one.
OFFER_GROWTH: Final = 2.5

#: How long an offered slot is left alone, as a share of the time before.
OFFER_RATIO: Final = 0.07

#: The pause between two questions of a process without slots, in round trips, and its least.
PAUSE_TRIPS: Final = 2
SHORTEST_PAUSE_SECONDS: Final = 0.02

#: By how much of it each slot that the process has makes the pause longer.
POLITENESS: Final = 2

#: The pause in any case, as a share of the time since the first refusal in a row.
PATIENCE_RATIO: Final = 0.05

#: Where others were met a lease is used for so many round trips, but for no longer than this share
#: of `handover_seconds`, and no shorter than this. Who has several slots uses each for less: with
#: this power of their number.
USE_TRIPS: Final = 60
USE_RATIO: Final = 0.15
SHORTEST_USE_SECONDS: Final = 0.25
USE_POWER: Final = 1.5

#: It is used in any case for so many round trips for each slot beyond the first few: changing many
#: slots must not become all that the server does.
LEAST_TRIPS: Final = 5
FEW_SLOTS: Final = 2

_SMOOTHING: Final = 0.2


@dataclass(slots=True)
class Pace:
    """What all shares of a process have in common.

    Args:
        handover_seconds: the longest that a slot is used before others get a chance; 0: leases do
            not pass on at all.
        poll_seconds: the longest pause between two questions.
        jitter: gives a number from 0 to 1.

    Attributes:
        round_trip: how long the server takes for an answer, in seconds, smoothed.
    """

    handover_seconds: float
    poll_seconds: float
    jitter: Callable[[], float]
    round_trip: float = 0.0

    def heard_after(self, seconds: float) -> None:
        """Learn from an answer."""
        weight = _SMOOTHING if self.round_trip else 1.0
        self.round_trip += weight * (seconds - self.round_trip)

    def pause(self, held: int) -> float:
        """The pause before the next question of a process with so many slots."""
        pause = max(SHORTEST_PAUSE_SECONDS, PAUSE_TRIPS * self.round_trip)
        return pause * (1 + POLITENESS * held) * (0.5 + self.jitter())

    def use(self, held: int) -> float:
        """How long a process with so many slots uses each where others were met."""
        use = min(USE_TRIPS * self.round_trip, USE_RATIO * self.handover_seconds)
        use = max(use, SHORTEST_USE_SECONDS) * math.pow(2 / (1 + held), USE_POWER)
        least = LEAST_TRIPS * self.round_trip * (held - FEW_SLOTS)
        return min(max(use, least), self.handover_seconds)


@dataclass(slots=True)
class Share:
    """What a process knows of others that want the same slots.

    Args:
        pace: see there.
        began_at: clock when it took the first slot, or when it last offered one.
    """

    pace: Pace
    began_at: float
    rests_until: float = -math.inf
    _rest: float = 0.0
    _met_at: float = -math.inf
    _seconds: float = 0.0
    _offering: bool = False
    _refused_at: float | None = None

    def granted(self, held: int, now: float, *, first: bool) -> float:
        """Take in a grant; says when to ask for more.

        Args:
            held: slots that the process has now.
            now: the clock.
            first: whether it had none before.
        """
        self._refused_at = None
        if self._met(now):
            return now + self.pace.pause(held)
        if self._offering:  # and nobody took it
            longer = min(OFFER_GROWTH * self._until_offer(), self.pace.handover_seconds)
            self.began_at, self._seconds = now, longer
        elif first:
            self.began_at, self._seconds = now, 0.0
        self._offering = False
        return -math.inf

    def refused(self, held: int, now: float, *, by_others: bool) -> float:
        """Take in that all slots are taken; gives the pause before the next question.

        Args:
            held: slots that the process has.
            now: the clock.
            by_others: whether others must have some of them.
        """
        if by_others:
            self._met_at, self._seconds, self._offering = now, 0.0, False
        if self._refused_at is None:
            self._refused_at = now
        return max(self.pace.pause(held), PATIENCE_RATIO * (now - self._refused_at))

    def passes_on(self, held: int, now: float, taken_at: float) -> bool:
        """Say whether a lease may go to the next here; if not, it is to be given back, and rests.

        Args:
            held: slots that the process has, those of the lease included.
            now: the clock.
            taken_at: clock when the lease was taken from the server.
        """
        if self._met(now):
            if now - taken_at < self.pace.use(held):
                return True
            rest = self.pace.pause(held - 1)
        else:
            if not self.pace.handover_seconds:
                return False
            if self._offering or now - self.began_at < self._until_offer():
                return True
            self._offering = True
            rest = max(OFFER_RATIO * self._until_offer(), self.pace.pause(0))
        self._rest = min(rest, self.pace.poll_seconds)
        self.rests_until = max(self.rests_until, now + self._rest)
        return False

    def released(self, now: float) -> None:
        """Take in that slots are back: the rest counts from when others can have them."""
        self.rests_until = max(self.rests_until, now + self._rest)
        self._rest = 0.0

    def _met(self, now: float) -> bool:
        return now - self._met_at < MET_SECONDS

    def _until_offer(self) -> float:
        return self._seconds or FIRST_RATIO * self.pace.handover_seconds
