"""`@flow`: a function that validates its parameters, and whose tasks a task runner runs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, ParamSpec, TypeVar, overload

from leasehold import inputs, options, parameters
from leasehold.decorated import Decorated
from leasehold.exceptions import OptionError
from leasehold.flow_runs import FlowRun
from leasehold.forks import put_off

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from leasehold.context import FlowRunContext
    from leasehold.states import State
    from leasehold.task_runners import TaskRunner

    Hook = Callable[["Flow[..., Any]", FlowRunContext, State[Any]], Any]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class Flow(Decorated, Generic[P, R_co]):
    """A function whose calls are flow runs; made by `@flow`, which documents the arguments.

    Attributes:
        fn: the function itself, to be called without any of this.
        name: what messages call it.
    """

    kind = "Flow"
    OPTIONS = (
        "name",
        "description",
        "version",
        "flow_run_name",
        "retries",
        "retry_delay_seconds",
        "timeout_seconds",
        "task_runner",
        "validate_parameters",
        "log_prints",
        "on_completion",
        "on_failure",
        "on_cancellation",
        "on_crashed",
        "on_running",
    )

    on_cancellation_hooks: list[Any]
    on_crashed_hooks: list[Any]

    fn: Callable[P, R_co]

    def __init__(
        self,
        fn: Callable[P, R_co],
        *,
        name: str | None = None,
        description: str | None = None,
        version: str | None = None,
        flow_run_name: str | Callable[..., str] | None = None,
        retries: int | None = None,
        retry_delay_seconds: float | None = None,
        timeout_seconds: float | None = None,
        task_runner: TaskRunner | type[TaskRunner] | None = None,
        validate_parameters: bool = True,
        log_prints: bool | None = None,
        on_completion: Iterable[Hook] | None = None,
        on_failure: Iterable[Hook] | None = None,
        on_cancellation: Iterable[Hook] | None = None,
        on_crashed: Iterable[Hook] | None = None,
        on_running: Iterable[Hook] | None = None,
    ) -> None:
        default = getattr(fn, "__name__", type(fn).__name__).replace("_", "-")
        super().__init__(
            fn,
            name=name or default,
            description=description,
            version=version,
            retries=retries,
            retry_delay_seconds=retry_delay_seconds,
            retry_jitter_factor=None,
            timeout_seconds=timeout_seconds,
            log_prints=log_prints,
            hooks={
                "on_completion": on_completion,
                "on_failure": on_failure,
                "on_cancellation": on_cancellation,
                "on_crashed": on_crashed,
                "on_running": on_running,
            },
        )
        self.flow_run_name = options.check_template(
            self.owner, "flow_run_name", flow_run_name, self.signature
        )
        self.task_runner = self._checked_runner(task_runner)
        options.check_truth(self.owner, "validate_parameters", validate_parameters)
        self.validate_parameters = validate_parameters

    def _checked_runner(self, runner: Any) -> TaskRunner | type[TaskRunner] | None:
        if runner is None:
            return None
        with put_off():
            from leasehold.task_runners import TaskRunner

        if isinstance(runner, TaskRunner):
            return runner
        if isinstance(runner, type) and issubclass(runner, TaskRunner):
            return runner
        raise OptionError(
            f"{self.owner}: task_runner must be a task runner, as "
            f"ThreadPoolTaskRunner(max_workers=8); got {runner!r}.",
            option="task_runner",
            value=runner,
        )

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    # Of what says nothing of its result: without this, the next one would take it.
    @overload
    def __call__(
        self: Flow[P, NoReturn], *args: Any, return_state: Literal[True], **kwargs: Any
    ) -> State[Any]: ...

    @overload
    def __call__(
        self: Flow[P, Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[True],
        **kwargs: Any,
    ) -> Coroutine[Any, Any, State[T]]: ...

    @overload
    def __call__(self, *args: Any, return_state: Literal[True], **kwargs: Any) -> State[R_co]: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the flow, wait for all its tasks, and give its result; an async flow is awaited.

        A state that the function has made is the run's last one, and the call gives what that
        says. Futures that it returns become their states, as with Prefect, and states of other
        runs are given as they are; one that is no success fails the run.

        Args:
            args: for the function; futures among them are waited for and replaced by results.
            return_state: give the run's final state instead, whatever became of it.
            wait_for: futures to wait for, whose results are not needed.
            kwargs: for the function, like `args`.

        Raises:
            ParameterBindError: arguments that the function does not take.
            ParameterTypeError: arguments that its annotations do not allow.
            Exception: what the function raised.
        """
        return_state = kwargs.pop("return_state", False)
        for before in kwargs.pop("wait_for", None) or ():
            inputs.resolve(before, self)
        if self.isgenerator:
            self.refuse_state(return_state=return_state)
            run = FlowRun(self, args, kwargs)
            return run.run_async_generator() if self.isasync else run.run_generator()
        if self.isasync:
            return self._run_async(args, kwargs, return_state=return_state)
        return FlowRun(self, args, kwargs).run().outcome(return_state=return_state)

    async def _run_async(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, return_state: bool
    ) -> Any:
        run = await FlowRun(self, args, kwargs).run_async()
        return run.outcome(return_state=return_state)

    def on_cancellation(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Have `hook` called when a run was cancelled; to be used as a decorator."""
        return self._add_hook("on_cancellation", hook)

    def on_crashed(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Have `hook` called when a run was ended from outside; to be used as a decorator."""
        return self._add_hook("on_crashed", hook)

    def validated(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Check and convert arguments by the function's annotations.

        Raises:
            ParameterBindError: arguments that the function does not take.
            ParameterTypeError: arguments that its annotations do not allow, or annotations that
                cannot be resolved.
        """
        self.check_arguments(args, kwargs)
        if not self.validate_parameters or not (args or kwargs):
            return args, kwargs
        return self._converter(*args, **kwargs)

    @functools.cached_property
    def _converter(self) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        return parameters.converter(self.owner, self.fn, self.signature)


@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...


@overload
def flow(
    fn: None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    version: str | None = None,
    flow_run_name: str | Callable[..., str] | None = None,
    retries: int | None = None,
    retry_delay_seconds: float | None = None,
    timeout_seconds: float | None = None,
    task_runner: TaskRunner | type[TaskRunner] | None = None,
    validate_parameters: bool = True,
    log_prints: bool | None = None,
    on_completion: Iterable[Hook] | None = None,
    on_failure: Iterable[Hook] | None = None,
    on_cancellation: Iterable[Hook] | None = None,
    on_crashed: Iterable[Hook] | None = None,
    on_running: Iterable[Hook] | None = None,
) -> Callable[[Callable[P, R]], Flow[P, R]]: ...


def flow(fn: Callable[..., Any] | None = None, /, **given: Any) -> Any:  # noqa: D417 - by their names
    """Make a function a flow.

    Example:
        >>> @flow(task_runner=ThreadPoolTaskRunner(max_workers=8))      # doctest: +SKIP
        ... def etl(paths: list[str]):
        ...     load.map(paths).wait()

    Args:
        fn: the function, sync or async; it may yield, and it may be a method.
        name: what messages call it; the function's name by default.
        description: for people; the docstring by default.
        version: for people.
        flow_run_name: a template for the names of runs, as "etl-{day}", or a function that gives
            one; it may take `parameters`, a dict.
        retries: how often a run that raised starts again, from its beginning.
        retry_delay_seconds: the pause before that, in seconds.
        timeout_seconds: the most that one attempt may take, in seconds; 0: no end. What it can
            interrupt is the same as for `@task`. The tasks that still run are interrupted too.
        task_runner: where submitted tasks run; threads by default.
        validate_parameters: check and convert arguments by the function's annotations.
        log_prints: write what `print` prints to the log; None: as the calling run does.
        on_completion: functions of flow, run and state, to be called when a run has ended well.
        on_failure: likewise, when it has failed and is not retried.
        on_cancellation: likewise, when it was cancelled, as by Ctrl-C.
        on_crashed: likewise, when it was ended from outside, as by SystemExit.
        on_running: likewise, when an attempt begins.

    Raises:
        UnsupportedOptionError: an option that only Prefect has.
        OptionError: an option out of its bounds.
    """
    supported = options.only_supported("@flow", given, Flow.OPTIONS)
    if fn is None:
        return functools.partial(Flow, **supported)
    return Flow(fn, **supported)
