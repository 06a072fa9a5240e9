"""`@flow`: a function that validates its parameters, and whose tasks a task runner runs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, overload

from leasehold import hooks, inputs, options, printing
from leasehold.decorated import Decorated
from leasehold.exceptions import OptionError, ParameterTypeError
from leasehold.flow_runs import FlowRun

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

_HOOKS = ("on_completion", "on_failure", "on_cancellation", "on_crashed", "on_running")


class Flow(Decorated, Generic[P, R_co]):
    """A function whose calls are flow runs; made by `@flow`, which documents the arguments.

    Attributes:
        fn: the function itself, to be called without any of this.
        name: what messages call it.
    """

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
        super().__init__(fn, kind="Flow", name=name or default, description=description)
        who = self.owner
        if self.isgenerator:
            raise OptionError(
                f"{who}: a flow cannot yield. Return a list, or yield from a task.",
                option="fn",
                value=fn,
            )
        self.version = version
        self.flow_run_name = options.check_template(
            who, "flow_run_name", flow_run_name, self.signature
        )
        self.retries = options.check_retries(who, retries)
        self.retry_delay_seconds = options.read_delays(who, retry_delay_seconds, 1)(1)
        self.timeout_seconds = options.check_seconds(who, "timeout_seconds", timeout_seconds)
        self.task_runner = task_runner
        self.validate_parameters = validate_parameters
        self.log_prints = log_prints
        if log_prints:
            printing.watch_prints()
        self.on_completion_hooks = hooks.checked(who, "on_completion", on_completion)
        self.on_failure_hooks = hooks.checked(who, "on_failure", on_failure)
        self.on_cancellation_hooks = hooks.checked(who, "on_cancellation", on_cancellation)
        self.on_crashed_hooks = hooks.checked(who, "on_crashed", on_crashed)
        self.on_running_hooks = hooks.checked(who, "on_running", on_running)

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

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

        A state that the function returns is the run's last one. Futures that it returns become
        states, as with Prefect; a lone one gives its result.

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
            inputs.resolve(before)
        if self.isasync:
            return self._run_async(args, kwargs, return_state=return_state)
        return FlowRun(self, args, kwargs).run().outcome(return_state=return_state)

    async def _run_async(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, return_state: bool
    ) -> Any:
        run = await FlowRun(self, args, kwargs).run_async()
        return run.outcome(return_state=return_state)

    def with_options(self, **changes: Any) -> Flow[P, R_co]:
        """Make a copy with some options changed; they are those of `@flow`."""
        same = {name: getattr(self, name) for name in OPTIONS if name not in _HOOKS}
        same |= {name: list(getattr(self, f"{name}_hooks")) for name in _HOOKS}
        return Flow(self.fn, **{**same, **options.only_supported("@flow", changes, OPTIONS)})

    def on_completion(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Have `hook` called when a run has ended well; to be used as a decorator."""
        return self._add_hook("on_completion", hook)

    def on_failure(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Have `hook` called when a run has failed for good; to be used as a decorator."""
        return self._add_hook("on_failure", hook)

    def on_cancellation(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Have `hook` called when a run was cancelled; to be used as a decorator."""
        return self._add_hook("on_cancellation", hook)

    def on_crashed(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Have `hook` called when a run was ended from outside; to be used as a decorator."""
        return self._add_hook("on_crashed", hook)

    def on_running(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Have `hook` called when an attempt begins; to be used as a decorator."""
        return self._add_hook("on_running", hook)

    def _add_hook(self, option: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        getattr(self, f"{option}_hooks").extend(hooks.checked(self.owner, option, [hook]))
        return hook

    def validated(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Check and convert arguments by the function's annotations.

        Raises:
            ParameterBindError: arguments that the function does not take.
            ParameterTypeError: arguments that its annotations do not allow.
        """
        self.check_arguments(args, kwargs)
        if not self.validate_parameters or not (args or kwargs):
            return args, kwargs
        import pydantic

        try:
            converted: tuple[tuple[Any, ...], dict[str, Any]] = self._validator(*args, **kwargs)
        except pydantic.ValidationError as error:
            problems = "; ".join(
                f"{self._parameter(problem['loc'])}: {problem['msg']}"
                for problem in error.errors(include_url=False)
            )
            raise ParameterTypeError(f"{self.owner}: {problems}.") from error
        return converted

    def _parameter(self, where: tuple[int | str, ...]) -> str:
        """Name the parameter of a problem, which pydantic may give by its position."""
        first, *rest = where
        names = list(self.signature.parameters)
        if isinstance(first, int) and first < len(names):
            first = names[first]
        return ".".join(map(str, [first, *rest]))

    @functools.cached_property
    def _validator(self) -> Callable[..., Any]:
        import pydantic

        @functools.wraps(self.fn)
        def collect(*args: Any, **kwargs: Any) -> Any:
            return args, kwargs

        collect.__annotations__ = {
            name: kind for name, kind in self.fn.__annotations__.items() if name != "return"
        }
        collect.__signature__ = self.signature  # type: ignore[attr-defined] # without `self`
        return pydantic.validate_call(config=pydantic.ConfigDict(arbitrary_types_allowed=True))(
            collect
        )


#: What `@flow` and `with_options` know.
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
    *_HOOKS,
)


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
        fn: the function, sync or async; it may be a method.
        name: what messages call it; the function's name by default.
        description: for people; the docstring by default.
        version: for people.
        flow_run_name: a template for the names of runs, as "etl-{day}", or a function that gives
            one; it may take `parameters`, a dict.
        retries: how often a run that raised starts again, from its beginning.
        retry_delay_seconds: the pause before that, in seconds.
        timeout_seconds: the most that one attempt may take, in seconds; what it can interrupt is
            the same as for `@task`. The tasks that still run are interrupted too.
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
    supported = options.only_supported("@flow", given, OPTIONS)
    if fn is None:
        return functools.partial(Flow, **supported)
    return Flow(fn, **supported)
