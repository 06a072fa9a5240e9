"""`@flow`: a function that validates its parameters, and whose tasks a task runner runs."""

from __future__ import annotations

import functools
import inspect
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, overload

from leasehold.context import FlowRunContext, current_tags, entered
from leasehold.exceptions import ParameterBindError, ParameterTypeError, UnsupportedOptionError
from leasehold.logging import RunLogger, get_logger, set_up_console
from leasehold.states import Cancelled, Completed, Crashed, Failed, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from leasehold.task_runners import TaskRunner

P = ParamSpec("P")
R = TypeVar("R")


class Flow(Generic[P, R]):
    """A function whose calls are flow runs; made by `@flow`, which documents the arguments.

    Attributes:
        fn: the function itself, to be called without any of this.
        name: what messages call it.
    """

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        version: str | None = None,
        flow_run_name: str | None = None,
        task_runner: TaskRunner | type[TaskRunner] | None = None,
        validate_parameters: bool = True,
    ) -> None:
        if not callable(fn):
            raise TypeError(f"@flow is for functions; got {fn!r}.")
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.name = name or getattr(fn, "__name__", type(fn).__name__).replace("_", "-")
        self.description = description or inspect.getdoc(fn)
        self.version = version
        self.flow_run_name = flow_run_name
        self.task_runner = task_runner
        self.validate_parameters = validate_parameters
        self.isasync = inspect.iscoroutinefunction(fn)

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def __call__(self, *args: Any, return_state: Literal[True], **kwargs: Any) -> State[R]: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the flow, wait for all its tasks, and give its result; an async flow is awaited.

        Futures in what the function returns are replaced by their results.

        Args:
            args: for the function.
            return_state: give the run's final state instead, whatever became of it.
            kwargs: for the function.

        Raises:
            ParameterBindError: arguments that the function does not take.
            ParameterTypeError: arguments that its annotations do not allow.
            Exception: what the function raised.
        """
        return_state = kwargs.pop("return_state", False)
        if self.isasync:
            return self._run_async(args, kwargs, return_state)
        run = _FlowRun(self)
        with run:
            with run.parameters(args, kwargs) as (bound_args, bound_kwargs):
                value = self.fn(*bound_args, **bound_kwargs)
                run.drain().result()
            run.returned(value)
        return run.state if return_state else run.state.result()

    async def _run_async(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        return_state: bool,  # noqa: FBT001
    ) -> Any:
        from leasehold.concurrency.waiting import wait_async

        run = _FlowRun(self)
        with run:
            with run.parameters(args, kwargs) as (bound_args, bound_kwargs):
                value = await self.fn(*bound_args, **bound_kwargs)  # type: ignore[misc]
                await wait_async(run.drain())
            run.returned(value)
        return run.state if return_state else run.state.result()

    def with_options(self, **options: Any) -> Flow[P, R]:
        """Make a copy with some options changed."""
        same: dict[str, Any] = {name: getattr(self, name) for name in _OPTIONS}
        return Flow(self.fn, **{**same, **_supported(options)})

    def validated(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Check and convert arguments by the function's annotations.

        Raises:
            ParameterBindError: arguments that the function does not take.
            ParameterTypeError: arguments that its annotations do not allow.
        """
        try:
            inspect.signature(self.fn).bind(*args, **kwargs)
        except TypeError as error:
            raise ParameterBindError(f"Flow {self.name!r}: {error}.") from None
        if not self.validate_parameters or not (args or kwargs):
            return args, kwargs
        import pydantic

        try:
            converted: tuple[tuple[Any, ...], dict[str, Any]] = self._validator(*args, **kwargs)
        except pydantic.ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
                for problem in error.errors(include_url=False)
            )
            raise ParameterTypeError(f"Flow {self.name!r}: {problems}.") from error
        return converted

    @functools.cached_property
    def _validator(self) -> Callable[..., Any]:
        import pydantic

        @functools.wraps(self.fn)
        def collect(*args: Any, **kwargs: Any) -> Any:
            return args, kwargs

        collect.__annotations__ = {
            name: kind for name, kind in self.fn.__annotations__.items() if name != "return"
        }
        return pydantic.validate_call(config=pydantic.ConfigDict(arbitrary_types_allowed=True))(
            collect
        )

    def __repr__(self) -> str:
        return f"<Flow {self.name!r}>"


class _FlowRun:
    """One run of a flow."""

    def __init__(self, flow: Flow[Any, Any]) -> None:
        from leasehold.task_runners import ThreadPoolTaskRunner

        set_up_console()
        runner: Any = flow.task_runner or ThreadPoolTaskRunner
        self._flow = flow
        self._runner: TaskRunner = runner() if isinstance(runner, type) else runner.duplicate()
        name = f"{flow.name}-{uuid.uuid4().hex[:4]}"
        self.context = FlowRunContext(name=name, tags=current_tags(), task_runner=self._runner)
        self.state: State[Any] = State.__new__(State)
        self._began = time.monotonic()

    @property
    def log(self) -> RunLogger:
        return RunLogger(get_logger("runs"), {"run": self.context})

    @contextmanager
    def parameters(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Enter the run, with its validated arguments."""
        args, kwargs = self._flow.validated(args, kwargs)
        bound = inspect.signature(self._flow.fn).bind(*args, **kwargs)
        bound.apply_defaults()
        self.context.parameters = dict(bound.arguments)
        if self._flow.flow_run_name is not None:
            self.context.name = self._flow.flow_run_name.format(**self.context.parameters)
        self.log.info("Started.")
        with entered(self.context), self._runner:
            yield args, kwargs

    def drain(self) -> Any:
        return self._runner.drain()

    def returned(self, value: Any) -> None:
        """Take in the function's value, and end well if all futures in it did."""
        from leasehold.runs import find_futures, resolve

        failed = [future for future in find_futures(value) if not future.state.is_completed()]
        if failed:
            error = failed[0].state.result(raise_on_failure=False)
            self.state = Failed(message=f"{len(failed)} of its results failed.", data=error)
            self.log.error("Failed: %s", self.state.message)
            return
        self.state = Completed(data=resolve(value))
        self.log.info("Completed in %.1f s.", time.monotonic() - self._began)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> bool:
        _flush_slots()
        if error is None:
            return False
        message = f"{type(error).__name__}: {error}"
        if isinstance(error, Exception):
            self.state = Failed(message=message, data=error)
            self.log.error("Failed with %s", message)
            return True
        make = Cancelled if isinstance(error, KeyboardInterrupt) else Crashed
        self.state = make(message=message, data=error)
        self.log.error("Ended by %s.", type(error).__name__)
        return False


def _flush_slots() -> None:
    """Wait until what the flow's tasks released is free for others too."""
    import sys

    keepers = sys.modules.get("leasehold.concurrency.keeper")
    keeper = keepers.running() if keepers is not None else None
    if keeper is not None:
        keeper.flush()


_OPTIONS = (
    "name",
    "description",
    "version",
    "flow_run_name",
    "task_runner",
    "validate_parameters",
)


def _supported(options: dict[str, Any]) -> dict[str, Any]:
    for option in options:
        if option not in _OPTIONS:
            raise UnsupportedOptionError(
                f"@flow has no option {option!r} here. It knows: {', '.join(_OPTIONS)}.",
                option=option,
            )
    return options


@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...


@overload
def flow(
    *,
    name: str | None = None,
    description: str | None = None,
    version: str | None = None,
    flow_run_name: str | None = None,
    task_runner: TaskRunner | type[TaskRunner] | None = None,
    validate_parameters: bool = True,
) -> Callable[[Callable[P, R]], Flow[P, R]]: ...


def flow(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:  # noqa: D417 - by their names
    """Make a function a flow.

    Example:
        >>> @flow(task_runner=ThreadPoolTaskRunner(max_workers=8))      # doctest: +SKIP
        ... def etl(paths: list[str]):
        ...     load.map(paths).wait()

    Args:
        fn: the function, sync or async.
        name: what messages call it; the function's name by default.
        description: for people; the docstring by default.
        version: for people.
        flow_run_name: a template for the names of runs, as "etl-{day}".
        task_runner: where submitted tasks run; threads by default.
        validate_parameters: check and convert arguments by the function's annotations.

    Raises:
        UnsupportedOptionError: an option that only Prefect has.
    """
    _supported(options)
    if fn is None:
        return functools.partial(Flow, **options)
    return Flow(fn, **options)
