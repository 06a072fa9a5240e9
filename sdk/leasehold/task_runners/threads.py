"""The default: a pool of threads."""

from __future__ import annotations

import concurrent.futures
import os
import sys
from typing import TYPE_CHECKING, Final

from leasehold.exceptions import SettingsError
from leasehold.task_runners.base import TaskRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

_VARIABLE: Final = "PREFECT_TASK_RUNNER_THREAD_POOL_MAX_WORKERS"


class ThreadPoolTaskRunner(TaskRunner):
    """Runs submitted tasks on threads of this process; the default.

    Example:
        >>> @flow(task_runner=ThreadPoolTaskRunner(max_workers=8))      # doctest: +SKIP
        ... def etl(paths):
        ...     load.map(paths).wait()

    Args:
        max_workers: how many bodies run at once; None: PREFECT_TASK_RUNNER_THREAD_POOL_MAX_WORKERS
            or, without it, as many as there are. Tasks that wait need no thread.

    Raises:
        ValueError: `max_workers` is not a whole number above 0.
        SettingsError: the variable is not.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        if max_workers is None:
            max_workers = _from_environment()
        elif isinstance(max_workers, bool) or not isinstance(max_workers, int) or max_workers < 1:
            raise ValueError(f"max_workers must be a whole number above 0; got {max_workers!r}.")
        super().__init__(max_workers)
        self.max_workers = max_workers
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def execute(self, work: Callable[[], None]) -> None:
        """Have a thread call `work`."""
        with self._lock:
            if self._pool is None:
                self._pool = concurrent.futures.ThreadPoolExecutor(
                    self.max_workers, thread_name_prefix="leasehold-worker"
                )
        self._pool.submit(work)

    def shut_down(self, *, cancel: bool) -> None:
        """End the threads; with `cancel`, what has not started never does."""
        super().shut_down(cancel=cancel)
        if self._pool is not None:
            self._pool.shutdown(wait=not cancel, cancel_futures=cancel)
            self._pool = None

    def duplicate(self) -> Self:
        """Make a fresh one of the same size: each flow run has its own."""
        return type(self)(self.max_workers)


def _from_environment() -> int:
    text = os.environ.get(_VARIABLE)
    if not text:
        return sys.maxsize
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise SettingsError(f"{_VARIABLE} must be a whole number above 0.", setting=_VARIABLE)
    return number
