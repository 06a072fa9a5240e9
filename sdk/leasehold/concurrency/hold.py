"""Holding slots for the time of a block: `concurrency()`, and what tasks use below it.

A `Hold` is one wait and one lease, for `with` and `async with` alike. `concurrency` is the face
that flow authors know: it makes a `Hold` each time it is entered.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from uuid import UUID

from leasehold.client.names import check_limit_name
from leasehold.client.wire import LONGEST_LEASE_SECONDS, SHORTEST_LEASE_SECONDS, Holder, SlotRequest
from leasehold.concurrency import crash, process
from leasehold.concurrency.acquisition import Acquisition, OnLeaseLost
from leasehold.concurrency.lease import Lease, held, holding
from leasehold.concurrency.waiting import wait_async, wait_sync, waker
from leasehold.exceptions import ConcurrencySlotAcquisitionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from leasehold.client.wire import Mode
    from leasehold.concurrency.keeper import Keeper

F = TypeVar("F", bound="Callable[..., Any]")

log = logging.getLogger("leasehold.concurrency")

_told_missing: set[str] = set()

_HOLDER_TYPES: Final = ("task_run", "flow_run", "deployment")


def current_lease() -> Lease | None:
    """Give the lease that the running code holds, the innermost one; None when it holds none.

    Example:
        >>> @task(tags=["database"])                    # doctest: +SKIP
        ... def load(rows):
        ...     for row in rows:
        ...         current_lease().check()             # stop as soon as the slot is lost
        ...         insert(row)
    """
    return next((lease for lease in reversed(holding()) if lease.limits), None)


class Hold:
    """One wait for slots, and the lease that comes of it.

    `start` begins to wait and returns at once; entering the block waits for the rest. So a runner
    can wait without a worker: it starts the hold, and a worker enters it when it is granted.

    Args:
        acquisition: what is wanted, and for whom.
    """

    # Known to `__del__` however far making one has come.
    _keeper: Keeper | None = None
    _over = False

    def __init__(self, acquisition: Acquisition) -> None:
        self.acquisition = acquisition
        self._scope: Any = None
        self._token: Any = None

    @property
    def future(self) -> Any:
        """Done when the wait is over."""
        return self.acquisition.future

    @property
    def has_started(self) -> bool:
        """Whether the wait has begun."""
        return self._keeper is not None

    def start(self) -> None:
        """Begin to wait.

        Raises:
            SettingsError: a setting that cannot be used.
        """
        if self._keeper is not None:
            return
        self._keeper = process.current_keeper()
        request = self.acquisition.request
        if self._keeper.unlimited.knows(request.names):
            self.future.set_result(Lease(request, None, 0.0, who=self.acquisition.who))
        else:
            self._keeper.acquire(self.acquisition)

    def abandon(self) -> None:
        """Stop waiting, or give back what was granted and never entered."""
        if self._keeper is not None:
            if self.acquisition.lease is not None:
                self.acquisition.lease.end()
            self._keeper.abandon(self.acquisition)
        self._over = True

    def __del__(self) -> None:
        # Ctrl-C may come between the grant and the block that would give it back, or just when the
        # block ends, and a generator may never be finished: slots that nobody can reach any more
        # must not be kept alive. So this is over only when the keeper knows.
        if not self._over:
            self.abandon()

    def __enter__(self) -> Lease:
        try:
            self.start()
            return self._entered(wait_sync(self.future))
        except BaseException:
            self._interrupted()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            lease = self._left()
        except BaseException:
            self._interrupted()
            raise
        if lease.lost_reason is not None and self._cancels and error is None:
            raise lease.lost_error()

    async def __aenter__(self) -> Lease:
        try:
            self.start()
            scope = self._scope_of_loss()
            lease: Lease = await wait_async(self.future)
            if scope is not None:
                self._scope = scope.__enter__()
            return self._entered(lease)
        except BaseException:
            self._interrupted()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        try:
            lease = self._left()
        except BaseException:
            self._interrupted()
            raise
        swallowed = False
        if self._scope is not None:
            swallowed = bool(self._scope.__exit__(kind, error, traceback))
        if lease.lost_reason is not None and self._cancels and (error is None or swallowed):
            raise lease.lost_error() from error
        return swallowed

    @property
    def _cancels(self) -> bool:
        return self.acquisition.on_lost == "cancel"

    def _scope_of_loss(self) -> Any:
        """Make what the keeper's thread cancels when the lease is lost; None where nothing is."""
        if not self._cancels:
            return None
        import anyio

        scope = anyio.CancelScope()
        cancel = waker(scope.cancel)
        self.acquisition.on_cancel = lambda _: cancel()
        return scope

    def _entered(self, lease: Lease) -> Lease:
        crash.prepare()
        self._token = held.set((*held.get(), lease))
        return lease

    def _left(self) -> Lease:
        lease: Lease = self.future.result()
        if self._keeper is not None:
            self._keeper.release(lease)
        self._over = True
        try:
            held.reset(self._token)
        except ValueError:  # left in another context than entered, as async fixtures do
            held.set(tuple(other for other in held.get() if other is not lease))
        return lease

    def _interrupted(self) -> None:
        """Take in that entering or leaving the block has failed, at whatever line."""
        self.abandon()
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.__exit__(None, None, None)


class concurrency(contextlib.ContextDecorator):  # noqa: N801 - the name flow authors know
    """Hold slots of global concurrency limits for the time of a block.

    One object for `with` and `async with`, and a decorator for `def` and `async def`.

    Example:
        >>> with concurrency("database", timeout_seconds=30):       # doctest: +SKIP
        ...     query()
        >>> async with concurrency(["api", "gpu"], occupy=2):       # doctest: +SKIP
        ...     await call()

    Args:
        names: the limits, one or several; slots are taken on all of them or on none. A tag's
            limit is called `tag:<tag>`.
        occupy: slots to take on each limit.
        timeout_seconds: the most to wait, in seconds, the time in the queue included; None: no
            end; 0: only what is free now.
        max_retries: how often to ask again when all slots are taken; None: no end.
        lease_duration: how long the server keeps the slots, in seconds, if this process and its
            heartbeat die; 60 to 86400 (PROTOCOL.md, "Lease path").
        strict: raise when a limit does not exist, instead of a warning.
        holder: who the server lists as holder: a mapping or object with `type` ("task_run",
            "flow_run" or "deployment") and `id` (a UUID).
        raise_on_lease_renewal_failure: True is `on_lease_lost="cancel"`, False is "regain"; None
            follows `strict`, as with Prefect.
        on_lease_lost: "regain": take a new lease in the background and go on; "cancel": cancel
            the block (`async with`), or raise at the next `lease.check()` and at its end
            (`with`); "ignore".

    Raises:
        AcquireConcurrencySlotTimeoutError: not within `timeout_seconds`.
        ConcurrencySlotAcquisitionError: out of retries; a limit that does not exist and `strict`;
            a limit that is 0 or smaller than `occupy`.
        ServerError: the server cannot be used, and why.
        LedgerError: the embedded ledger's file cannot be used.
        LeaseLostError: the slots were lost and `on_lease_lost` is "cancel".
        ValueError: an argument out of its bounds.
    """

    def __init__(
        self,
        names: str | Iterable[str],
        occupy: int = 1,
        timeout_seconds: float | None = None,
        max_retries: int | None = None,
        lease_duration: float = 300,
        strict: bool = False,  # noqa: FBT001, FBT002 - Prefect's signature
        holder: Any = None,
        raise_on_lease_renewal_failure: bool | None = None,  # noqa: FBT001 - Prefect's signature
        *,
        on_lease_lost: OnLeaseLost | None = None,
    ) -> None:
        if not SHORTEST_LEASE_SECONDS <= lease_duration <= LONGEST_LEASE_SECONDS:
            raise ValueError(
                f"lease_duration must be {SHORTEST_LEASE_SECONDS:g} to "
                f"{LONGEST_LEASE_SECONDS:g} seconds; it is {lease_duration!r}."
            )
        if max_retries is not None and max_retries < 0:
            raise ValueError(f"max_retries must be 0 or more; it is {max_retries!r}.")
        _check_patience(timeout_seconds)
        cancels = (
            strict if raise_on_lease_renewal_failure is None else raise_on_lease_renewal_failure
        )
        self._request = slot_request(names, occupy, lease_seconds=float(lease_duration))
        self._strict = strict
        self._make = functools.partial(
            Acquisition,
            who="a block of concurrency()",
            holder=None if holder is None else _holder(holder),
            timeout_seconds=timeout_seconds,
            max_retries=max_retries,
            on_lost=on_lease_lost or ("cancel" if cancels else "regain"),
        )
        self._entered: list[Hold] = []

    def __enter__(self) -> Lease:
        if self._request is None:
            return _unlimited()
        hold = Hold(self._make(self._request))
        try:
            lease = hold.__enter__()
            self._check(hold, lease)
        except BaseException:
            self._interrupted(hold)
            raise
        return lease

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._request is not None:
            self._leave().__exit__(kind, error, traceback)

    async def __aenter__(self) -> Lease:
        if self._request is None:
            return _unlimited()
        hold = Hold(self._make(self._request))
        try:
            lease = await hold.__aenter__()
            self._check(hold, lease)
        except BaseException:
            self._interrupted(hold)
            raise
        return lease

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._request is None:
            return False
        return await self._leave().__aexit__(kind, error, traceback)

    def __call__(self, func: F) -> F:
        """Hold the slots during every call of a function."""
        if not inspect.iscoroutinefunction(func):
            return super().__call__(func)

        @functools.wraps(func)
        async def holding(*args: Any, **kwargs: Any) -> Any:
            async with self._recreate_cm():
                return await func(*args, **kwargs)

        return cast("F", holding)

    def _recreate_cm(self) -> concurrency:
        """Make another for each call: what is forgotten in an interruption ends with it."""
        fresh = copy.copy(self)
        fresh._entered = []  # noqa: SLF001 - our own class
        return fresh

    def _check(self, hold: Hold, lease: Lease) -> None:
        check_missing(lease.request.names, lease.limits, strict=self._strict)
        self._entered.append(hold)

    def _interrupted(self, hold: Hold) -> None:
        """Take in that entering the block has failed, at whatever line."""
        if hold in self._entered:
            self._entered.remove(hold)
        hold._interrupted()  # noqa: SLF001 - our own file

    def _leave(self) -> Hold:
        # Entered by several threads at once, each must leave what it entered itself.
        mine = held.get()
        for hold in reversed(self._entered):
            if hold.future.result() in mine:
                self._entered.remove(hold)
                return hold
        return self._entered.pop()


def slot_request(
    names: str | Iterable[str],
    occupy: int = 1,
    *,
    mode: Mode = "concurrency",
    lease_seconds: float = SHORTEST_LEASE_SECONDS,
) -> SlotRequest | None:
    """Check what is wanted; None when nothing is.

    Raises:
        InvalidTagError: a name that no server accepts.
        ValueError: `occupy` is not a whole number above 0.
    """
    if isinstance(occupy, bool) or not isinstance(occupy, int) or occupy < 1:
        raise ValueError(f"occupy must be a whole number above 0; it is {occupy!r}.")
    wanted = [names] if isinstance(names, str) else list(names)
    checked = sorted({check_limit_name(name) for name in wanted})
    return SlotRequest(tuple(checked), occupy, mode, lease_seconds) if checked else None


def check_missing(names: Sequence[str], existing: Iterable[str], *, strict: bool) -> None:
    """Tell about limits that do not exist: an error when `strict`, else one warning each.

    Raises:
        ConcurrencySlotAcquisitionError: a limit does not exist, and `strict`.
    """
    missing = sorted(set(names) - set(existing))
    if missing and strict:
        raise ConcurrencySlotAcquisitionError(
            f"Concurrency limits {missing!r} do not exist, and strict=True was asked for. Create "
            f"them first: leasehold gcl create {missing[0]} --limit N",
            names=missing,
        )
    fresh = [name for name in missing if name not in _told_missing]
    if fresh:
        _told_missing.update(fresh)
        log.warning("Concurrency limits %r do not exist: nothing limits the work there.", fresh)


def rate_limit_hold(
    names: str | Iterable[str], occupy: int, timeout_seconds: float | None
) -> Hold | None:
    """Prepare `rate_limit()`: a hold that is used up instead of given back."""
    _check_patience(timeout_seconds)
    request = slot_request(names, occupy, mode="rate_limit")
    if request is None:
        return None
    return Hold(Acquisition(request, who="rate_limit()", timeout_seconds=timeout_seconds))


def _check_patience(timeout_seconds: float | None) -> None:
    if timeout_seconds is not None and timeout_seconds < 0:
        raise ValueError(f"timeout_seconds must be 0 or more; it is {timeout_seconds!r}.")


def _holder(holder: Any) -> Holder:
    get = holder.get if isinstance(holder, dict) else functools.partial(getattr, holder)
    try:
        kind, identity = get("type"), get("id")
        identity = identity if isinstance(identity, UUID) else UUID(str(identity))
    except (AttributeError, ValueError):
        kind = identity = None
    if kind not in _HOLDER_TYPES or identity is None:
        raise ValueError(
            f"holder must have a type ({', '.join(_HOLDER_TYPES)}) and an id (a UUID); it is "
            f"{holder!r}."
        )
    return Holder(identity, kind)


def _unlimited() -> Lease:
    return Lease(SlotRequest(()), None, 0.0)
