"""The life of one task run: attempts, each under its slots, until one succeeds or none is left.

A `TaskRun` decides; who drives it only provides the waiting: a direct call waits where it stands, a
task runner waits without a worker. An attempt's body runs inside its `Hold`; the pause before the
next attempt, and the hooks that tell of the end, come after the slots were given back.
"""

from __future__ import annotations

import functools
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from leasehold import hooks, inputs, interrupts
from leasehold.concurrency.lease import held, held_names
from leasehold.concurrency.unlimited import known
from leasehold.context import TaskRunContext, entered
from leasehold.exceptions import (
    CancelledRunError,
    LeaseholdError,
    UpstreamFailedError,
    WorkerDiedError,
)
from leasehold.forks import put_off
from leasehold.interrupts import Interruptible
from leasehold.logging import RunLogger, logger_about, set_up_console
from leasehold.states import (
    AwaitingRetry,
    Completed,
    Crashed,
    NotReady,
    Retrying,
    Running,
    State,
    described,
    state_of,
    state_of_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from typing_extensions import Self

    from leasehold.client.wire import SlotRequest
    from leasehold.concurrency.hold import Hold
    from leasehold.futures import PrefectFuture
    from leasehold.task_runners.base import TaskRunner
    from leasehold.tasks import Task

    Slots: TypeAlias = Hold | nullcontext[None]

#: Called with every run that is submitted, or enters a state, where it does; for who shows it.
observers: list[Callable[[TaskRun], None]] = []


_NO_VALUE: Final = object()

#: A value of another type says nothing of how the run ended.
_STATES: Final = frozenset({State, list, tuple, set})


class TaskRun:
    """One run of a task.

    Args:
        task: what to run.
        args: positional arguments; futures among them are replaced by their results.
        kwargs: keyword arguments, likewise.
        tags: the tags it runs under.
        nested: whether it runs inside the code that called it, so that slots which that code holds
            are held already.

    Attributes:
        context: what its code and hooks see of it.
        future: who waits for it, when it was submitted.
        wants: the limits of which it waits for slots now.
        runner: the task runner of which it needs a worker, when it was submitted.
        delay_seconds: the pause before its next attempt.
    """

    __slots__ = (
        "_in_body",
        "_nested",
        "_value",
        "cancelled",
        "context",
        "delay_seconds",
        "future",
        "runner",
        "wants",
    )

    def __init__(
        self,
        task: Task[Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        tags: frozenset[str],
        nested: bool,
    ) -> None:
        self.context = TaskRunContext(task, task.next_run_name(), tags, (args, kwargs))
        self.future: PrefectFuture[Any] | None = None
        self.wants: tuple[str, ...] = ()
        self.runner: TaskRunner | None = None
        self.delay_seconds = 0.0
        self.cancelled = False
        self._nested = nested
        self._in_body = False
        self._value: Any = _NO_VALUE

    @property
    def task(self) -> Task[Any, Any]:
        """What is run."""
        return self.context.task

    @property
    def state(self) -> State[Any]:
        """What is known of it now."""
        return self.context.state

    @property
    def ended(self) -> bool:
        """Whether no attempt is left to be made."""
        return _is_last(self.context.state)

    @property
    def log(self) -> RunLogger:
        """The run's logger."""
        return logger_about(self.context)

    def show(self) -> None:
        """Show how it stands to those who watch."""
        for observer in observers:
            observer(self)

    def move(self, state: State[Any]) -> None:
        """Go to another state, and tell whom it concerns. After the last one nothing changes."""
        if self.ended:
            return
        self.context.state = state
        state.run_name = self.context.name
        self.show()
        task = self.context.task
        if state.is_running():
            hooks.call(task.on_running_hooks, task, self.context, state)
        elif state.is_completed():
            hooks.call(task.on_completion_hooks, task, self.context, state)
        elif state.is_failed():
            hooks.call(task.on_failure_hooks, task, self.context, state)
        if _is_last(state) and self.future is not None:
            self.future.end()

    def prepare(self, wait_for: Iterable[Any] = ()) -> bool:
        """Replace futures by their results, and name the run; False when it cannot start.

        Waits for futures that are not done; a task runner calls it when all are.
        """
        args, kwargs = self.context.arguments
        try:
            for before in wait_for:
                inputs.resolve(before, self.context)
            self.context.arguments = (
                tuple([inputs.resolve(value, self.context) for value in args]) if args else args,
                {name: inputs.resolve(value, self.context) for name, value in kwargs.items()},
            )
            if self.task.task_run_name is not None:
                with entered(self.context):
                    self.context.name = self.task.filled_run_name(self.context.parameters)
        except UpstreamFailedError as error:
            self.move(NotReady(message=str(error), data=error))
            self.log.warning("Did not start: %s", error.reason)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the run's outcome
            self.raised(error)
        return not self.ended

    def slots(self) -> SlotRequest | None:
        """Say which slots the next attempt needs; None when, as far as is known, none.

        Raises:
            InvalidTagError: a tag that no server accepts.
        """
        tags = self.context.tags
        if not tags:
            return None
        request = _slots_of(tags, held_names()) if self._nested and held.get() else _slots_of(tags)
        return None if request is None or known.knows(request.names) else request

    def hold(self) -> Hold | None:
        """Make the hold for the next attempt; None when it needs no slots.

        Raises:
            InvalidTagError: a tag that no server accepts.
        """
        request = self.slots()
        if request is None:
            return None
        from leasehold.concurrency.acquisition import Acquisition
        from leasehold.concurrency.hold import Hold

        return Hold(
            Acquisition(request, who=self.context.name, on_lost=self.task.on_lease_lost or "regain")
        )

    def started(self) -> None:
        """Take in that the body starts now: inputs and slots are there.

        Raises:
            CancelledRunError: it was cancelled at the last moment.
        """
        if self.cancelled:
            name = self.context.name
            raise CancelledRunError(f"{name} was cancelled before it started.", run=name)
        self._in_body = True
        self.context.run_count += 1
        self.move(Running() if self.context.run_count == 1 else Retrying())

    def returned(self, value: Any) -> None:
        """Take in what the body gave: see `state_of_value`."""
        self._in_body = False
        self._value = value
        # Nearly all bodies give plain values: these cost nothing here.
        state = state_of_value(value) if type(value) in _STATES else Completed(data=value)
        if state.is_failed() and self._may_retry(state):
            self._wait_for_retry(state)
        else:
            self.move(state)

    def outcome(self) -> Any:
        """Give what a direct call gives: the value of the body, even where that is a state.

        Raises:
            Exception: what the run raised.
        """
        return self.state.outcome() if self._value is _NO_VALUE else self._value

    def raised(self, error: BaseException) -> None:
        """Take in what an attempt raised, and decide whether there is another.

        Slots that cannot be had fail the run at once: retries are for the body.
        """
        in_body, self._in_body = self._in_body, False
        self._value = _NO_VALUE
        state = _state_of(error, cancelled=self.cancelled)
        if in_body and isinstance(error, Exception) and self._may_retry(state):
            self._wait_for_retry(state)
            return
        self.move(state)
        if not state.is_cancelled() and not state.is_completed():
            # Of a submitted run nobody may ever ask for the result, so its traceback is told here.
            told = self.future is not None and not isinstance(error, LeaseholdError)
            self.log.error("Failed with %s", state.message, exc_info=error if told else None)

    def _may_retry(self, state: State[Any]) -> bool:
        if self.cancelled or state.is_cancelled() or self.context.run_count > self.task.retries:
            return False
        return self._wants_retry(state)

    def _wants_retry(self, state: State[Any]) -> bool:
        condition = self.task.retry_condition_fn
        if condition is None:
            return True
        try:
            return bool(hooks.finish(condition(self.task, self.context, state)))
        except Exception:
            self.log.exception("retry_condition_fn failed, so there is no retry.")
            return False

    def _wait_for_retry(self, state: State[Any]) -> None:
        self.delay_seconds = self.task.delays(self.context.run_count)
        self.log.warning(
            "Attempt %d of %d failed with %s. The next one starts in %.3g s.",
            self.context.run_count,
            self.task.retries + 1,
            (state.message or state.name).rstrip("."),
            self.delay_seconds,
        )
        self.move(AwaitingRetry(message=state.message, data=state.data))


@functools.lru_cache(maxsize=1024)
def _slots_of(tags: frozenset[str], held: frozenset[str] = frozenset()) -> SlotRequest | None:
    """Turn tags into a request; many runs share one."""
    with put_off():
        from leasehold.concurrency.hold import slot_request

    return slot_request({f"tag:{tag}" for tag in tags} - held)


def _is_last(state: State[Any]) -> bool:
    return state.is_final() or state.name == "NotReady"


def _state_of(error: BaseException, *, cancelled: bool) -> State[Any]:
    if isinstance(error, WorkerDiedError) and not cancelled:
        return Crashed(message=described(error), data=error)
    return state_of(error, cancelled=cancelled)


#: Where no limit can apply.
NO_SLOTS: Final = nullcontext()


class Attempt:
    """One attempt, the wait for its slots included: whatever it raises is the run's outcome.

    Args:
        run: whose attempt.
        hold: slots that were waited for before, or `NO_SLOTS`; None: to be waited for here.
    """

    __slots__ = ("_entered", "_hold", "_run", "value")

    def __init__(self, run: TaskRun, hold: Slots | None = None) -> None:
        self.value: Any = None
        self._run = run
        self._hold = hold
        self._entered = entered(run.context)

    @property
    def hold(self) -> Slots:
        """The slots; a block that does nothing where no limit can apply."""
        return self._hold or self._run.hold() or NO_SLOTS

    def __enter__(self) -> Self:
        self._entered.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> bool:
        try:
            if error is None:
                self._run.returned(self.value)
                return False
            self._run.raised(error)
        finally:
            self._entered.__exit__(None, None, None)
        return isinstance(error, Exception)


def call_here(run: TaskRun, body: Interruptible | None = None) -> Any:
    """Call a sync task's function on this thread.

    Args:
        run: whose.
        body: through which it may be interrupted; None: only its own time limit may.

    Raises:
        RunTimeoutError: it took longer than `timeout_seconds`.
        CancelledRunError: it was interrupted for another reason.
        Exception: what it raised.
    """
    task = run.context.task
    args, kwargs = run.context.arguments
    if body is None and task.timeout_seconds is None:
        return task.in_one_go(*args, **kwargs)
    return interrupts.call(
        task.in_one_go,
        args,
        kwargs,
        body=body or Interruptible(),
        seconds=task.timeout_seconds,
        who=run.context.name,
    )


def attempt(
    run: TaskRun, hold: Slots | None = None, body: Callable[[TaskRun], Any] = call_here
) -> None:
    """Make one attempt, on this thread.

    Args:
        run: whose attempt.
        hold: slots that were waited for before, or `NO_SLOTS`; None: to be waited for here.
        body: calls the task's function.
    """
    with Attempt(run, hold) as this, this.hold:
        run.started()
        this.value = inputs.consumed(body(run))


async def attempt_async(run: TaskRun, hold: Slots | None = None) -> None:
    """Make one attempt of a task whose function is async."""
    with Attempt(run, hold) as this:
        async with this.hold:
            run.started()
            task = run.context.task
            args, kwargs = run.context.arguments
            value = await interrupts.call_async(
                task.in_one_go, args, kwargs, seconds=task.timeout_seconds, who=run.context.name
            )
            this.value = inputs.consumed(value)


def run_here(run: TaskRun, wait_for: Iterable[Any] = ()) -> None:
    """Run a task where it was called."""
    set_up_console()
    ready = run.prepare(wait_for)
    while ready and not run.ended:
        if run.delay_seconds:
            time.sleep(run.delay_seconds)
        attempt(run)


async def run_here_async(run: TaskRun, wait_for: Iterable[Any] = ()) -> None:
    """Run an async task where it was called."""
    set_up_console()
    ready = run.prepare(wait_for)
    while ready and not run.ended:
        if run.delay_seconds:
            import anyio

            await anyio.sleep(run.delay_seconds)
        await attempt_async(run)
