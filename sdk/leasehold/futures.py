"""What `submit` and `map` give: the run's outcome, when there is one.

The names are Prefect's, so that annotations port with the first word of their import.
"""

from __future__ import annotations

import concurrent.futures
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from leasehold import deadlocks
from leasehold.concurrency.waiting import wait_async, wait_sync
from leasehold.forks import awaited_lock

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from leasehold.context import TaskRunContext
    from leasehold.runs import TaskRun
    from leasehold.states import State

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

# Futures are many and their changes are short, so that one lock serves all of them.
_lock = awaited_lock()


class PrefectFuture(Generic[R_co]):
    """The outcome of a submitted task, which may still be to come.

    Example:
        >>> future = load.submit("a.csv")               # doctest: +SKIP
        >>> rows = future.result(timeout=60)
    """

    __slots__ = ("__weakref__", "_callbacks", "_context", "_ended", "_run")

    def __init__(self, run: TaskRun) -> None:
        self._run: TaskRun | None = run
        self._context: TaskRunContext = run.context
        self._ended = False
        self._callbacks: list[Callable[[PrefectFuture[R_co]], object]] | None = None

    @property
    def task_run_id(self) -> uuid.UUID:
        """The run's id."""
        return self._context.id

    @property
    def name(self) -> str:
        """The run's name."""
        return self._context.name

    @property
    def state(self) -> State[Any]:
        """What is known of the run now."""
        return self._context.state

    def done(self) -> bool:
        """Whether the run has ended."""
        return self._ended

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the run has ended, or for `timeout` seconds, whichever is first.

        Raises:
            DeadlockError: it never can, because its slots are held by those who wait for it.
        """
        _wait([self], timeout)

    async def wait_async(self) -> None:
        """Wait until the run has ended, without blocking the event loop; see `wait`."""
        await wait_all_async([self])

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R_co:  # noqa: FBT001, FBT002 - Prefect's signature
        """Wait for the run's result.

        Args:
            timeout: the most to wait, in seconds; None: no end.
            raise_on_failure: False: give what the run raised instead of raising it.

        Raises:
            TimeoutError: the run has not ended in time; it goes on.
            DeadlockError: it never can, because its slots are held by those who wait for it.
            Exception: what the run raised.
        """
        if not _wait([self], timeout):
            raise TimeoutError(f"{self.name} has not ended within {timeout:g} s.")
        value: R_co = self.state.outcome(raise_on_failure=raise_on_failure)
        return value

    async def result_async(self, raise_on_failure: bool = True) -> R_co:  # noqa: FBT001, FBT002
        """Wait for the run's result without blocking the event loop; see `result`."""
        await self.wait_async()
        value: R_co = self.state.outcome(raise_on_failure=raise_on_failure)
        return value

    def add_done_callback(self, function: Callable[[PrefectFuture[R_co]], object]) -> None:
        """Have `function` called with this future when the run has ended."""
        with _lock:
            if not self._ended:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(function)
                return
        function(self)

    def __repr__(self) -> str:
        return f"<PrefectFuture {self.name}: {self.state.name}>"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError(f"The future of {self.name} cannot be pickled: pass its result instead.")

    # What follows is the run's.

    @property
    def run(self) -> TaskRun | None:
        """The run, until it has ended."""
        return self._run

    def end(self) -> None:
        """Wake whoever waits; the run's state is its last one."""
        with _lock:
            if self._ended:
                return
            self._ended = True
            callbacks, self._callbacks = self._callbacks, None
            self._run = None
        for function in callbacks or ():
            function(self)

    def forget_callback(self, function: Callable[[PrefectFuture[R_co]], object]) -> None:
        """Do not call `function` after all."""
        with _lock:
            if self._callbacks and function in self._callbacks:
                self._callbacks.remove(function)


class PrefectFutureList(list[PrefectFuture[R]]):
    """The futures of `map`, in the order of its inputs."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all runs have ended, or for `timeout` seconds, whichever is first."""
        _wait(self, timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[R]:  # noqa: FBT001, FBT002
        """Wait for all results, in the order of the inputs.

        Args:
            timeout: the most to wait for all of them together, in seconds; None: no end.
            raise_on_failure: False: give what a run raised in its place.

        Raises:
            TimeoutError: not all runs have ended in time; they go on.
            Exception: what the first failed run raised.
        """
        ends_at = None if timeout is None else time.monotonic() + timeout
        return [
            future.result(
                None if ends_at is None else max(ends_at - time.monotonic(), 0.0),
                raise_on_failure=raise_on_failure,
            )
            for future in self
        ]


class DoneAndNotDoneFutures(tuple[set[PrefectFuture[R]], set[PrefectFuture[R]]]):
    """What `wait` gives: two sets, also by name."""

    # No NamedTuple: before Python 3.11 these cannot be generic.
    __slots__ = ()

    @property
    def done(self) -> set[PrefectFuture[R]]:
        """The futures whose runs have ended."""
        return self[0]

    @property
    def not_done(self) -> set[PrefectFuture[R]]:
        """The others."""
        return self[1]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(done={self.done!r}, not_done={self.not_done!r})"


def wait(
    futures: Iterable[PrefectFuture[R]], timeout: float | None = None
) -> DoneAndNotDoneFutures[R]:
    """Wait until all runs have ended, or for `timeout` seconds, whichever is first.

    Example:
        >>> done, not_done = wait(load.map(paths), timeout=60)      # doctest: +SKIP
    """
    every = list(futures)
    _wait(every, timeout)
    done = {future for future in every if future.done()}
    return DoneAndNotDoneFutures((done, set(every) - done))


def as_completed(
    futures: Iterable[PrefectFuture[R]], timeout: float | None = None
) -> Iterator[PrefectFuture[R]]:
    """Give futures in the order in which their runs end.

    Args:
        futures: whose runs to wait for.
        timeout: the most to wait for all of them together, in seconds; None: no end.

    Raises:
        TimeoutError: not all runs have ended in time; they go on.
        DeadlockError: none of them ever can, because their slots are held by those who wait for it.
    """
    every = list(dict.fromkeys(futures))
    ends_at = None if timeout is None else time.monotonic() + timeout
    ended: queue.SimpleQueue[PrefectFuture[R]] = queue.SimpleQueue()
    for future in every:
        future.add_done_callback(ended.put)
    left = dict.fromkeys(every)
    while left:
        future = _next_ended(ended, list(left), ends_at, len(every))
        del left[future]
        yield future


def _next_ended(
    ended: queue.SimpleQueue[PrefectFuture[R]],
    left: Sequence[PrefectFuture[R]],
    ends_at: float | None,
    count: int,
) -> PrefectFuture[R]:
    with deadlocks.watched(left, one_is_enough=True) as look:
        while True:
            remaining = None if ends_at is None else max(ends_at - time.monotonic(), 0.0)
            pause = _pause(remaining)
            try:
                return ended.get(timeout=pause)
            except queue.Empty:
                if remaining is not None and pause == remaining:
                    raise TimeoutError(
                        f"{len(left)} of {count} runs have not ended in time."
                    ) from None
            if look is not None:
                look()


def _pause(remaining: float | None) -> float:
    """Say how long to wait at a time: until the end, or until the next look around.

    Outside of tasks there is nothing to see, but then a signal is not missed for long.
    """
    return deadlocks.LOOK_SECONDS if remaining is None else min(deadlocks.LOOK_SECONDS, remaining)


async def wait_all_async(futures: Sequence[PrefectFuture[Any]]) -> None:
    """Wait until all runs have ended, without blocking the event loop."""
    gate = _Gate(futures)
    with deadlocks.watched(futures) as look, gate:
        if look is None:
            await wait_async(gate.future)
            return
        import anyio

        while not gate.future.done():
            with anyio.move_on_after(deadlocks.LOOK_SECONDS):
                await wait_async(gate.future)
            look()


def _wait(futures: Sequence[PrefectFuture[Any]], timeout: float | None) -> bool:
    """Wait for all; False when they have not ended in time."""
    if all(future.done() for future in futures):
        return True
    ends_at = None if timeout is None else time.monotonic() + timeout
    gate = _Gate(futures)
    with deadlocks.watched(futures) as look, gate:
        while True:
            left = None if ends_at is None else max(ends_at - time.monotonic(), 0.0)
            pause = _pause(left)
            try:
                wait_sync(gate.future, pause)
            except concurrent.futures.TimeoutError:
                if left is not None and pause == left:
                    return False
            else:
                return True
            if look is not None:
                look()


class _Gate:
    """Opens when all of some futures are done."""

    def __init__(self, futures: Sequence[PrefectFuture[Any]]) -> None:
        self.future: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._futures = futures
        self._left = len(futures)
        self._lock = threading.Lock()
        if not futures:
            self.future.set_result(None)

    def __enter__(self) -> None:
        for future in self._futures:
            future.add_done_callback(self._one_is_done)

    def __exit__(self, *_: object) -> None:
        if not self.future.done():
            for future in self._futures:
                future.forget_callback(self._one_is_done)

    def _one_is_done(self, _: PrefectFuture[Any]) -> None:
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            self.future.set_result(None)
