"""The life of one flow run: validated parameters, attempts, its tasks' end, its last state."""

from __future__ import annotations

import logging
import sys
import time
import uuid
from contextlib import aclosing, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from leasehold import generators, hooks, inputs, interrupts, options
from leasehold.context import FlowRunContext, current_tags, entered
from leasehold.exceptions import RunTimeoutError
from leasehold.forks import put_off
from leasehold.futures import wait, wait_all_async
from leasehold.interrupts import Interruptible
from leasehold.logging import RunLogger, logger_about, set_up_console
from leasehold.states import (
    AwaitingRetry,
    Running,
    State,
    state_of,
    state_of_value,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator
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
            tuple(inputs.resolve(value, flow) for value in args),
            {name: inputs.resolve(value, flow) for name, value in kwargs.items()},
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
        self._returned = False
        self._value: Any = None
        self._pause = 0.0

    @property
    def log(self) -> RunLogger:
        """The run's logger."""
        return logger_about(self.context)

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
                value = inputs.consumed(value)
                wait(self.context.task_runner.open_futures())
                attempt.returned(value)
            if self._ended():
                return self
            time.sleep(self._pause)

    async def run_async(self) -> FlowRun:
        """Run an async flow to its end."""
        while True:
            with _Attempt(self) as attempt:
                args, kwargs = self._arguments
                async with self._tasks_end():
                    value = await interrupts.call_async(
                        self._flow.fn,
                        args,
                        kwargs,
                        seconds=self._flow.timeout_seconds,
                        who=self.context.name,
                    )
                    value = inputs.consumed(value)
                attempt.returned(value)
            if self._ended():
                return self
            import anyio

            await anyio.sleep(self._pause)

    def run_generator(self) -> Generator[Any, Any, Any]:
        """Run a sync flow that yields, item by item."""
        return generators.apart(self._attempts())

    def _attempts(self) -> Generator[Any, Any, Any]:
        args, kwargs = self._arguments
        while True:
            with _Attempt(self) as attempt:
                items = self._flow.fn(*args, **kwargs)
                value = yield from generators.limited(
                    items, self._flow.timeout_seconds, self.context.name
                )
                wait(self.context.task_runner.open_futures())
                attempt.returned(value)
            if self._ended():
                return self.outcome(return_state=False)
            time.sleep(self._pause)

    async def run_async_generator(self) -> AsyncGenerator[Any, None]:
        """Run an async flow that yields, item by item."""
        args, kwargs = self._arguments
        while True:
            with _Attempt(self, by_steps=True) as attempt:
                body = self._flow.fn(*args, **kwargs)
                budget = interrupts.Budget(self._flow.timeout_seconds, self.context.name)
                async with (
                    self._tasks_end(),
                    aclosing(
                        generators.stepwise(body, lambda: entered(self.context), budget)
                    ) as items,
                ):
                    async for item in items:
                        yield item
                attempt.returned(None)
            if self._ended():
                self.outcome(return_state=False)
                return
            import anyio

            await anyio.sleep(self._pause)

    @asynccontextmanager
    async def _tasks_end(self) -> AsyncIterator[None]:
        """Wait for the tasks that the block began, where the event loop is not blocked by it."""
        runner = self.context.task_runner
        try:
            yield
        except (Exception, GeneratorExit):
            runner.cancel_waiting()
            await wait_all_async(runner.open_futures())
            raise
        else:
            await wait_all_async(runner.open_futures())

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
        gives_value = self._returned and not isinstance(self._value, State)
        return self._value if gives_value else state.outcome()

    def started(self) -> None:
        """Take in that an attempt begins."""
        self.context.run_count += 1
        self._move(Running())  # as with Prefect, a flow that is retried is not called otherwise
        self.log.info("Started.")

    def returned(self, value: Any) -> None:
        """Take in the function's value, in which futures become states: see `state_of_value`."""
        self._returned, self._value = True, inputs.settle(value)
        state = state_of_value(self._value)
        self._end_or_retry(state, may_retry=state.is_failed())

    def raised(self, error: BaseException) -> None:
        """Take in what the function raised."""
        self._returned = False
        state = state_of(error)
        self._end_or_retry(
            state, may_retry=isinstance(error, Exception) and not state.is_cancelled()
        )

    def _end_or_retry(self, state: State[Any], *, may_retry: bool) -> None:
        if may_retry and self.context.run_count <= self._flow.retries:
            self._retry(state)
        else:
            self._end(state)

    def _retry(self, state: State[Any]) -> None:
        self._pause = self._flow.delays(self.context.run_count)
        self.log.warning(
            "Attempt %d of %d failed with %s. The next one starts in %g s.",
            self.context.run_count,
            self._flow.retries + 1,
            (state.message or state.name).rstrip("."),
            self._pause,
        )
        self._move(AwaitingRetry(message=state.message, data=state.data))
        self.context.task_runner = self._make_runner()

    def _end(self, state: State[Any]) -> None:
        flush_slots()
        self._move(state)
        if state.is_completed():
            self.log.info("Completed in %.1f s.", time.monotonic() - self._began)
            return
        # That it was cancelled is what somebody wanted.
        level = logging.WARNING if state.is_cancelled() else logging.ERROR
        why = f": {state.message}" if state.message else "."
        self.log.log(level, "Ended as %s%s", state.name, why)

    def _ended(self) -> bool:
        return self.context.state.is_final()

    def _move(self, state: State[Any]) -> None:
        self.context.state = state
        state.run_name = self.context.name
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
        with put_off():
            from leasehold.task_runners import ThreadPoolTaskRunner

        runner: Any = self._flow.task_runner or ThreadPoolTaskRunner
        made: TaskRunner = runner() if isinstance(runner, type) else runner.duplicate()
        return made


class _Attempt:
    """One attempt: its task runner is there for the time of the block.

    Args:
        run: whose attempt.
        by_steps: somebody else makes the run the current one, where that is right.
    """

    def __init__(self, run: FlowRun, *, by_steps: bool = False) -> None:
        self._run = run
        self._entered = nullcontext() if by_steps else entered(run.context)
        self._returned = False
        self._value: Any = None

    def returned(self, value: Any) -> None:
        self._returned, self._value = True, value

    def __enter__(self) -> Self:
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
    if "leasehold.concurrency.process" not in sys.modules:  # no task has needed a slot yet
        return
    from leasehold.concurrency.process import running_keeper

    keeper = running_keeper()
    if keeper is not None:
        keeper.flush()
