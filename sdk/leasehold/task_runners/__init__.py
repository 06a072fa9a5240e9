"""Where submitted tasks run."""

from __future__ import annotations

from leasehold.task_runners.base import TaskRunner
from leasehold.task_runners.threads import ThreadPoolTaskRunner

__all__ = ["TaskRunner", "ThreadPoolTaskRunner"]
