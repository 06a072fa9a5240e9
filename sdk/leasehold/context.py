"""What is running here, and under which tags.

Kept in context variables, so that threads and event loops stay apart. A run may travel to another
process, where it is who speaks in the log; its function, its arguments and its task runner stay.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import time
import uuid
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from leasehold.exceptions import InvalidTagError, MissingContextError
from leasehold.states import Pending, Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from typing_extensions import Self

    from leasehold.decorated import Decorated
    from leasehold.flows import Flow
    from leasehold.states import State
    from leasehold.task_runners import TaskRunner
    from leasehold.tasks import Task


class RunContext:
    """A run, for the code inside it and for hooks.

    Attributes:
        kind: "Flow run" or "Task run", as messages call it.
        name: the run's name.
        id: the run's id.
        tags: the tags it runs under.
        state: what is known of it now.
        run_count: how many attempts were begun.
        log_prints: whether `print` in it writes to the log.
        parent: the run that it was started from.
    """

    __slots__ = ("_created", "id", "log_prints", "name", "parent", "run_count", "state", "tags")

    kind = "Run"
    log_prints: bool
    parent: RunContext | None

    def __init__(self, name: str, tags: frozenset[str], subject: Decorated) -> None:
        self.id = uuid.UUID(int=_ids.getrandbits(128), version=4)
        self.name = name
        self.tags = tags
        self.state: State[Any] = Pending()
        self.run_count = 0
        self.parent = _run.get()
        log_prints = subject.log_prints
        if log_prints is None:
            log_prints = subject.logs_prints if self.parent is None else self.parent.log_prints
        self.log_prints = log_prints
        self._created = time.time()

    @property
    def start_time(self) -> dt.datetime:
        """When the run was made."""
        return dt.datetime.fromtimestamp(self._created, dt.timezone.utc)

    @property
    def expected_start_time(self) -> dt.datetime:
        """When the run was to start: at once."""
        return self.start_time

    @property
    def task_run(self) -> TaskRunContext | None:
        """The task run that this is."""
        return None

    @property
    def flow_run(self) -> FlowRunContext | None:
        """The flow run that this is, or that it is part of."""
        run: RunContext | None = self
        while run is not None and not isinstance(run, FlowRunContext):
            run = run.parent
        return run

    @property
    def flow_run_id(self) -> uuid.UUID | None:
        """The id of that flow run."""
        flow_run = self.flow_run
        return None if flow_run is None else flow_run.id

    @property
    def log_fields(self) -> dict[str, str]:
        """What the records of its loggers say of it, by Prefect's names."""
        return {}

    @property
    def subject(self) -> Any:
        """The flow or the task whose run this is."""
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        names = ("_created", "id", "log_prints", "name", "parent", "run_count", "tags")
        kept = {name: getattr(self, name) for name in names}
        return _arrived, (type(self), kept, _Subject(self.subject.name, self.subject.version))

    @classmethod
    def get(cls) -> Self | None:
        """Give the innermost run of this kind that is under way here."""
        run = _run.get()
        while run is not None and not isinstance(run, cls):
            run = run.parent
        return run


class FlowRunContext(RunContext):
    """A flow run.

    Attributes:
        flow: whose run.
        parameters: what the function was called with.
        task_runner: where its tasks are submitted to.
    """

    __slots__ = ("flow", "parameters", "task_runner")

    kind = "Flow run"

    def __init__(
        self, flow: Flow[Any, Any], name: str, tags: frozenset[str], task_runner: TaskRunner
    ) -> None:
        super().__init__(name, tags, flow)
        self.flow = flow
        self.parameters: dict[str, Any] = {}
        self.task_runner = task_runner

    @property
    def subject(self) -> Any:
        """The flow."""
        return self.flow

    @property
    def log_fields(self) -> dict[str, str]:
        """What the records of its loggers say of it, by Prefect's names."""
        return {
            "flow_run_name": self.name,
            "flow_run_id": str(self.id),
            "flow_name": self.flow.name,
        }


class TaskRunContext(RunContext):
    """A task run.

    Attributes:
        task: whose run.
        arguments: what the function is called with, positional and by name.
    """

    __slots__ = ("arguments", "task")

    kind = "Task run"

    def __init__(
        self,
        task: Task[Any, Any],
        name: str,
        tags: frozenset[str],
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
    ) -> None:
        super().__init__(name, tags, task)
        self.task = task
        self.arguments = arguments

    @property
    def subject(self) -> Any:
        """The task."""
        return self.task

    @property
    def parameters(self) -> dict[str, Any]:
        """What the function is called with, by the parameters' names."""
        args, kwargs = self.arguments
        return self.task.bound(args, kwargs)

    @property
    def log_fields(self) -> dict[str, str]:
        """What the records of its loggers say of it, and of its flow run."""
        flow_run = self.flow_run
        return {
            "task_run_name": self.name,
            "task_run_id": str(self.id),
            "task_name": self.task.name,
            **({} if flow_run is None else flow_run.log_fields),
        }

    @property
    def task_run(self) -> TaskRunContext:
        """This."""
        return self


class _Subject(NamedTuple):
    """Stands for a task or a flow in another process."""

    name: str
    version: str | None

    def bound(self, *_: object) -> dict[str, Any]:
        """Give no parameters: arguments have not travelled."""
        return {}


def _arrived(kind: type[RunContext], kept: dict[str, Any], subject: _Subject) -> RunContext:
    """Make a run's context again, in another process."""
    run = kind.__new__(kind)
    for name, value in kept.items():
        setattr(run, name, value)
    run.state = Running()
    if isinstance(run, FlowRunContext):
        run.flow = cast("Flow[Any, Any]", subject)
        run.parameters = {}
        run.task_runner = None  # type: ignore[assignment] # where there is one, it is set
    elif isinstance(run, TaskRunContext):
        run.task = cast("Task[Any, Any]", subject)
        run.arguments = (), {}
    return run


#: Where runs' ids come from: to ask the system for each takes longer than to make the run.
_ids: Final = random.Random()  # noqa: S311 - tells runs apart, guards nothing

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)  # a child's runs are not its parent's


_flow_run: ContextVar[FlowRunContext | None] = ContextVar("leasehold_flow_run", default=None)
_run: ContextVar[RunContext | None] = ContextVar("leasehold_run", default=None)
_tags: ContextVar[frozenset[str]] = ContextVar("leasehold_tags", default=frozenset())


def current_run() -> RunContext | None:
    """Give the innermost run that is under way here."""
    return _run.get()


def current_flow_run() -> FlowRunContext | None:
    """Give the innermost flow run that is under way here."""
    return _flow_run.get()


def current_tags() -> frozenset[str]:
    """Give the tags of the enclosing `with tags(...)` blocks."""
    return _tags.get()


def get_run_context() -> RunContext:
    """Give the innermost run that is under way here.

    Example:
        >>> @task                                       # doctest: +SKIP
        ... def load(path):
        ...     print(get_run_context().task_run.name)

    Raises:
        MissingContextError: neither a flow nor a task is running here.
    """
    run = _run.get()
    if run is None:
        raise MissingContextError(
            "get_run_context() was called where neither a flow nor a task is running."
        )
    return run


class entered:  # noqa: N801 - reads as a statement: with entered(run)
    """Make `run` the current one for the time of the block."""

    __slots__ = ("_flow_token", "_run", "_token")

    def __init__(self, run: RunContext) -> None:
        self._run = run

    def __enter__(self) -> None:
        run = self._run
        self._token = _run.set(run)
        self._flow_token = _flow_run.set(run) if isinstance(run, FlowRunContext) else None

    def __exit__(self, *_: object) -> None:
        _run.reset(self._token)
        if self._flow_token is not None:
            _flow_run.reset(self._flow_token)


class with_context:  # noqa: N801 - the name flow authors know
    """Have a function run in the surroundings of the code here, also in another process.

    Example:
        >>> with multiprocessing.Pool() as pool:        # doctest: +SKIP
        ...     pool.map(with_context(work), items)

    Args:
        function: the function; in it, `get_run_logger` and the like know the run that is here.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._run = _run.get()
        self._tags = _tags.get()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        with tags(*self._tags), resumed(self._run):
            return self._function(*args, **kwargs)


@contextlib.contextmanager
def resumed(run: RunContext | None) -> Iterator[None]:
    """Make a run that has begun elsewhere the current one, and its flow run too."""
    if run is None:
        yield
        return
    token = _flow_run.set(run.flow_run)
    try:
        with entered(run):
            yield
    finally:
        _flow_run.reset(token)


@contextlib.contextmanager
def tags(*new_tags: str) -> Iterator[set[str]]:
    """Add tags to every task that is called, submitted or mapped in the block.

    Example:
        >>> with tags("database"):                      # doctest: +SKIP
        ...     load.submit("a.csv")

    Args:
        new_tags: the tags; they add to those of enclosing blocks.

    Raises:
        InvalidTagError: a tag that is not a string.
    """
    combined = _tags.get() | check_tags(new_tags, "tags()")
    token = _tags.set(combined)
    try:
        yield set(combined)
    finally:
        _tags.reset(token)


def check_tags(given: Iterable[Any] | None, owner: str = "") -> frozenset[str]:
    """Check that tags are strings.

    Args:
        given: the tags.
        owner: whose, for messages; as "Task 'load'".

    Raises:
        InvalidTagError: one is not, or a lone string was given where several are wanted.
    """
    who = f"{owner}: " if owner else ""
    if isinstance(given, str):
        raise InvalidTagError(
            f"{who}tags must be a list of strings: write tags=[{given!r}].", tag=given
        )
    try:
        tags = list(given or ())
    except TypeError:
        raise InvalidTagError(
            f"{who}tags must be a list of strings; got {given!r}.", tag=given
        ) from None
    for tag in tags:
        if not isinstance(tag, str) or not tag:
            raise InvalidTagError(
                f"{who}a tag must be a string that is not empty; got {tag!r}.", tag=tag
            )
    return frozenset(tags)
