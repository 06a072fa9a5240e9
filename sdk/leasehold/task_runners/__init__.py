"""Where submitted tasks run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leasehold.task_runners.base import TaskRunner
from leasehold.task_runners.threads import ThreadPoolTaskRunner

if TYPE_CHECKING:
    from leasehold.task_runners.processes import ProcessPoolTaskRunner as ProcessPoolTaskRunner

__all__ = ["ConcurrentTaskRunner", "ProcessPoolTaskRunner", "TaskRunner", "ThreadPoolTaskRunner"]

#: What older flows call it.
ConcurrentTaskRunner = ThreadPoolTaskRunner


def __getattr__(name: str) -> Any:
    if name != "ProcessPoolTaskRunner":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from leasehold.task_runners.processes import ProcessPoolTaskRunner

    return ProcessPoolTaskRunner
