"""A pool of processes, for bodies that compute.

The parent asks for the slots, and a worker gets a run when they are there: so a task that waits
holds no worker. While a worker runs a body, the slots live and die with it: when the worker dies,
the parent gives them back at once; when the parent ends or dies, the worker ends first, and then
the slots come back.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import logging
import multiprocessing
import os
import pickle
import signal
import time
from multiprocessing import connection, resource_tracker
from typing import TYPE_CHECKING, Any, Final

from leasehold import inputs, runs, timers
from leasehold.concurrency import crash
from leasehold.concurrency.lease import holding
from leasehold.exceptions import (
    CancelledRunError,
    LeaseholdError,
    UnpicklableError,
    WorkerDiedError,
)
from leasehold.task_runners import worker
from leasehold.task_runners.base import TaskRunner
from leasehold.task_runners.threads import WorkerThreads, pool_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.process import BaseProcess
    from types import TracebackType

    from typing_extensions import Self

    from leasehold.concurrency.lease import Lease
    from leasehold.runs import TaskRun
    from leasehold.task_runners.base import Submission

_VARIABLES: Final = (
    "PREFECT_TASKS_RUNNER_PROCESS_POOL_MAX_WORKERS",
    "PREFECT_TASK_RUNNER_PROCESS_POOL_MAX_WORKERS",
)

_GUARD: Final = 'if __name__ == "__main__":'

#: A worker that was asked to stop, and has not, is killed after this long, in seconds.
_STOP_SECONDS: Final = 2.0

#: One that was killed is waited for so long, in seconds, where somebody waits for us.
_KILL_SECONDS: Final = 0.2


class ProcessPoolTaskRunner(TaskRunner):
    """Runs submitted tasks in processes of their own, started afresh ("spawn").

    Tasks, arguments and results travel by pickle, so a task must be at the top of a module, and a
    script needs the usual ``if __name__ == "__main__":``. Log lines of workers appear in this
    process; hooks run here, too. What a task submits runs in processes of its process. Ctrl-C
    interrupts a body once, and kills its process if it has not ended 2 s later.

    Example:
        >>> @flow(task_runner=ProcessPoolTaskRunner(max_workers=4))     # doctest: +SKIP
        ... def render(frames):
        ...     draw.map(frames).wait()

    Args:
        max_workers: how many processes; None: PREFECT_TASKS_RUNNER_PROCESS_POOL_MAX_WORKERS or,
            without it, one for each CPU.
        initializer: called in each process before its first task; it must be importable, too.
        initargs: what it is called with.

    Raises:
        ValueError: `max_workers` is not a whole number above 0.
        SettingsError: the variable is not.
        UnpicklableError: `initializer` cannot travel.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        super().__init__(pool_size(max_workers, _VARIABLES) or os.cpu_count() or 1)
        self.max_workers = max_workers
        self._initializer = initializer
        self._initargs = tuple(initargs)
        try:
            self._setup = pickle.dumps((initializer, self._initargs))
        except Exception as error:
            raise UnpicklableError(
                f"The initializer of ProcessPoolTaskRunner, or an argument for it, cannot be "
                f"pickled: {error}. Define it at the top of a module.",
                task="",
                parameter="initializer",
            ) from error
        self._threads = WorkerThreads(self._max_workers)
        #: Starts the processes. To the kernel a child's parent is the thread that has started it,
        #: so this one lives for longer than all of them: see `worker.end_with`.
        self._nursery = WorkerThreads(1)
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()

    def __enter__(self) -> Self:
        _check_guard()
        crash.work_elsewhere.append(self._cancel_at_once)
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, traceback)
        finally:
            crash.work_elsewhere.remove(self._cancel_at_once)

    def check(self, run: TaskRun) -> None:
        """Refuse a run that cannot travel.

        Raises:
            UnpicklableError: it names the task, and the parameter if one is the cause.
        """
        _check_pickles(run.task, task=run.task.name, parameter=None)
        args, kwargs = run.context.arguments
        for value in (*args, *kwargs.values()):
            if not inputs.find(value) and not _pickles(value):
                # Which one it is costs more to find out, and is only asked now.
                for name, one in run.context.parameters.items():
                    if not inputs.find(one):
                        _check_pickles(one, task=run.task.name, parameter=name)

    def execute(self, work: Callable[[], None]) -> None:
        """Have a thread call `work`: each looks after one process."""
        self._threads.submit(work)

    def attempt(self, submission: Submission) -> None:
        """Make one attempt, its body in a process."""
        process = self._take()
        submission.interrupt = process.interrupt
        if submission.hold is not None:
            submission.hold.acquisition.on_cancel = lambda _: process.kill()
        try:
            runs.attempt(submission.run, submission.hold or runs.NO_SLOTS, process.call)
        finally:
            submission.interrupt = None
            self._give_back(process)

    def end_workers(self, *, wait: bool) -> None:
        """End the processes; without `wait`, kill those that are at work."""
        if not wait:
            with self._lock:
                busy = self._all.difference(self._idle)
            for process in busy:
                process.kill()
        self._threads.end(wait=True)
        for process in self._idle:
            process.end()
        self._idle.clear()
        self._all.clear()
        self._nursery.end(wait=True)

    def duplicate(self) -> Self:
        """Make a fresh one of the same size: each flow run has its own."""
        _check_guard()  # now, before the run says that it has started
        return type(self)(self.max_workers, initializer=self._initializer, initargs=self._initargs)

    def _cancel_at_once(self) -> None:
        with self._lock:
            processes = list(self._all)
        for process in processes:
            process.cancel()
        ends_at = time.monotonic() + _KILL_SECONDS
        for process in processes:
            process.wait(max(ends_at - time.monotonic(), 0))

    def _take(self) -> _Worker:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        process = _Worker(worker.Surroundings.here(self._max_workers, self._setup), self._nursery)
        with self._lock:
            self._all.add(process)
        return process

    def _give_back(self, process: _Worker) -> None:
        with self._lock:
            if process.alive:
                self._idle.append(process)
            else:
                self._all.discard(process)


class _Worker:
    """One process, as its parent sees it.

    Args:
        surroundings: what it takes over.
        nursery: the thread that starts it.
    """

    def __init__(self, surroundings: worker.Surroundings, nursery: WorkerThreads) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=worker.serve,
            args=(theirs, surroundings, os.getpid()),
            name=worker.NAME,
        )
        _call_on(nursery, self._start)
        theirs.close()
        self.alive = True
        self._ended = _end_of(self._process)
        self._ready = False
        self._run: TaskRun | None = None
        self._killer: timers.Timer | None = None

    def _start(self) -> None:
        # A child takes over which signals its starter blocks: Ctrl-C has to wait for the first
        # body. The tracker is started before, because that ends with SIGINT unblocked.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._process.start()

    def call(self, run: TaskRun) -> Any:
        """Have it run a body, and wait for the outcome.

        Raises:
            UnpicklableError: arguments or a result that cannot travel.
            WorkerDiedError: it ended under the body.
            LeaseLostError: it was killed because the slots were lost.
            Exception: what the body raised.
        """
        leases = holding()
        payload = _pickled(run, leases)
        self._run = run
        try:
            self._pipe.send_bytes(payload)
            answer = self._answer()
        except (EOFError, OSError):
            # From None: that the pipe has closed says less than how the process has ended.
            raise self._death(run, leases) from None
        finally:
            self._run = None
            if self._killer is not None:
                self._killer.cancel()
        if answer[0] == "value":
            return pickle.loads(answer[1])  # noqa: S301 - our own child's
        raise answer[1].error(run.context.name)

    def interrupt(self) -> None:
        """Interrupt the body, and kill the process if that does not help."""
        if self._run is not None and self._process.pid is not None:
            self._killer = timers.call_later(_STOP_SECONDS, self._kill_if_busy)
            os.kill(self._process.pid, signal.SIGINT)

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(ValueError):  # it has ended, and nobody refers to it any more
            self._process.kill()

    def cancel(self) -> None:
        """End the process at once, and have the run that it is at count as cancelled."""
        run = self._run
        if run is not None:
            run.cancelled = True
        self.kill()

    def wait(self, seconds: float) -> None:
        """Wait until the process has ended, for so long at most."""
        with contextlib.suppress(ValueError, OSError):  # likewise
            connection.wait([self._ended], seconds)

    def end(self) -> None:
        """End the process in good order; it has no work."""
        try:
            self._pipe.send_bytes(b"")
        except OSError:
            self.kill()
        self.wait(_STOP_SECONDS)
        self.kill()
        self._close()

    def _answer(self) -> Any:
        while True:
            answer = pickle.loads(self._receive())  # noqa: S301 - our own child's
            if answer[0] == "ready":
                self._ready = True
            elif answer[0] == "log":
                _handle(answer[1])
            else:
                return answer

    def _receive(self) -> bytes:
        # When it dies, what its body has started may keep the pipe open.
        ready = connection.wait([self._pipe, self._ended])
        if self._pipe not in ready and not self._pipe.poll():
            raise EOFError
        return self._pipe.recv_bytes()

    def _death(self, run: TaskRun, leases: tuple[Lease, ...]) -> Exception:
        self.wait(_STOP_SECONDS)
        pid, code = self._process.pid or 0, self._process.exitcode
        self.kill()
        self._close()
        if run.task.on_lease_lost == "cancel":
            for lease in leases:
                if lease.lost_reason is not None:
                    return lease.lost_error()
        if run.cancelled:
            return CancelledRunError(f"{run.context.name} was cancelled.")
        if self._ready:
            what = f"{_how(code)} while it ran {run.context.name}. The run has no result; retries=N"
            what += " would run it again."
        elif code == worker.CALLED_AT_IMPORT:
            what = (
                f"did not start: this script, which it imports, calls a flow. Do so below {_GUARD}"
            )
        else:
            what = f"{_how(code)} before it could run {run.context.name}. What it printed says why."
        return WorkerDiedError(f"The worker process {pid} {what}", pid=pid, exit_code=code)

    def _kill_if_busy(self) -> None:
        if self._run is not None:
            self.kill()

    def _close(self) -> None:
        self.alive = False
        self._process.join()
        self._pipe.close()
        if self._ended != self._process.sentinel:
            os.close(self._ended)
        self._process.close()


def _end_of(process: BaseProcess) -> int:
    """Open a descriptor that is readable when a child has ended.

    That of `multiprocessing` is a pipe that the child's own children have, too. So it serves only
    where the kernel has none.
    """
    try:
        return os.pidfd_open(process.pid or 0)
    except (AttributeError, OSError):
        return process.sentinel


def _check_guard() -> None:
    """Refuse to start processes while this process imports the script that has started it.

    Raises:
        LeaseholdError: it does. One of our own workers ends, and leaves the words to its parent.
    """
    this = multiprocessing.current_process()
    if getattr(this, "_inheriting", False):
        if this.name == worker.NAME:
            raise SystemExit(worker.CALLED_AT_IMPORT)
        raise LeaseholdError(
            "This process imports the script that has started it, and came upon a flow that is "
            f"called there. Call it below: {_GUARD}"
        )


def _call_on(threads: WorkerThreads, function: Callable[[], object]) -> None:
    """Have another thread call a function, and wait for it."""
    called: concurrent.futures.Future[object] = concurrent.futures.Future()

    def call() -> None:
        try:
            called.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            called.set_exception(error)

    threads.submit(call)
    called.result()


def _how(code: int | None) -> str:
    if code is None:
        return "closed its pipe"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _handle(record: logging.LogRecord) -> None:
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def _pickled(run: TaskRun, leases: tuple[Lease, ...]) -> bytes:
    try:
        return pickle.dumps(worker.Work.of(run, leases), protocol=pickle.HIGHEST_PROTOCOL)
    except Exception:
        _check_pickles(run.task, task=run.task.name, parameter=None)
        for name, value in run.context.parameters.items():
            _check_pickles(value, task=run.task.name, parameter=name)
        raise


class _Nowhere(io.RawIOBase):
    """Takes what is written to it, and forgets it."""

    def write(self, data: Any) -> int:
        return len(data)


def _pickles(value: Any) -> bool:
    try:
        pickle.Pickler(_Nowhere(), pickle.HIGHEST_PROTOCOL).dump(value)
    except Exception:  # noqa: BLE001 - pickling runs anybody's code
        return False
    return True


def _check_pickles(value: Any, *, task: str, parameter: str | None) -> None:
    try:
        pickle.Pickler(_Nowhere(), pickle.HIGHEST_PROTOCOL).dump(value)
    except UnpicklableError:
        raise
    except Exception as error:
        what = "it" if parameter is None else f"its parameter {parameter!r} ({value!r:.60})"
        raise UnpicklableError(
            f"Task {task!r} cannot run in another process: {what} cannot be pickled: {error}. "
            "Pass something simpler, such as a path, or use ThreadPoolTaskRunner.",
            task=task,
            parameter=parameter,
        ) from error
