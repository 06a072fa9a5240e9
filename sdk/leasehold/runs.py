"""The life of one task run: attempts, each under its slots, until one succeeds or none is left.

A `TaskRun` decides; who drives it only provides the waiting: a direct call waits where it stands, a
task runner waits without a worker. An attempt's body runs inside its `Hold`; the pause before the
next attempt is spent without one.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from leasehold.context import TaskRunContext, entered
from leasehold.exceptions import UpstreamFailedError
from leasehold.logging import RunLogger, get_logger, set_up_console
from leasehold.states import (
    AwaitingRetry,
    Cancelled,
    Completed,
    Crashed,
    Failed,
    NotReady,
    Pending,
    Retrying,
    Running,
    State,
)

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from leasehold.concurrency.hold import Hold
    from leasehold.futures import PrefectFuture
    from leasehold.tasks import Task


class TaskRun:
    """One run of a task.

    Args:
        task: what to run.
        args: positional arguments; futures among them are replaced by their results.
        kwargs: keyword arguments, likewise.
        tags: the tags it runs under.
        nested: whether it runs inside the code that called it, so that slots which that code holds
            are held already.
    """

    def __init__(
        self,
        task: Task[Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        tags: frozenset[str],
        nested: bool,
    ) -> None:
        self.task = task
        self.args, self.kwargs = args, kwargs
        self.context = TaskRunContext(name=task.next_run_name(args, kwargs), tags=tags)
        self.state: State[Any] = Pending()
        self.future: PrefectFuture[Any] | None = None
        self.delay_seconds = 0.0
        self.cancelled = False
        self._nested = nested
        self._in_body = False

    @property
    def ended(self) -> bool:
        """Whether no attempt is left to be made."""
        return self.state.is_final() or self.state.name == "NotReady"

    @property
    def log(self) -> RunLogger:
        """The run's logger."""
        return RunLogger(get_logger("runs"), {"run": self.context})

    def move(self, state: State[Any]) -> None:
        """Go to another state, and show it."""
        self.state = state
        if self.future is not None:
            if self.ended:
                self.future.end(state)
            else:
                self.future.note(state)

    def resolve_inputs(self) -> bool:
        """Replace futures by their results; False when one of them failed.

        Waits for futures that are not done; a task runner calls it when all are.
        """
        try:
            self.args = tuple(resolve(value) for value in self.args)
            self.kwargs = {name: resolve(value) for name, value in self.kwargs.items()}
        except UpstreamFailedError as error:
            self.move(NotReady(message=str(error), data=error))
        if self.ended:
            self.log.error("Did not start: %s", self.state.message)
        return not self.ended

    def hold(self) -> Hold | None:
        """Make the hold for the next attempt; None when no limit can apply.

        Raises:
            InvalidTagError: a tag that no server accepts.
        """
        if not self.context.tags:
            return None
        from leasehold.concurrency.acquisition import Acquisition
        from leasehold.concurrency.hold import Hold, held_names, slot_request

        names = {f"tag:{tag}" for tag in self.context.tags}
        request = slot_request(names - held_names() if self._nested else names)
        if request is None:
            return None
        return Hold(
            Acquisition(request, who=self.context.name, on_lost=self.task.on_lease_lost or "regain")
        )

    def started(self) -> None:
        """Take in that the body starts now: inputs and slots are there."""
        self._in_body = True
        self.context.run_count += 1
        self.move(Running() if self.context.run_count == 1 else Retrying())

    def raised(self, error: BaseException) -> None:
        """Take in what an attempt raised, and decide whether there is another.

        Slots that cannot be had fail the run at once: retries are for the body.
        """
        message = f"{type(error).__name__}: {error}"
        may_retry = self._in_body and not self.cancelled
        self._in_body = False
        if _is_cancellation(error):
            self.move(Cancelled(message=message, data=error))
        elif not isinstance(error, Exception):
            self.move(Crashed(message=message, data=error))
        elif may_retry and self.context.run_count <= self.task.retries:
            self.delay_seconds = self.task.retry_delay(self.context.run_count - 1)
            self.log.warning(
                "Attempt %d of %d failed with %s. The next one starts in %g s.",
                self.context.run_count,
                self.task.retries + 1,
                message,
                self.delay_seconds,
            )
            self.move(AwaitingRetry(message=message, data=error))
        else:
            self.move(Failed(message=message, data=error))
            self.log.error("Failed with %s", message)


class Attempt(AbstractContextManager["Attempt"]):
    """One attempt, the wait for its slots included: whatever it raises is the run's outcome.

    Args:
        run: whose attempt.
        hold: slots that were waited for before; None: to be waited for here.
    """

    def __init__(self, run: TaskRun, hold: Hold | None = None) -> None:
        self.value: Any = None
        self._run = run
        self._hold = hold
        self._entered = entered(run.context)

    @property
    def hold(self) -> Hold | nullcontext[None]:
        """The slots; a block that does nothing where no limit can apply."""
        return self._hold or self._run.hold() or nullcontext()

    def __enter__(self) -> Self:
        self._entered.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._entered.__exit__(None, None, None)
        if error is None:
            self._run.move(Completed(data=self.value))
            return False
        self._run.raised(error)
        return isinstance(error, Exception)


def attempt(run: TaskRun, hold: Hold | None = None) -> None:
    """Make one attempt of a task whose function is sync."""
    with Attempt(run, hold) as this, this.hold:
        run.started()
        this.value = run.task.fn(*run.args, **run.kwargs)


async def attempt_async(run: TaskRun, hold: Hold | None = None) -> None:
    """Make one attempt of a task whose function is async."""
    with Attempt(run, hold) as this:
        async with this.hold:
            run.started()
            this.value = await run.task.fn(*run.args, **run.kwargs)


def run_here(run: TaskRun) -> State[Any]:
    """Run a task where it was called."""
    set_up_console()
    ready = run.resolve_inputs()
    while ready and not run.ended:
        time.sleep(run.delay_seconds)
        attempt(run)
    return run.state


async def run_here_async(run: TaskRun) -> State[Any]:
    """Run an async task where it was called."""
    set_up_console()
    ready = run.resolve_inputs()
    while ready and not run.ended:
        if run.delay_seconds:
            import anyio

            await anyio.sleep(run.delay_seconds)
        await attempt_async(run)
    return run.state


def _is_cancellation(error: BaseException) -> bool:
    # By name: neither event loop is worth importing here for tasks that have none.
    return isinstance(error, KeyboardInterrupt) or type(error).__name__ in {
        "CancelledError",
        "Cancelled",
    }


def find_futures(value: Any) -> list[PrefectFuture[Any]]:
    """Find the futures in an argument: itself, or inside lists, tuples, sets and dicts."""
    from leasehold.futures import PrefectFuture

    if isinstance(value, PrefectFuture):
        return [value]
    if isinstance(value, dict):
        return [future for item in value.values() for future in find_futures(item)]
    if type(value) in _COLLECTIONS or isinstance(value, list):
        return [future for item in value for future in find_futures(item)]
    return []


_COLLECTIONS = frozenset({list, tuple, set, frozenset})


def resolve(value: Any) -> Any:
    """Replace the futures in an argument by their results.

    Raises:
        UpstreamFailedError: one of them failed.
    """
    if not find_futures(value):
        return value
    if isinstance(value, dict):
        return {key: resolve(item) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item) for item in value]
    if type(value) in _COLLECTIONS:
        return type(value)(resolve(item) for item in value)
    value.wait()
    if not value.state.is_completed():
        raise UpstreamFailedError(
            f"its input {value.name} is {value.state.name} ({value.state.message})."
        )
    return value.state.data
