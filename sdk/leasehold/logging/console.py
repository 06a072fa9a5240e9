"""A console for those who have not set up logging."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from leasehold import sources
from leasehold.logging.loggers import get_logger

if TYPE_CHECKING:
    _Handler = logging.StreamHandler[Any]
else:
    _Handler = logging.StreamHandler  # Python 3.10 knows it without a parameter only

_ROOT: Final = get_logger()


class _Format(logging.Formatter):
    """Names the run that speaks, or, where another package does, its logger."""

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03d | %(levelname)-7s | %(who)s%(message)s", "%H:%M:%S"
        )

    def format(self, record: logging.LogRecord) -> str:
        record.who = _who(record)
        return super().format(record)


def _who(record: logging.LogRecord) -> str:
    fields = vars(record)
    if record.name == "leasehold.task_runs":
        return f"Task run {fields.get('task_run_name')!r}: "
    if record.name == "leasehold.flow_runs":
        return f"Flow run {fields.get('flow_run_name')!r}: "
    return "" if record.name.partition(".")[0] == _ROOT.name else f"{record.name}: "


class _Console(_Handler):
    """Writes to today's stderr, and only where nobody else would print the line."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(_Format())

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
    found = sources.look_up("LEASEHOLD_LOGGING_LEVEL", "PREFECT_LOGGING_LEVEL")
    level = "INFO" if found is None else _level(found)
    extra = sources.look_up("PREFECT_LOGGING_EXTRA_LOGGERS")
    others = [] if extra is None else extra.words()
    console = _Console()
    for logger in (_ROOT, *map(logging.getLogger, others)):
        if logger.level == logging.NOTSET:
            logger.setLevel(level)
        logger.addHandler(console)


def _level(found: sources.Found) -> str:
    level = str(found.value).strip().upper()
    if not isinstance(logging.getLevelName(level), int):
        raise found.error("DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return level
