"""What is running here, and under which tags.

Kept in context variables, so that threads and event loops stay apart.
"""

from __future__ import annotations

import contextlib
import uuid
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from leasehold.exceptions import InvalidTagError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from leasehold.task_runners import TaskRunner


@dataclass(eq=False)
class RunContext:
    """A run, for the code inside it.

    Attributes:
        kind: "Flow run" or "Task run", as messages call it.
        name: the run's name.
        id: the run's id.
        parameters: what the function was called with.
        tags: the tags it runs under.
    """

    kind: str
    name: str
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    parameters: dict[str, Any] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()


@dataclass(eq=False)
class FlowRunContext(RunContext):
    """A flow run: it also knows where its tasks are submitted to."""

    kind: str = "Flow run"
    name: str = ""
    task_runner: TaskRunner | None = None


@dataclass(eq=False)
class TaskRunContext(RunContext):
    """A task run: it also counts its attempts, from 1."""

    kind: str = "Task run"
    name: str = ""
    run_count: int = 0


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


@contextlib.contextmanager
def entered(run: RunContext) -> Iterator[None]:
    """Make `run` the current one for the time of the block."""
    token = _run.set(run)
    flow_token = _flow_run.set(run) if isinstance(run, FlowRunContext) else None
    try:
        yield
    finally:
        _run.reset(token)
        if flow_token is not None:
            _flow_run.reset(flow_token)


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
