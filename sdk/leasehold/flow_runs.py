"""The life of one flow run: validated parameters, attempts, its tasks' end, its last state."""

from __future__ import annotations

import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

from leasehold import hooks, inputs, interrupts, options
from leasehold.context import FlowRunContext, current_tags, entered
from leasehold.exceptions import CancelledRunError, RunTimeoutError
from leasehold.futures import wait, wait_all_async
from leasehold.interrupts import Interruptible
from leasehold.logging import RunLogger, get_logger, set_up_console
from leasehold.states import (
    AwaitingRetry,
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Retrying,
    Running,
    State,
    TimedOut,
)

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from leasehold.flows import Flow
    from leasehold.task_runners import TaskRunner


class FlowRun:
    """One run of a flow.

    Args:
        flow: whose run.
        args: positional arguments.
        kwargs: keyword arguments.

    Raises:
        ParameterBindError: arguments that the function does not take.
        ParameterTypeError: arguments that its annotations do not allow.
    """

    def __init__(self, flow: Flow[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        set_up_console()
        self._flow = flow
        self._arguments = flow.validated(
            tuple(inputs.resolve(value) for value in args),
            {name: inputs.resolve(value) for name, value in kwargs.items()},
        )
        name = f"{flow.name}-{uuid.uuid4().hex[:4]}"
        self.context = FlowRunContext(flow, name, current_tags(), self._make_runner())
        self.context.parameters = flow.bound(*self._arguments)
        if flow.flow_run_name is not None:
            with entered(self.context):
                self.context.name = options.fill_template(
                    flow.owner, "flow_run_name", flow.flow_run_name, self.context.parameters
                )
        self._began = time.monotonic()
        self._value: Any = None

    @property
    def log(self) -> RunLogger:
        """The run's logger."""
        return RunLogger(get_logger("runs"), {"run": self.context})

    def run(self) -> FlowRun:
        """Run a sync flow to its end."""
        while True:
            with _Attempt(self) as attempt:
                args, kwargs = self._arguments
                if self._flow.timeout_seconds is None:
                    value = self._flow.fn(*args, **kwargs)
                else:
                    value = interrupts.call(
                        self._flow.fn,
                        args,
                        kwargs,
                        body=Interruptible(),
                        seconds=self._flow.timeout_seconds,
                        who=self.context.name,
                    )
                wait(self.context.task_runner.open_futures())
                attempt.returned(value)
            if self._ended():
                return self
            time.sleep(self._flow.retry_delay_seconds)

    async def run_async(self) -> FlowRun:
        """Run an async flow to its end."""
        while True:
            with _Attempt(self) as attempt:
                args, kwargs = self._arguments
                try:
                    value = await interrupts.call_async(
                        self._flow.fn,
                        args,
                        kwargs,
                        seconds=self._flow.timeout_seconds,
                        who=self.context.name,
                    )
                except Exception:
                    # Wait for what runs here, where the event loop is not blocked by it.
                    self.context.task_runner.cancel_waiting()
                    await wait_all_async(self.context.task_runner.open_futures())
                    raise
                await wait_all_async(self.context.task_runner.open_futures())
                attempt.returned(value)
            if self._ended():
                return self
            import anyio

            await anyio.sleep(self._flow.retry_delay_seconds)

    def outcome(self, *, return_state: bool) -> Any:
        """Give what the caller of the flow gets: the last state, or the function's value.

        Raises:
            Exception: what the function raised, or what the one failed future raised that it gave.
        """
        state = self.context.state
        if return_state:
            return state
        # As with Prefect, several futures that a flow gives become their states; a failed one
        # among them fails the run, but it is for the caller to look at them.
        several = isinstance(state.data, (list, tuple, set)) and state.data is self._value
        return self._value if several else state.outcome()

    def started(self) -> None:
        """Take in that an attempt begins."""
        self.context.run_count += 1
        self._move(Running() if self.context.run_count == 1 else Retrying())
        self.log.info("Started.")

    def returned(self, value: Any) -> None:
        """Take in the function's value: a state, or futures, say how the run ended."""
        self._value = value = inputs.settle(value)
        if isinstance(value, State):
            self._end(value)
            return
        states = list(value) if isinstance(value, (list, tuple, set)) else []
        if not states or not all(isinstance(state, State) for state in states):
            self._end(Completed(data=value))
            return
        failed = sum(not state.is_completed() for state in states)
        if failed:
            message = f"{failed} of its {len(states)} results failed."
            self._end(Failed(message=message, data=value))
        else:
            self._end(Completed(message="All its results completed.", data=value))

    def raised(self, error: BaseException) -> None:
        """Take in what the function raised."""
        message = f"{type(error).__name__}: {error}"
        if (
            isinstance(error, RunTimeoutError)
            and error.timeout_seconds == self._flow.timeout_seconds
        ):
            state = TimedOut(message=message, data=error)
        elif isinstance(error, CancelledRunError) or type(error).__name__ in {
            "KeyboardInterrupt",
            "CancelledError",
            "Cancelled",
        }:
            state = Cancelled(message=message, data=error)
        elif isinstance(error, Exception):
            state = Failed(message=message, data=error)
        else:
            state = Crashed(message=message, data=error)
        may_retry = isinstance(error, Exception) and not state.is_cancelled()
        if may_retry and self.context.run_count <= self._flow.retries:
            self._retry(state)
        else:
            self._end(state)

    def _retry(self, state: State[Any]) -> None:
        self.log.warning(
            "Attempt %d of %d failed with %s. The next one starts in %g s.",
            self.context.run_count,
            self._flow.retries + 1,
            (state.message or "").rstrip("."),
            self._flow.retry_delay_seconds,
        )
        self._move(AwaitingRetry(message=state.message, data=state.data))
        self.context.task_runner = self._make_runner()

    def _end(self, state: State[Any]) -> None:
        flush_slots()
        self._move(state)
        if state.is_completed():
            self.log.info("Completed in %.1f s.", time.monotonic() - self._began)
        else:
            self.log.error("Ended as %s: %s", state.name, state.message)

    def _ended(self) -> bool:
        return self.context.state.is_final()

    def _move(self, state: State[Any]) -> None:
        self.context.state = state
        flow = self._flow
        called = {
            "RUNNING": flow.on_running_hooks,
            "COMPLETED": flow.on_completion_hooks,
            "FAILED": flow.on_failure_hooks,
            "CANCELLED": flow.on_cancellation_hooks,
            "CRASHED": flow.on_crashed_hooks,
        }.get(state.type.value, ())
        if called:
            with entered(self.context):
                hooks.call(called, flow, self.context, state)

    def _make_runner(self) -> TaskRunner:
        from leasehold.task_runners import ThreadPoolTaskRunner

        runner: Any = self._flow.task_runner or ThreadPoolTaskRunner
        made: TaskRunner = runner() if isinstance(runner, type) else runner.duplicate()
        return made


class _Attempt:
    """One attempt: its task runner is there for the time of the block."""

    def __init__(self, run: FlowRun) -> None:
        self._run = run
        self._returned = False
        self._value: Any = None

    def returned(self, value: Any) -> None:
        self._returned, self._value = True, value

    def __enter__(self) -> Self:
        self._entered = entered(self._run.context)
        self._entered.__enter__()
        self._runner = self._run.context.task_runner.__enter__()
        self._run.started()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        try:
            # What a time limit cut short is cut short with all that it had begun.
            cut = error is None or not isinstance(error, RunTimeoutError)
            self._runner.__exit__(kind, error if cut else KeyboardInterrupt(), traceback)
        finally:
            self._entered.__exit__(None, None, None)
        if error is None:
            self._run.returned(self._value)
            return False
        self._run.raised(error)
        return isinstance(error, Exception)


def flush_slots() -> None:
    """Wait until what the flow's tasks released is free for others too."""
    keepers = sys.modules.get("leasehold.concurrency.keeper")
    keeper = keepers.running() if keepers is not None else None
    if keeper is not None:
        keeper.flush()
