"""`@task`: a function whose runs are named, tagged, retried, and held under their tags' limits."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, ParamSpec, TypeVar, overload

from leasehold import generators, inputs, mapping, options, runs
from leasehold.context import check_tags, current_flow_run, current_tags
from leasehold.decorated import Decorated
from leasehold.exceptions import MissingContextError, OptionError, UnsupportedFeatureError
from leasehold.futures import PrefectFuture, PrefectFutureList
from leasehold.utilities.annotations import unmapped

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from leasehold.context import TaskRunContext
    from leasehold.options import RetryDelay
    from leasehold.states import State
    from leasehold.task_runners import TaskRunner

    Hook = Callable[["Task[..., Any]", TaskRunContext, State[Any]], Any]
    RetryCondition = Callable[["Task[..., Any]", TaskRunContext, State[Any]], Any]

__all__ = ["Task", "exponential_backoff", "task", "unmapped"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

OnLeaseLost = Literal["regain", "cancel", "ignore"]


class Task(Decorated, Generic[P, R_co]):
    """A function whose calls are runs; made by `@task`, which documents the arguments.

    Attributes:
        fn: the function itself, to be called without any of this.
        name: what messages call it.
        tags: the tags of every run of it.
    """

    kind = "Task"
    OPTIONS = (
        "name",
        "description",
        "tags",
        "version",
        "task_run_name",
        "retries",
        "retry_delay_seconds",
        "retry_jitter_factor",
        "retry_condition_fn",
        "timeout_seconds",
        "log_prints",
        "on_completion",
        "on_failure",
        "on_running",
        "on_lease_lost",
    )

    fn: Callable[P, R_co]

    def __init__(
        self,
        fn: Callable[P, R_co],
        *,
        name: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        version: str | None = None,
        task_run_name: str | Callable[..., str] | None = None,
        retries: int | None = None,
        retry_delay_seconds: RetryDelay | None = None,
        retry_jitter_factor: float | None = None,
        retry_condition_fn: RetryCondition | None = None,
        timeout_seconds: float | None = None,
        log_prints: bool | None = None,
        on_completion: Iterable[Hook] | None = None,
        on_failure: Iterable[Hook] | None = None,
        on_running: Iterable[Hook] | None = None,
        on_lease_lost: OnLeaseLost | None = None,
    ) -> None:
        super().__init__(
            fn,
            name=name,
            description=description,
            version=version,
            retries=retries,
            retry_delay_seconds=retry_delay_seconds,
            retry_jitter_factor=retry_jitter_factor,
            timeout_seconds=timeout_seconds,
            log_prints=log_prints,
            hooks={
                "on_completion": on_completion,
                "on_failure": on_failure,
                "on_running": on_running,
            },
        )
        who = self.owner
        self.tags = check_tags(tags, who)
        self.task_run_name = options.check_template(
            who, "task_run_name", task_run_name, self.signature
        )
        options.check_function(
            who, "retry_condition_fn", retry_condition_fn, takes=("task", "run", "state")
        )
        self.retry_condition_fn = retry_condition_fn
        if on_lease_lost not in {None, "regain", "cancel", "ignore"}:
            raise OptionError(
                f"{who}: on_lease_lost must be 'regain', 'cancel' or 'ignore'; got "
                f"{on_lease_lost!r}.",
                option="on_lease_lost",
                value=on_lease_lost,
            )
        self.on_lease_lost = on_lease_lost
        self._serial = itertools.count(1)

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    # Of what says nothing of its result: without this, the next one would take it.
    @overload
    def __call__(
        self: Task[P, NoReturn], *args: Any, return_state: Literal[True], **kwargs: Any
    ) -> State[Any]: ...

    @overload
    def __call__(
        self: Task[P, Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[True],
        **kwargs: Any,
    ) -> Coroutine[Any, Any, State[T]]: ...

    @overload
    def __call__(self, *args: Any, return_state: Literal[True], **kwargs: Any) -> State[R_co]: ...

    @overload
    def __call__(self, *args: Any, wait_for: Iterable[Any], **kwargs: Any) -> R_co: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task here, and give its result; an async task is awaited.

        A state that the function returns says how the run ended, and is what the call gives.

        Args:
            args: for the function.
            return_state: give the run's final state instead, whatever became of it.
            wait_for: futures to wait for, whose results are not needed.
            kwargs: for the function.

        Raises:
            ParameterBindError: arguments that the function does not take.
            Exception: what the function raised.
            ConcurrencySlotAcquisitionError: no slot could be had; see `leasehold.exceptions`.
        """
        return_state = kwargs.pop("return_state", False)
        before = kwargs.pop("wait_for", None) or ()
        run = self.run_of(args, kwargs, nested=True)
        if self.isgenerator:
            self.refuse_state(return_state=return_state)
            start = generators.run_async_generator if self.isasync else generators.run_generator
            return start(run, before)
        if self.isasync:
            return self._call_async(run, before, return_state=return_state)
        runs.run_here(run, before)
        return run.state if return_state else run.outcome()

    @overload
    def submit(
        self, *args: Any, return_state: Literal[True], wait_for: Any = None, **kwargs: Any
    ) -> State[R_co]: ...

    @overload
    def submit(
        self: Task[P, Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: Any = None,
        **kwargs: Any,
    ) -> PrefectFuture[T]: ...

    @overload
    def submit(
        self,
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: Any = None,
        **kwargs: Any,
    ) -> PrefectFuture[R_co]: ...

    def submit(
        self,
        *args: Any,
        return_state: bool = False,
        wait_for: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Have the flow's task runner run the task, and go on.

        Example:
            >>> future = load.submit("a.csv")           # doctest: +SKIP
            >>> rows = future.result()

        Args:
            args: for the function; futures among them are waited for and replaced by results.
            return_state: wait for the run to end, and give its state instead of a future.
            wait_for: a future, or several, to wait for, whose results are not needed.
            kwargs: for the function, like `args`.

        Raises:
            MissingContextError: no flow is running here.
            ParameterBindError: arguments that the function does not take.
            UnpicklableError: arguments that cannot travel to a process of `ProcessPoolTaskRunner`.
        """
        runner = self._runner("submit")
        (future,) = runner.take_in(
            [self.run_of(args, kwargs, nested=False)], wait_for=inputs.find(wait_for)
        )
        if return_state:
            future.wait()
            return future.state
        return future

    @overload
    def map(
        self, *args: Any, return_state: Literal[True], wait_for: Any = None, **kwargs: Any
    ) -> list[State[R_co]]: ...

    @overload
    def map(
        self: Task[P, Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: Any = None,
        **kwargs: Any,
    ) -> PrefectFutureList[T]: ...

    @overload
    def map(
        self,
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: Any = None,
        **kwargs: Any,
    ) -> PrefectFutureList[R_co]: ...

    def map(
        self,
        *args: Any,
        return_state: bool = False,
        wait_for: Any = None,
        deferred: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Submit the task once for each element of its arguments.

        Example:
            >>> load.map(["a.csv", "b.csv"], table=unmapped("orders"))  # doctest: +SKIP

        Args:
            args: iterables of the same length, one element for each call. What cannot be iterated
                (and strings, bytes, files), and what is marked `unmapped`, is the same for every
                call.
            return_state: wait for all runs to end, and give their states instead of futures.
            wait_for: a future, or several, to wait for, whose results are not needed.
            deferred: only False.
            kwargs: like `args`.

        Raises:
            MissingContextError: no flow is running here.
            ParameterBindError: nothing to iterate over, or different lengths.
        """
        if deferred:
            raise UnsupportedFeatureError(
                f"{self.name}.map(deferred=True) is for Prefect's background workers, which are "
                "not here. Call it without `deferred`, in a flow.",
                feature="deferred",
            )
        runner = self._runner("map")
        futures: PrefectFutureList[Any] = PrefectFutureList(
            runner.take_in(self.runs_over(args, kwargs), wait_for=inputs.find(wait_for))
        )
        if return_state:
            futures.wait()
            return [future.state for future in futures]
        return futures

    @property
    def in_one_go(self) -> Callable[..., Any]:
        """The function; one that yields gives a list of its items here."""
        return generators.collected(self.fn) if self.isgenerator else self.fn

    def next_run_name(self) -> str:
        """Name the next run by counting; `task_run_name` names it when its inputs are there."""
        return f"{self.name}-{next(self._serial)}"

    def filled_run_name(self, parameters: dict[str, Any]) -> str:
        """Name a run by `task_run_name`.

        Raises:
            OptionError: it gives no name.
        """
        assert self.task_run_name is not None
        return options.fill_template(self.owner, "task_run_name", self.task_run_name, parameters)

    async def _call_async(
        self, run: runs.TaskRun, wait_for: Iterable[Any], *, return_state: bool
    ) -> Any:
        await runs.run_here_async(run, wait_for)
        return run.state if return_state else run.outcome()

    def run_of(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, nested: bool
    ) -> runs.TaskRun:
        """Make a run, under the tags that are in force here; see `TaskRun` for the arguments.

        Raises:
            ParameterBindError: arguments that the function does not take.
        """
        self.check_arguments(args, kwargs)
        tags = current_tags()
        return runs.TaskRun(
            self, args, kwargs, tags=self.tags | tags if tags else self.tags, nested=nested
        )

    def runs_over(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[runs.TaskRun]:
        """Make a run for each element of the arguments; see `map`."""
        for one_args, one_kwargs in mapping.spread(self.name, args, kwargs):
            yield self.run_of(one_args, one_kwargs, nested=False)

    def _runner(self, method: str) -> TaskRunner:
        flow_run = current_flow_run()
        if flow_run is None or flow_run.task_runner is None:
            raise MissingContextError(
                f"{self.name}.{method}() needs a running flow, whose task runner runs it. Call it "
                f"from a function decorated with @flow, or call {self.name}(...) directly."
            )
        return flow_run.task_runner


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(
    fn: None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    tags: Iterable[str] | None = None,
    version: str | None = None,
    task_run_name: str | Callable[..., str] | None = None,
    retries: int | None = None,
    retry_delay_seconds: RetryDelay | None = None,
    retry_jitter_factor: float | None = None,
    retry_condition_fn: RetryCondition | None = None,
    timeout_seconds: float | None = None,
    log_prints: bool | None = None,
    on_completion: Iterable[Hook] | None = None,
    on_failure: Iterable[Hook] | None = None,
    on_running: Iterable[Hook] | None = None,
    on_lease_lost: OnLeaseLost | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(fn: Callable[..., Any] | None = None, /, **given: Any) -> Any:  # noqa: D417 - by their names
    """Make a function a task.

    Example:
        >>> @task(tags=["database"], retries=2, retry_delay_seconds=[1, 10])
        ... def load(path):
        ...     ...

    Args:
        fn: the function, sync or async; it may yield, and it may be a method.
        name: what messages call it; the function's name by default.
        description: for people; the docstring by default.
        tags: every run takes a slot of each tag that has a limit.
        version: for people.
        task_run_name: a template for the names of runs, as "load-{path}", or a function that
            gives one; it may take `parameters`, a dict.
        retries: how often a run that raised starts again.
        retry_delay_seconds: the pause before that, in seconds; one number, one for each retry, or
            a function of `retries` that gives them. It is spent without slots.
        retry_jitter_factor: the share by which that pause varies at random; 0.5: from half of it
            to one and a half times.
        retry_condition_fn: called with the task, the run and its failed state; a run is retried
            only if it gives True.
        timeout_seconds: the most that one attempt's body may take, in seconds; 0: no end. The wait
            for slots does not count. An async body is cancelled. A sync one is interrupted at its
            next line of Python; in the main thread also in calls that wait. In other threads a
            call that blocks must return first.
        log_prints: write what `print` prints to the log; None: as the flow does.
        on_completion: functions of task, run and state, to be called when a run has ended well.
        on_failure: likewise, when it has failed and is not retried.
        on_running: likewise, when an attempt begins.
        on_lease_lost: what to do when a slot is lost under a running body: see `concurrency`.

    Raises:
        UnsupportedOptionError: an option that only Prefect has.
        InvalidTagError: a tag that is not a string.
        OptionError: an option out of its bounds.
    """
    supported = options.only_supported("@task", given, Task.OPTIONS)
    if fn is None:
        return functools.partial(Task, **supported)
    return Task(fn, **supported)


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Make pauses that double with each retry, for `retry_delay_seconds`.

    Example:
        >>> exponential_backoff(10)(3)
        [10, 20, 40]

    Args:
        backoff_factor: the first pause, in seconds.
    """

    def delays(retries: int) -> list[float]:
        return [backoff_factor * 2**retry for retry in range(retries)]

    return delays
