"""What all task runners share: a submitted run waits without a worker.

A submission goes through four waits, none of which holds a worker: for its inputs, for its slots,
for a free worker, and, after a failed attempt, for the pause before the next one. Slots are asked
for only while workers are free, so that this process does not sit on slots that it cannot use.
"""

from __future__ import annotations

import concurrent.futures
import contextvars
import threading
from abc import ABC, abstractmethod
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from leasehold.concurrency.lease import held
from leasehold.exceptions import CancelledRunError, UpstreamFailedError
from leasehold.futures import PrefectFuture
from leasehold.logging import set_up_console
from leasehold.runs import TaskRun, find_futures
from leasehold.states import Cancelled, NotReady

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from typing_extensions import Self

    from leasehold.client.wire import SlotRequest
    from leasehold.concurrency.hold import Hold


class TaskRunner(ABC):
    """Runs what `submit` and `map` hand in; used as a context manager for the time of a flow.

    Args:
        max_workers: how many bodies run at once.
    """

    def __init__(self, max_workers: float) -> None:
        self._max_workers = max_workers
        self._lock = threading.RLock()
        self._open: set[_Submission] = set()
        self._drained: concurrent.futures.Future[None] | None = None
        self._busy = 0
        self._asked: Counter[SlotRequest] = Counter()
        self._lines: dict[SlotRequest, deque[_Submission]] = {}

    @abstractmethod
    def execute(self, work: Callable[[], None]) -> None:
        """Have a worker call `work`, now or when one is free."""

    @abstractmethod
    def duplicate(self) -> Self:
        """Make a fresh one of the same kind and size: each flow run has its own."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shut_down(cancel=error is not None)

    def shut_down(self, *, cancel: bool) -> None:
        """End the workers; with `cancel`, what has not started never does."""
        if cancel:
            self.cancel_all()

    def submit(
        self, run: TaskRun, wait_for: Iterable[PrefectFuture[Any]] = ()
    ) -> PrefectFuture[Any]:
        """Take a run in; returns at once.

        Args:
            run: what to run.
            wait_for: futures to wait for besides those among the run's inputs.
        """
        set_up_console()
        submission = _Submission(self, run, tuple(wait_for))
        with self._lock:
            self._open.add(submission)
        submission.wait_for_inputs()
        return submission.future

    def drain(self) -> concurrent.futures.Future[None]:
        """Give a future that is done when everything taken in so far has ended."""
        with self._lock:
            if self._drained is None:
                self._drained = concurrent.futures.Future()
            drained = self._drained
        self._ended(None)
        return drained

    def cancel_all(self) -> None:
        """Cancel what waits; bodies that run go on to their end."""
        with self._lock:
            waiting = list(self._open)
            self._lines.clear()
        for submission in waiting:
            submission.cancel()

    # -- for submissions

    def _wait_for_slots(self, submission: _Submission, hold: Hold) -> None:
        """Ask for slots when a worker is free to use them."""
        with self._lock:
            line = self._lines.setdefault(hold.acquisition.request, deque())
            line.append(submission)
        self._ask()

    def _ask(self) -> None:
        starting = []
        with self._lock:
            free = self._max_workers - self._busy
            for request, line in list(self._lines.items()):
                while line and self._asked[request] < free:
                    self._asked[request] += 1
                    starting.append(line.popleft())
                if not line:
                    del self._lines[request]
        for submission in starting:
            submission.ask()

    def _answered(self, request: SlotRequest) -> None:
        with self._lock:
            self._asked[request] -= 1
            if not self._asked[request]:
                del self._asked[request]

    def _work(self, submission: _Submission) -> None:
        with self._lock:
            self._busy += 1
        try:
            self.execute(submission.work)
        except RuntimeError as error:  # the workers are being ended
            self._worker_is_free()
            submission.fail(CancelledRunError(f"The task runner has ended: {error}."))

    def _worker_is_free(self) -> None:
        with self._lock:
            self._busy -= 1
        self._ask()

    def _ended(self, submission: _Submission | None) -> None:
        with self._lock:
            if submission is not None:
                self._open.discard(submission)
            drained = None if self._open else self._drained
            if drained is not None:
                self._drained = None
        if drained is not None:
            drained.set_result(None)


class _Submission:
    """One submitted run on its way."""

    __slots__ = (
        "_context",
        "_hold",
        "_left",
        "_lock",
        "_runner",
        "_timer",
        "_wait_for",
        "future",
        "run",
    )

    def __init__(
        self, runner: TaskRunner, run: TaskRun, wait_for: tuple[PrefectFuture[Any], ...]
    ) -> None:
        self._runner = runner
        self._wait_for = wait_for
        self._hold: Hold | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()
        self._left = 0
        self._context = contextvars.copy_context()
        self._context.run(held.set, ())  # what the submitting code holds, it holds for itself
        self.run = run
        self.future: PrefectFuture[Any] = PrefectFuture(run.context.id, run.context.name)
        run.future = self.future

    def wait_for_inputs(self) -> None:
        """Go on when all inputs are there."""
        inputs = find_futures([self.run.args, self.run.kwargs, self._wait_for])
        if not inputs:
            self._inputs_are_there()
            return
        self._left = len(inputs)
        for future in inputs:
            future.add_done_callback(lambda _: self._one_input_is_there())

    def _one_input_is_there(self) -> None:
        with self._lock:
            self._left -= 1
            done = not self._left
        if done:
            self._inputs_are_there()

    def _inputs_are_there(self) -> None:
        for future in self._wait_for:
            if not future.state.is_completed():
                error = UpstreamFailedError(f"it waits for {future.name}, which failed.")
                self.run.move(NotReady(message=str(error), data=error))
        if self.run.ended or not self.run.resolve_inputs():
            self._runner._ended(self)
        else:
            self._next_attempt()

    def _next_attempt(self) -> None:
        self._timer = None
        if self.run.cancelled:
            return
        try:
            self._hold = self._context.run(self.run.hold)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the run's outcome
            self.fail(error)
            return
        if self._hold is None:
            self._runner._work(self)
        else:
            self._runner._wait_for_slots(self, self._hold)

    def ask(self) -> None:
        """Ask for the slots, and go on when they are granted or refused."""
        assert self._hold is not None
        self._hold.future.add_done_callback(lambda _: self._slots_are_there())
        try:
            self._hold.start()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the run's outcome
            self._hold.future.set_exception(error)

    def _slots_are_there(self) -> None:
        assert self._hold is not None
        self._runner._answered(self._hold.acquisition.request)
        error = self._hold.future.exception()
        if error is not None:
            self.fail(error)
            self._runner._ask()
        elif self.run.cancelled:
            self._hold.abandon()
        else:
            self._runner._work(self)

    def work(self) -> None:
        """Make one attempt; called by a worker."""
        try:
            self._context.run(_attempt, self.run, self._hold)
        finally:
            self._runner._worker_is_free()
            self._go_on()

    def _go_on(self) -> None:
        if self.run.ended:
            self._runner._ended(self)
        elif self.run.delay_seconds:
            self._timer = threading.Timer(self.run.delay_seconds, self._next_attempt)
            self._timer.daemon = True
            self._timer.start()
        else:
            self._next_attempt()

    def fail(self, error: BaseException) -> None:
        """End the run with an error that is not its body's."""
        self.run.raised(error)
        self._runner._ended(self)

    def cancel(self) -> None:
        """Cancel the run, unless its body has begun."""
        self.run.cancelled = True
        if self.run.state.is_running() or self.run.ended:
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._hold is not None:
            self._hold.abandon()
        self.run.move(Cancelled(message="Cancelled before it started."))
        self._runner._ended(self)


def _attempt(run: TaskRun, hold: Hold | None) -> None:
    from leasehold import runs

    if run.task.isasync:
        import asyncio

        asyncio.run(runs.attempt_async(run, hold))
    else:
        runs.attempt(run, hold)
