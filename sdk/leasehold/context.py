"""What is running here, and under which tags.

Kept in context variables, so that threads and event loops stay apart.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import time
import uuid
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from leasehold.exceptions import InvalidTagError, MissingContextError
from leasehold.states import Pending

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Self

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

    def __init__(self, name: str, tags: frozenset[str], *, log_prints: bool | None = None) -> None:
        self.id = uuid.uuid4()
        self.name = name
        self.tags = tags
        self.state: State[Any] = Pending()
        self.run_count = 0
        self.parent = _run.get()
        if log_prints is None:
            log_prints = self.parent is not None and self.parent.log_prints
        self.log_prints = log_prints
        self._created = time.time()

    @property
    def start_time(self) -> dt.datetime:
        """When the run was made."""
        return dt.datetime.fromtimestamp(self._created, dt.timezone.utc)

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
        super().__init__(name, tags, log_prints=flow.log_prints)
        self.flow = flow
        self.parameters: dict[str, Any] = {}
        self.task_runner = task_runner


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
        super().__init__(name, tags, log_prints=task.log_prints)
        self.task = task
        self.arguments = arguments

    @property
    def parameters(self) -> dict[str, Any]:
        """What the function is called with, by the parameters' names."""
        args, kwargs = self.arguments
        return self.task.bound(args, kwargs)

    @property
    def task_run(self) -> TaskRunContext:
        """This."""
        return self


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
    combined = _tags.get() | check_tags(new_tags)
    token = _tags.set(combined)
    try:
        yield set(combined)
    finally:
        _tags.reset(token)


def check_tags(given: Iterable[Any] | None) -> frozenset[str]:
    """Check that tags are strings.

    Raises:
        InvalidTagError: one is not, or a lone string was given where several are wanted.
    """
    if isinstance(given, str):
        raise InvalidTagError(f"tags must be a list of strings: write tags=[{given!r}].", tag=given)
    checked = frozenset(given or ())
    for tag in checked:
        if not isinstance(tag, str) or not tag:
            raise InvalidTagError(
                f"A tag must be a string that is not empty; got {tag!r}.", tag=tag
            )
    return checked
