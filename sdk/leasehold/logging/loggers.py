"""Loggers of runs: what flow authors log, and what this package says of a run.

Records say whose they are in attributes with Prefect's names, for formats of one's own:
``flow_run_name``, ``flow_run_id``, ``flow_name``, ``task_run_name``, ``task_run_id`` and
``task_name``.
"""

from __future__ import annotations

import contextlib
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from leasehold.exceptions import MissingContextError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping

    from leasehold.context import RunContext

    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter  # Python 3.10 knows it without a parameter only

_ROOT: Final = logging.getLogger("leasehold")

_disabled: ContextVar[bool] = ContextVar("leasehold_run_logger_disabled", default=False)

_SILENT: Final = _ROOT.getChild("silent")
_SILENT.disabled = True


def get_logger(name: str | None = None) -> logging.Logger:
    """Give the logger ``leasehold`` or one below it."""
    return _ROOT if name is None else _ROOT.getChild(name)


class RunLogger(_Adapter):
    """A logger of one run: its records carry the run, as attributes.

    Args:
        logger: what it writes to.
        extra: the attributes.
    """

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the attributes, unless the line brings its own."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


class _NamingLogger(RunLogger):
    """What this package says of a run: the message names it, whoever prints it."""

    def __init__(self, run: RunContext) -> None:
        super().__init__(get_logger("runs"), run.log_fields)
        self._who = f"{run.kind} {run.name!r}"

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Put the run in front of the message."""
        super().log(level, f"%s: {msg}", self._who, *args, **kwargs)


def logger_about(run: RunContext) -> RunLogger:
    """Give a logger for what this package says of a run; its messages name the run."""
    return _NamingLogger(run)


@contextlib.contextmanager
def disable_run_logger() -> Iterator[None]:
    """Let `get_run_logger` work where nothing runs, and say nothing: for tests of `task.fn`.

    Example:
        >>> with disable_run_logger():                  # doctest: +SKIP
        ...     load.fn("a.csv")
    """
    token = _disabled.set(True)
    try:
        yield
    finally:
        _disabled.reset(token)


def get_run_logger(context: RunContext | None = None, **extra: Any) -> RunLogger:
    """Give the logger of the flow or task that is running.

    Example:
        >>> from leasehold import task, get_run_logger
        >>> @task
        ... def load(path):
        ...     get_run_logger().info("Loading %s", path)

    Args:
        context: another run, as `FlowRunContext.get()` gives the flow's inside of a task.
        extra: more attributes for its records.

    Raises:
        MissingContextError: neither a flow nor a task is running here.
    """
    from leasehold.context import current_run

    run = context or current_run()
    if _disabled.get():
        return RunLogger(_SILENT, extra)
    if run is None:
        raise MissingContextError(
            "get_run_logger() was called where neither a flow nor a task is running. Use "
            "leasehold.logging.get_logger() there."
        )
    return _logger_of(run, extra)


def flow_run_logger(flow_run: RunContext, flow: Any = None, **extra: Any) -> RunLogger:
    """Give the logger of a flow run, for hooks, which run outside of it.

    Example:
        >>> def tell(flow, flow_run, state):
        ...     flow_run_logger(flow_run, flow).info("It is %s now.", state.name)

    Args:
        flow_run: what the hook got.
        flow: likewise; the run knows it, too.
        extra: more attributes for its records.
    """
    del flow
    return _logger_of(flow_run, extra)


def task_run_logger(
    task_run: RunContext, task: Any = None, flow_run: Any = None, flow: Any = None, **extra: Any
) -> RunLogger:
    """Give the logger of a task run, for hooks, which run outside of it; see `flow_run_logger`."""
    del task, flow_run, flow
    return _logger_of(task_run, extra)


def _logger_of(run: RunContext, extra: Mapping[str, Any]) -> RunLogger:
    name = "flow_runs" if run.task_run is None else "task_runs"
    return RunLogger(get_logger(name), {**run.log_fields, **extra})
