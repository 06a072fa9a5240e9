"""Loggers, and a console for those who have not set one up.

Everything logs below ``leasehold``: ``leasehold.concurrency`` tells of slots, ``leasehold.runs`` of
what becomes of flows and tasks, ``leasehold.flow_runs`` and ``leasehold.task_runs`` are what their
authors log. A program that has configured logging keeps what it has. In one that has not, the
first run prints INFO lines and worse to stderr, as flow authors know it;
``LEASEHOLD_LOGGING_LEVEL`` or ``PREFECT_LOGGING_LEVEL`` changes the level, and
``PREFECT_LOGGING_EXTRA_LOGGERS`` names other loggers that are to be seen there, too.
"""

from __future__ import annotations

from leasehold.logging.console import set_up_console
from leasehold.logging.loggers import (
    RunLogger,
    disable_run_logger,
    flow_run_logger,
    get_logger,
    get_run_logger,
    logger_about,
    task_run_logger,
)

__all__ = [
    "RunLogger",
    "disable_run_logger",
    "flow_run_logger",
    "get_logger",
    "get_run_logger",
    "logger_about",
    "set_up_console",
    "task_run_logger",
]
