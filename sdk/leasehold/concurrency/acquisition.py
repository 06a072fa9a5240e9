"""One piece of work that wants slots, from asking to the end of its wait."""

from __future__ import annotations

import concurrent.futures
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from leasehold.exceptions import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from leasehold.client.wire import Holder, SlotRequest
    from leasehold.concurrency.lease import Lease
    from leasehold.concurrency.turnstile import Waiter

OnLeaseLost = Literal["regain", "cancel", "ignore"]

#: What a loss means for the work, in words.
CONSEQUENCES: dict[OnLeaseLost, str] = {
    "regain": "It goes on, and gets a new one as soon as there is one.",
    "cancel": "It is cancelled.",
    "ignore": "It goes on without.",
}


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

    def settle(self, lease: Lease) -> None:
        """End the wait: the work has what it wants, for the first time or after a loss."""
        self.stop_timer()
        if self.lease is None:
            self.lease = lease
        elif self.lease is not lease:
            self.lease.regained(lease)
        if not self.future.done():
            self.future.set_result(lease)

    def fail(self, error: BaseException) -> None:
        """End the wait: the work cannot have it."""
        self.stop_timer()
        if not self.future.done():
            self.future.set_exception(error)

    def stop_timer(self) -> None:
        """Forget the time-out: the wait is over."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def timed_out(self) -> AcquireConcurrencySlotTimeoutError:
        """Build the error for a wait that took too long."""
        assert self.timeout_seconds is not None
        return AcquireConcurrencySlotTimeoutError(
            f"{self.who} got no slot of {self.request.label} within {self.timeout_seconds:g} s.",
            names=self.request.names,
            timeout_seconds=self.timeout_seconds,
        )

    def out_of_retries(self) -> ConcurrencySlotAcquisitionError:
        """Build the error for work that was told "full" too often."""
        return self._without(f"all are taken, after {self.max_retries} retries")

    def going_away(self) -> ConcurrencySlotAcquisitionError:
        """Build the error for work that comes while the process ends."""
        return self._without("the process is ending")

    def _without(self, why: str) -> ConcurrencySlotAcquisitionError:
        return ConcurrencySlotAcquisitionError(
            f"{self.who} got no slot of {self.request.label}: {why}.", names=self.request.names
        )
