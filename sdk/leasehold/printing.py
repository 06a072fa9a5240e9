"""`log_prints`: what a run prints goes to its log."""

from __future__ import annotations

import builtins
import sys
from typing import Any

from leasehold.context import current_run
from leasehold.logging import get_run_logger

_print = builtins.print


def watch_prints() -> None:
    """Replace `print` by one that asks the run around it; does nothing twice."""
    if builtins.print is _print:
        builtins.print = _print_or_log


def _print_or_log(*values: Any, **kwargs: Any) -> None:
    run = current_run()
    if run is None or not run.log_prints or kwargs.get("file") not in {None, sys.stdout}:
        _print(*values, **kwargs)
        return
    separator = kwargs.get("sep")
    get_run_logger().info("%s", (" " if separator is None else separator).join(map(str, values)))
