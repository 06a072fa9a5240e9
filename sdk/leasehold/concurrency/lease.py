"""A lease's value: until when it may be believed, when to renew it, when it is lost. Pure.

The safety bound (LEASES.md): a grant or renewal that was *sent* at `t` and acknowledged for `D`
seconds may be believed until `t + D - margin`. Rules kept here:

1. the deadline is counted from the send time, so a late reply gains nothing;
2. the holder declares the loss itself, without hearing from the server; but whoever sees that this
   process lives, as the embedded ledger does, keeps its lease for it, and is asked first;
3. the deadline only grows, and a lease that was lost is never revived;
4. renewal starts at about D/3; three attempts fit, and no request may eat more than a third of
   what remains.
"""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from leasehold.exceptions import LeaseLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from leasehold.client.wire import Granted, SlotRequest

#: How much earlier than the server we stop believing, as a share of the duration: 3 s of 60 s.
MARGIN_RATIO: Final = 0.05

#: The first renewal, as a share of the duration: about D/3 (rule 4), jitter included.
RENEW_RATIO: Final = 0.3

#: Renewals at r, 2r and 3r must all come before the deadline (rule 4).
HIGHEST_RENEW_RATIO: Final = (1 - MARGIN_RATIO) / 3

#: Share by which renewals are spread, so that leases taken together are not renewed together.
JITTER_RATIO: Final = 0.05


#: The leases that the running code has entered, the innermost one last. Some may have ended: code
#: that was started in a block may outlive it, and who leaves it may be interrupted. See `holding`.
held: ContextVar[tuple[Lease, ...]] = ContextVar("leasehold_held", default=())


def holding() -> tuple[Lease, ...]:
    """The leases that the running code holds, the innermost one last."""
    return tuple(lease for lease in held.get() if not lease.ended)


def held_names() -> frozenset[str]:
    """The limits of which the running code holds slots."""
    return frozenset(name for lease in holding() for name in lease.limits)


def read_clock() -> float:
    """Read the clock that neither jumps nor stops while the machine sleeps, in seconds."""
    if _BOOTTIME is not None:
        return time.clock_gettime(_BOOTTIME)
    return time.monotonic()


_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", None)


@dataclass(frozen=True, slots=True)
class Term:
    """What may be believed of one lease.

    Example:
        >>> term = Term(seconds=60, sent_at=100)
        >>> term.deadline
        157.0
        >>> term.renewed(sent_at=120).deadline
        177.0

    Args:
        seconds: how long the server keeps the lease after each acknowledged request; infinity where
            slots do not expire.
        sent_at: clock just before that request was sent; the greatest of them.
        renew_ratio: the share of `seconds` after which to renew.

    Raises:
        ValueError: a renewal ratio that leaves fewer than three attempts.
    """

    seconds: float
    sent_at: float
    renew_ratio: float = RENEW_RATIO

    def __post_init__(self) -> None:
        if not 0 < self.renew_ratio <= HIGHEST_RENEW_RATIO:
            raise ValueError(
                f"renew_ratio must be above 0 and at most {HIGHEST_RENEW_RATIO:.4f}, so that "
                f"three attempts fit into a lease; it is {self.renew_ratio!r}."
            )

    @property
    def deadline(self) -> float:
        """The last moment at which the lease may be believed."""
        return self.sent_at + self.seconds * (1 - MARGIN_RATIO)

    def remaining(self, now: float) -> float:
        """Seconds until the deadline; 0 when it has passed."""
        return max(0.0, self.deadline - now)

    def renewed(self, sent_at: float) -> Term:
        """The term after a renewal sent at `sent_at` was acknowledged (rules 1 and 3)."""
        return self if sent_at <= self.sent_at else replace(self, sent_at=sent_at)

    def renew_at(self, jitter: float) -> float:
        """When to send the next renewal; `jitter` is a number from -1 to 1."""
        return self.sent_at + self.seconds * self.renew_ratio * (1 + JITTER_RATIO * jitter)

    def request_seconds(self, now: float, most: float) -> float:
        """How long a renewal sent now may take: at most a third of what remains (rule 4)."""
        return min(most, self.remaining(now) / 3)

    def retry_at(self, now: float, failures: int) -> float:
        """When to try again after `failures` renewals in a row without a clear answer.

        Quickly first, then slower, but never so slowly that fewer than three more would fit.
        """
        pause = min(0.5 * 2.0**failures, self.seconds / 12)
        return now + min(pause, max(self.remaining(now) / 4, 0.1))


class Lease:
    """Slots that this process holds, as the code that runs under them sees them.

    What `with concurrency(...) as lease` and `current_lease()` give. Nothing here does I/O; the
    keeper renews, regains and releases. A held lease cannot be pickled.

    Example:
        >>> with concurrency("database") as lease:       # doctest: +SKIP
        ...     for row in rows:
        ...         lease.check()                        # stop as soon as the slot is lost
        ...         load(row)

    Attributes:
        request: the limits and the number of slots on each.
        who: the work that holds it, as messages call it.
        limits: the limits that exist, with their sizes; empty when nothing limits the work.
        holder_id: the id that the server lists for this lease.
        acquired_at: clock when the slots were taken from the server.
        entered_at: clock when this piece of work got them.
        handed_over: how many times the lease passed from one piece of work to the next.
        last_error: why the last renewal failed; None when it did not.
        guarded: whether a guard outside this process would give the slots back if it crashed.
        guard_key: the number by which the guard knows it.
        ask: called before time alone ends it, to hear of renewals made elsewhere; None: nobody
            makes any.
        seen: whether who granted it sees that this process lives: then time alone ends it not.
    """

    def __init__(
        self,
        request: SlotRequest,
        grant: Granted | None,
        sent_at: float,
        *,
        who: str = "",
        holder_id: UUID | None = None,
        clock: Callable[[], float] = read_clock,
        seen: bool = False,
    ) -> None:
        self.request = request
        self.who = who
        self.holder_id = holder_id
        self.acquired_at = sent_at
        self.entered_at = sent_at
        self.handed_over = 0
        self.last_error: str | None = None
        self.lost_reason: str | None = None
        self.lost_at = 0.0
        self.guarded = False
        self.guard_key = 0
        self.ask: Callable[[], None] | None = None
        self.seen = seen
        self._grant = grant
        self._term = _term(request, grant, sent_at)
        self._clock = clock
        self._ended = False

    @property
    def id(self) -> UUID | None:
        """The server's id of the lease; None where it has none, as before 3.4.9."""
        return None if self._grant is None else self._grant.lease_id

    @property
    def limits(self) -> Mapping[str, int]:
        """The limits that exist, with their sizes; empty when nothing limits the work."""
        return {} if self._grant is None else self._grant.limits

    @property
    def crash_safe(self) -> bool:
        """Whether the slots come back by themselves if this process dies without a word."""
        return self._grant is None or self._grant.renewal is not None or self.guarded

    @property
    def term(self) -> Term:
        """What may be believed of it."""
        return self._term

    @property
    def ended(self) -> bool:
        """Whether the work that held it has ended."""
        return self._ended

    @property
    def lost(self) -> bool:
        """Whether the slots may belong to somebody else by now."""
        if self._grant is None or self._ended:
            return False
        if self._timed_out() and self.lost_reason is None and self.ask is not None:
            self.ask()  # this process stood still, and nobody has read yet what became of it
        return self._timed_out() or self.lost_reason is not None

    def _timed_out(self) -> bool:
        return not self.seen and self._clock() >= self._term.deadline

    def remaining(self) -> float:
        """Seconds for which the slots are certainly ours if no renewal succeeds any more."""
        if self._grant is None:
            return math.inf
        return 0.0 if self.lost else self._term.remaining(self._clock())

    def age(self) -> float:
        """Seconds since this piece of work got its slots."""
        return 0.0 if self._grant is None else self._clock() - self.entered_at

    def remaining_of_grant(self) -> float:
        """Seconds for which a server that has forgotten nothing counts the slots for certain."""
        return self._term.sent_at + self._term.seconds - self._clock()

    def check(self) -> None:
        """Raise when the slots are lost.

        Raises:
            LeaseLostError: with the limits, the reason, and the age of the last renewal.
        """
        if self.lost:
            raise self.lost_error()

    def lost_error(self) -> LeaseLostError:
        """Build the error that `check` raises."""
        age = self._clock() - self._term.sent_at
        reason = self.lost_reason or "no renewal was confirmed in time"
        return LeaseLostError(
            f"The slot of {self.request.label} is not held any more: {reason}. The last renewal "
            f"that the server confirmed was sent {age:.1f} s ago.",
            names=self.request.names,
            reason=reason,
            renewed_seconds_ago=age,
        )

    def __repr__(self) -> str:
        state = "ended" if self._ended else "lost" if self.lost else "held"
        return f"<Lease of {self.request.label}: {state}>"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError(
            f"A held lease ({self.request.label}) cannot be pickled: it belongs to this process."
        )

    # What follows is the keeper's.

    @property
    def grant(self) -> Granted:
        """How to keep it, and how to give it back."""
        assert self._grant is not None
        return self._grant

    def renewed(self, sent_at: float) -> None:
        """Note an acknowledged renewal; one that comes after the loss changes nothing."""
        if self.lost_reason is None:
            self._term = self._term.renewed(sent_at)
            self.last_error = None

    def declare_lost(self, reason: str) -> bool:
        """Note the loss; False when it was noted before or the work has ended (rule 10)."""
        if self._ended or self.lost_reason is not None:
            return False
        self.lost_reason, self.lost_at = reason, self._clock()
        return True

    def regained(self, other: Lease) -> None:
        """Go on under the slots of another lease."""
        self._grant, self._term, self.holder_id = other._grant, other._term, other.holder_id
        self.acquired_at = other.acquired_at
        self.lost_reason = self.last_error = None

    def successor(self, who: str) -> Lease:
        """Make the lease under which the next piece of work holds the same slots."""
        heir = Lease(
            self.request,
            self._grant,
            self.acquired_at,
            who=who,
            holder_id=self.holder_id,
            clock=self._clock,
            seen=self.seen,
        )
        heir._term = self._term
        heir.entered_at, heir.handed_over = self._clock(), self.handed_over + 1
        return heir

    def end(self) -> None:
        """Note that the work has ended."""
        self._ended = True


def _term(request: SlotRequest, grant: Granted | None, sent_at: float) -> Term:
    expires = grant is not None and grant.renewal is not None
    return Term(request.lease_seconds if expires else math.inf, sent_at)
