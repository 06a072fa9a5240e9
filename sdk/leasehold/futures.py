"""What `submit` and `map` give: the run's outcome, when there is one.

The names are Prefect's, so that annotations port with the first word of their import.
"""

from __future__ import annotations

import concurrent.futures
import time
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from leasehold.concurrency.waiting import wait_async
from leasehold.states import Pending, State

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Iterable, Iterator

R = TypeVar("R")


class PrefectFuture(Generic[R]):
    """The outcome of a submitted task, which may still be to come.

    Example:
        >>> future = load.submit("a.csv")               # doctest: +SKIP
        >>> rows = future.result(timeout=60)

    Attributes:
        task_run_id: the run's id.
        name: the run's name.
    """

    def __init__(self, task_run_id: uuid.UUID, name: str) -> None:
        self.task_run_id = task_run_id
        self.name = name
        self._state: State[Any] = Pending()
        self._done: concurrent.futures.Future[State[Any]] = concurrent.futures.Future()

    @property
    def state(self) -> State[Any]:
        """What is known of the run now."""
        return self._state

    def done(self) -> bool:
        """Whether the run has ended."""
        return self._done.done()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the run has ended, or for `timeout` seconds, whichever is first."""
        concurrent.futures.wait([self._done], timeout)

    async def wait_async(self) -> None:
        """Wait until the run has ended, without blocking the event loop."""
        await wait_async(self._done)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:  # noqa: FBT001, FBT002 - Prefect's signature
        """Wait for the run's result.

        Args:
            timeout: the most to wait, in seconds; None: no end.
            raise_on_failure: False: give what the run raised instead of raising it.

        Raises:
            TimeoutError: the run has not ended in time; it goes on.
            Exception: what the run raised.
        """
        try:
            state = self._done.result(timeout)
        except concurrent.futures.TimeoutError:
            raise TimeoutError(f"{self.name} has not ended within {timeout:g} s.") from None
        value: R = state.result(raise_on_failure=raise_on_failure)
        return value

    async def result_async(self, raise_on_failure: bool = True) -> R:  # noqa: FBT001, FBT002
        """Wait for the run's result without blocking the event loop; see `result`."""
        await self.wait_async()
        return self.result(raise_on_failure=raise_on_failure)

    def add_done_callback(self, function: Callable[[PrefectFuture[R]], None]) -> None:
        """Have `function` called with this future when the run has ended."""
        self._done.add_done_callback(lambda _: function(self))

    def __repr__(self) -> str:
        return f"<PrefectFuture {self.name}: {self._state.name}>"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError(f"The future of {self.name} cannot be pickled: pass its result instead.")

    # What follows is the run's.

    def note(self, state: State[Any]) -> None:
        """Show a new state; a final one, or one that no other can follow, ends the wait."""
        self._state = state

    def end(self, state: State[Any]) -> None:
        """Show the last state, and wake whoever waits. Later ones change nothing."""
        if not self._done.done():
            self._state = state
            self._done.set_result(state)


class PrefectFutureList(list[PrefectFuture[R]]):
    """The futures of `map`, in the order of its inputs."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all runs have ended, or for `timeout` seconds, whichever is first."""
        wait(self, timeout)

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


class DoneAndNotDone(NamedTuple):
    """What `wait` gives."""

    done: set[PrefectFuture[Any]]
    not_done: set[PrefectFuture[Any]]


def wait(futures: Iterable[PrefectFuture[Any]], timeout: float | None = None) -> DoneAndNotDone:
    """Wait until all runs have ended, or for `timeout` seconds, whichever is first.

    Example:
        >>> done, not_done = wait(load.map(paths), timeout=60)      # doctest: +SKIP
    """
    every = list(futures)
    concurrent.futures.wait([future._done for future in every], timeout)
    done = {future for future in every if future.done()}
    return DoneAndNotDone(done, set(every) - done)


def as_completed(
    futures: Iterable[PrefectFuture[R]], timeout: float | None = None
) -> Iterator[PrefectFuture[R]]:
    """Give futures in the order in which their runs end.

    Args:
        futures: whose runs to wait for.
        timeout: the most to wait for all of them together, in seconds; None: no end.

    Raises:
        TimeoutError: not all runs have ended in time; they go on.
    """
    by_inner = {future._done: future for future in futures}
    try:
        for inner in concurrent.futures.as_completed(by_inner, timeout):
            yield by_inner[inner]
    except concurrent.futures.TimeoutError:
        left = sum(not inner.done() for inner in by_inner)
        raise TimeoutError(f"{left} of {len(by_inner)} runs have not ended in time.") from None
