"""The default: a pool of threads."""

from __future__ import annotations

import os
import queue
import sys
import threading
from typing import TYPE_CHECKING, Final

from leasehold import interrupts, runs
from leasehold.exceptions import SettingsError
from leasehold.logging import get_logger
from leasehold.task_runners.base import TaskRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from leasehold.task_runners.base import Submission

log = get_logger("runs")

_VARIABLES: Final = (
    "PREFECT_TASKS_RUNNER_THREAD_POOL_MAX_WORKERS",
    "PREFECT_TASK_RUNNER_THREAD_POOL_MAX_WORKERS",
)


class ThreadPoolTaskRunner(TaskRunner):
    """Runs submitted tasks on threads of this process; the default.

    Example:
        >>> @flow(task_runner=ThreadPoolTaskRunner(max_workers=8))      # doctest: +SKIP
        ... def etl(paths):
        ...     load.map(paths).wait()

    Args:
        max_workers: how many bodies run at once; None: PREFECT_TASKS_RUNNER_THREAD_POOL_MAX_WORKERS
            or, without it, as many as there are. Tasks that wait need no thread.

    Raises:
        ValueError: `max_workers` is not a whole number above 0.
        SettingsError: the variable is not.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        size = pool_size(max_workers, _VARIABLES)
        super().__init__(sys.maxsize if size is None else size)
        self.max_workers = max_workers
        self._threads = WorkerThreads(self._max_workers)

    def execute(self, work: Callable[[], None]) -> None:
        """Have a thread call `work`."""
        self._threads.submit(work)

    def attempt(self, submission: Submission) -> None:
        """Make one attempt on this thread."""
        if submission.run.task.isasync:
            import asyncio

            asyncio.run(_attempt_async(submission))
        else:
            body = interrupts.Interruptible()
            submission.interrupt = body.interrupt
            runs.attempt(
                submission.run,
                submission.hold or runs.NO_SLOTS,
                lambda run: runs.call_here(run, body),
            )

    def end_workers(self, *, wait: bool) -> None:
        """Let the threads end; with `wait`, wait until they have."""
        self._threads.end(wait=wait)

    def duplicate(self) -> Self:
        """Make a fresh one of the same size: each flow run has its own."""
        return type(self)(self.max_workers)


async def _attempt_async(submission: Submission) -> None:
    import asyncio

    from leasehold.concurrency.waiting import waker

    task = asyncio.current_task()
    assert task is not None
    submission.interrupt = waker(task.cancel)
    try:
        await runs.attempt_async(submission.run, submission.hold or runs.NO_SLOTS)
    except asyncio.CancelledError:
        if not submission.run.ended:
            raise


class WorkerThreads:
    """Daemon threads that take work from one queue, started as they are needed.

    Unlike those of `concurrent.futures`, they do not keep a process alive that was told to end.

    Args:
        most: how many there may be.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        # An entry for each thread without work (while there may be more threads). They add theirs
        # without the lock: else each would wait for whoever submits, and the other way round, after
        # every piece of work.
        self._idle: list[None] = []
        self._ended = False

    def submit(self, work: Callable[[], None]) -> None:
        """Have a thread call `work`.

        Raises:
            RuntimeError: the threads are being ended.
        """
        with self._lock:
            if self._ended:
                raise RuntimeError("its threads are being ended")
            self._work.put(work)
            if self._idle:
                self._idle.pop()
            elif len(self._threads) < self._most:
                number = len(self._threads) + 1
                thread = threading.Thread(
                    target=self._run, name=f"leasehold-worker-{number}", daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def end(self, *, wait: bool) -> None:
        """Let the threads end after the work they have; with `wait`, wait until they have."""
        with self._lock:
            self._ended = True
            threads = list(self._threads)
        for _ in threads:
            self._work.put(None)
        for thread in threads if wait else ():
            if thread is not threading.current_thread():
                thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:  # one faulty piece must not take the thread along
                log.exception("A piece of work failed in an unforeseen way.")
            except BaseException as error:  # noqa: BLE001 - what a body raised; its run knows it
                log.debug("A body ended its thread's work: %r.", error)
            del work  # so that what it refers to does not live until the next one comes
            self._idle.append(None)


def pool_size(given: int | None, variables: tuple[str, ...]) -> int | None:
    """Read how many workers a runner has; None when nobody said.

    Raises:
        ValueError: `given` is not a whole number above 0.
        SettingsError: the variable is not.
    """
    if given is not None:
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise ValueError(f"max_workers must be a whole number above 0; got {given!r}.")
        return given
    variable = next((name for name in variables if os.environ.get(name)), None)
    if variable is None:
        return None
    text = os.environ[variable]
    if not text.strip().isdecimal() or int(text) < 1:
        raise SettingsError(
            f"{variable} must be a whole number above 0; it is {text!r}.", setting=variable
        )
    return int(text)
