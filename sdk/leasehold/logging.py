"""Loggers, and a console for those who have not set one up.

Everything logs below ``leasehold``: ``leasehold.concurrency`` tells of slots, ``leasehold.runs``
of flows and tasks. A program that has configured logging keeps what it has. In one that has not,
the first run prints INFO lines and worse to stderr, as flow authors know it;
``LEASEHOLD_LOGGING_LEVEL`` or ``PREFECT_LOGGING_LEVEL`` changes the level.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from leasehold.exceptions import MissingContextError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from leasehold.context import RunContext

_ROOT: Final = logging.getLogger("leasehold")

_disabled: ContextVar[bool] = ContextVar("leasehold_run_logger_disabled", default=False)

_SILENT: Final = _ROOT.getChild("silent")
_SILENT.disabled = True


def get_logger(name: str | None = None) -> logging.Logger:
    """Give the logger ``leasehold`` or one below it."""
    return _ROOT if name is None else _ROOT.getChild(name)


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that says which run is speaking."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the run in front of the message."""
        run: RunContext = self.extra["run"]  # type: ignore[index,assignment]
        kwargs["extra"] = {
            **(kwargs.get("extra") or {}),
            "run_name": run.name,
            "run_id": str(run.id),
        }
        return f"{run.kind} {run.name!r}: {msg}", kwargs


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


def get_run_logger() -> RunLogger:
    """Give the logger of the flow or task that is running.

    Example:
        >>> from leasehold import task, get_run_logger
        >>> @task
        ... def load(path):
        ...     get_run_logger().info("Loading %s", path)

    Raises:
        MissingContextError: neither a flow nor a task is running here.
    """
    from leasehold.context import current_run

    run = current_run()
    if _disabled.get():
        return RunLogger(_SILENT, {"run": _Nobody})
    if run is None:
        raise MissingContextError(
            "get_run_logger() was called where neither a flow nor a task is running. Use "
            "leasehold.logging.get_logger() there."
        )
    return RunLogger(get_logger("runs"), {"run": run})


class _Nobody:
    """Stands for the run where there is none."""

    kind, name, id = "No run", "", ""


class _Console(logging.StreamHandler[Any]):
    """Writes to today's stderr, and only where nobody else would print the line."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(
            logging.Formatter("%(asctime)s.%(msecs)03d | %(levelname)-7s | %(message)s", "%H:%M:%S")
        )

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        raise AttributeError("this console always writes to sys.stderr")

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            super().emit(record)


def set_up_console() -> None:
    """Print our own lines if nobody has decided how logging is done. Does nothing twice."""
    if _ROOT.handlers or logging.getLogger().handlers or _ROOT.level != logging.NOTSET:
        return
    variable = next(
        (
            name
            for name in ("LEASEHOLD_LOGGING_LEVEL", "PREFECT_LOGGING_LEVEL")
            if os.environ.get(name)
        ),
        None,
    )
    level = os.environ[variable].strip().upper() if variable else "INFO"
    try:
        _ROOT.setLevel(level)
    except ValueError:
        raise SettingsError(
            f"{variable}={level} is no logging level. Use DEBUG, INFO, WARNING, ERROR or CRITICAL.",
            setting=str(variable),
        ) from None
    _ROOT.addHandler(_Console())
