"""`@task`: a function whose runs are named, tagged, retried, and held under their tags' limits."""

from __future__ import annotations

import functools
import inspect
import itertools
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, cast, overload

from leasehold import runs
from leasehold.context import check_tags, current_flow_run, current_tags
from leasehold.exceptions import MissingContextError, ParameterBindError, UnsupportedOptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from leasehold.futures import PrefectFuture, PrefectFutureList
    from leasehold.states import State
    from leasehold.task_runners import TaskRunner

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

OnLeaseLost = Literal["regain", "cancel", "ignore"]


class unmapped(Generic[T]):  # noqa: N801 - the name flow authors know
    """Mark an argument of `map` that is the same for every call.

    Example:
        >>> load.map(paths, table=unmapped("orders"))   # doctest: +SKIP
    """

    def __init__(self, value: T) -> None:
        self.value = value


class Task(Generic[P, R]):
    """A function whose calls are runs; made by `@task`, which documents the arguments.

    Attributes:
        fn: the function itself, to be called without any of this.
        name: what messages call it.
        tags: the tags of every run of it.
    """

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        version: str | None = None,
        task_run_name: str | None = None,
        retries: int = 0,
        retry_delay_seconds: float | Sequence[float] | Callable[[int], Sequence[float]] = 0,
        on_lease_lost: OnLeaseLost | None = None,
    ) -> None:
        if not callable(fn):
            raise TypeError(f"@task is for functions; got {fn!r}.")
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.name = name or getattr(fn, "__name__", type(fn).__name__)
        self.description = description or inspect.getdoc(fn)
        self.tags = check_tags(tags)
        self.version = version
        self.task_run_name = task_run_name
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise ValueError(f"Task {self.name!r}: retries must be 0 or more; got {retries!r}.")
        self.retries = retries
        self.retry_delay_seconds = retry_delay_seconds
        self.on_lease_lost = on_lease_lost
        self.isasync = inspect.iscoroutinefunction(fn)
        self._delays = self._read_delays()
        self._serial = itertools.count(1)

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def __call__(self, *args: Any, return_state: Literal[True], **kwargs: Any) -> State[R]: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task here, and give its result; an async task is awaited.

        Args:
            args: for the function.
            return_state: give the run's final state instead, whatever became of it.
            kwargs: for the function.

        Raises:
            Exception: what the function raised.
            ConcurrencySlotAcquisitionError: no slot could be had; see `leasehold.exceptions`.
        """
        return_state = kwargs.pop("return_state", False)
        run = self._run(args, kwargs, nested=True)
        if self.isasync:
            return self._call_async(run, return_state)
        state = runs.run_here(run)
        return state if return_state else state.result()

    def submit(
        self,
        *args: Any,
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        return_state: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Have the flow's task runner run the task, and go on.

        Example:
            >>> future = load.submit("a.csv")           # doctest: +SKIP
            >>> rows = future.result()

        Args:
            args: for the function; futures among them are waited for and replaced by results.
            wait_for: futures to wait for, whose results are not needed.
            return_state: wait for the run to end, and give its state instead of a future.
            kwargs: for the function, like `args`.

        Raises:
            MissingContextError: no flow is running here.
        """
        future = self._runner("submit").submit(
            self._run(args, kwargs, nested=False), wait_for=tuple(wait_for or ())
        )
        if return_state:
            future.wait()
            return future.state
        return cast("PrefectFuture[R]", future)

    def map(
        self,
        *args: Any,
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        return_state: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Submit the task once for each element of its arguments.

        Example:
            >>> load.map(["a.csv", "b.csv"], table=unmapped("orders"))  # doctest: +SKIP

        Args:
            args: iterables of the same length, one element for each call. What cannot be iterated
                (and strings, bytes, dicts), and what is marked `unmapped`, is the same for every
                call.
            wait_for: futures to wait for, whose results are not needed.
            return_state: wait for all runs to end, and give their states instead of futures.
            kwargs: like `args`.

        Raises:
            MissingContextError: no flow is running here.
            ParameterBindError: nothing to iterate over, or different lengths.
        """
        from leasehold.futures import PrefectFutureList

        runner = self._runner("map")
        before = tuple(wait_for or ())
        futures: PrefectFutureList[R] = PrefectFutureList(
            runner.submit(self._run(one_args, one_kwargs, nested=False), wait_for=before)
            for one_args, one_kwargs in self._spread(args, kwargs)
        )
        if return_state:
            futures.wait()
            return [future.state for future in futures]
        return futures

    def with_options(self, **options: Any) -> Task[P, R]:
        """Make a copy with some options changed.

        Example:
            >>> slow_load = load.with_options(tags=["database", "slow"])    # doctest: +SKIP
        """
        same: dict[str, Any] = {name: getattr(self, name) for name in _OPTIONS}
        return Task(self.fn, **{**same, **_supported(options)})

    def retry_delay(self, failures: int) -> float:
        """Give the pause before the next attempt, in seconds; the last one of a list repeats."""
        return self._delays[min(failures, len(self._delays) - 1)]

    def next_run_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Name the next run: by the template, or by counting."""
        if self.task_run_name is None:
            return f"{self.name}-{next(self._serial)}"
        parameters = inspect.signature(self.fn).bind_partial(*args, **kwargs)
        parameters.apply_defaults()
        return self.task_run_name.format(**parameters.arguments)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Make methods work: a task looked up on an object is bound to it."""
        if instance is None:
            return self
        bound: Task[Any, Any] = self.with_options()
        bound.fn = self.fn.__get__(instance, owner)
        return bound

    def __repr__(self) -> str:
        return f"<Task {self.name!r}>"

    async def _call_async(self, run: runs.TaskRun, return_state: bool) -> Any:  # noqa: FBT001
        state = await runs.run_here_async(run)
        return state if return_state else state.result()

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, nested: bool) -> runs.TaskRun:
        return runs.TaskRun(
            cast("Task[Any, Any]", self),
            args,
            kwargs,
            tags=self.tags | current_tags(),
            nested=nested,
        )

    def _runner(self, method: str) -> TaskRunner:
        flow_run = current_flow_run()
        if flow_run is None or flow_run.task_runner is None:
            raise MissingContextError(
                f"{self.name}.{method}() needs a running flow, whose task runner runs it. Call it "
                f"from a function decorated with @flow, or call {self.name}(...) directly."
            )
        return flow_run.task_runner

    def _spread(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        columns = [_column(value) for value in args]
        named = {name: _column(value) for name, value in kwargs.items()}
        names = [*map(str, range(len(args))), *kwargs]
        lengths = {
            name: len(column)
            for name, column in zip(names, [*columns, *named.values()], strict=True)
            if isinstance(column, list)
        }
        if not lengths:
            raise ParameterBindError(
                f"{self.name}.map() needs at least one list (or other iterable) to map over."
            )
        if len(set(lengths.values())) > 1:
            raise ParameterBindError(
                f"{self.name}.map() needs lists of the same length; it got {lengths}. Mark what is "
                "the same for every call with unmapped(...)."
            )
        return [
            (
                tuple(_element(column, index) for column in columns),
                {name: _element(column, index) for name, column in named.items()},
            )
            for index in range(next(iter(lengths.values())))
        ]

    def _read_delays(self) -> list[float]:
        given: Any = self.retry_delay_seconds
        if callable(given):
            given = given(self.retries)
        delays = [float(delay) for delay in given] if isinstance(given, (list, tuple)) else None
        delays = [float(given)] if delays is None else delays
        if not delays or any(delay < 0 for delay in delays):
            raise ValueError(
                f"Task {self.name!r}: retry_delay_seconds must be 0 or more; got {given!r}."
            )
        return delays


_OPTIONS = (
    "name",
    "description",
    "tags",
    "version",
    "task_run_name",
    "retries",
    "retry_delay_seconds",
    "on_lease_lost",
)


def _supported(options: dict[str, Any]) -> dict[str, Any]:
    for option in options:
        if option not in _OPTIONS:
            raise UnsupportedOptionError(
                f"@task has no option {option!r} here. It knows: {', '.join(_OPTIONS)}.",
                option=option,
            )
    return options


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(
    *,
    name: str | None = None,
    description: str | None = None,
    tags: Iterable[str] | None = None,
    version: str | None = None,
    task_run_name: str | None = None,
    retries: int = 0,
    retry_delay_seconds: float | Sequence[float] | Callable[[int], Sequence[float]] = 0,
    on_lease_lost: OnLeaseLost | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:  # noqa: D417 - by their names
    """Make a function a task.

    Example:
        >>> @task(tags=["database"], retries=2, retry_delay_seconds=[1, 10])
        ... def load(path):
        ...     ...

    Args:
        fn: the function, sync or async.
        name: what messages call it; the function's name by default.
        description: for people; the docstring by default.
        tags: every run takes a slot of each tag that has a limit.
        version: for people.
        task_run_name: a template for the names of runs, as "load-{path}".
        retries: how often a run that raised starts again.
        retry_delay_seconds: the pause before that, in seconds; one number, one for each retry, or
            a function of `retries` that gives them. It is spent without slots.
        on_lease_lost: what to do when a slot is lost under a running body: see `concurrency`.

    Raises:
        UnsupportedOptionError: an option that only Prefect has.
        InvalidTagError: a tag that is not a string.
        ValueError: an option out of its bounds.
    """
    _supported(options)
    if fn is None:
        return functools.partial(Task, **options)
    return Task(fn, **options)


def _column(value: Any) -> Any:
    """Give a list to map over, or anything else to be the same for every call."""
    from leasehold.futures import PrefectFuture

    if isinstance(value, PrefectFuture):
        value = value.result()
    if isinstance(value, (str, bytes, dict, unmapped)) or not hasattr(value, "__iter__"):
        return value if isinstance(value, unmapped) else unmapped(value)
    return list(value)


def _element(column: Any, index: int) -> Any:
    return column.value if isinstance(column, unmapped) else column[index]
