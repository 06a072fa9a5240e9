"""What all task runners share: a submitted run waits without a worker.

A submission goes through four waits, none of which holds a worker: for its inputs, for its slots,
for a free worker, and, after a failed attempt, for the pause before the next one. Slots are asked
for only while workers are free, so that this process does not sit on slots that it cannot use.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from abc import ABC, abstractmethod
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final

from leasehold import deadlocks, inputs, timers
from leasehold.concurrency import lines
from leasehold.concurrency.lease import held
from leasehold.concurrency.waiting import wait_until
from leasehold.exceptions import CancelledRunError
from leasehold.futures import PrefectFuture, PrefectFutureList
from leasehold.logging import get_logger, set_up_console
from leasehold.states import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextvars import Context
    from types import TracebackType

    from typing_extensions import Self

    from leasehold.client.wire import SlotRequest
    from leasehold.concurrency.hold import Hold
    from leasehold.runs import TaskRun
    from leasehold.tasks import Task

log = get_logger("runs")

#: So many runs at most stand in the keeper's queue for the same slots; the others stand in line
#: here, where they cost less memory. More than can fall free at the same moment.
MOST_ASKED: Final = 256

#: Bodies that are interrupted by the end of their flow get this long to run their `finally`.
GRACE_SECONDS: Final = 3.0


class TaskRunner(ABC):
    """Runs what `submit` and `map` hand in; used as a context manager for the time of a flow.

    Args:
        max_workers: how many bodies run at once; `sys.maxsize`: as many as there are.
    """

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers
        self._lock = threading.RLock()
        self._open: dict[Submission, None] = {}
        self._busy = 0
        self._asked: Counter[SlotRequest] = Counter()
        self._lines: dict[SlotRequest, deque[Submission]] = {}
        self._none_open = threading.Condition(self._lock)

    @abstractmethod
    def execute(self, work: Callable[[], None]) -> None:
        """Have a worker call `work`, now or when one is free."""

    @abstractmethod
    def attempt(self, submission: Submission) -> None:
        """Make one attempt at a run, and set `submission.interrupt` for that time."""

    @abstractmethod
    def duplicate(self) -> Self:
        """Make a fresh one of the same kind and size: each flow run has its own."""

    @abstractmethod
    def end_workers(self, *, wait: bool) -> None:
        """Let the workers end; with `wait`, wait until they have."""

    def check(self, run: TaskRun) -> None:  # noqa: B027 - most runners run everything
        """Refuse a run that this runner cannot run."""

    def __enter__(self) -> Self:
        lines.lengths.append(self._in_line)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lines.lengths.remove(self._in_line)
        if error is None:
            self.end_workers(wait=True)
        elif isinstance(error, (Exception, GeneratorExit)):
            self.cancel_waiting()
            self._wait(None)
            self.end_workers(wait=True)
        else:
            self.end_workers(wait=self.interrupt())
        timers.rest()

    def submit(
        self, task: Task[Any, Any], parameters: dict[str, Any], wait_for: Any = None
    ) -> PrefectFuture[Any]:
        """Run a task on this runner, also where no flow is running.

        Example:
            >>> with ThreadPoolTaskRunner(max_workers=2) as runner:     # doctest: +SKIP
            ...     future = runner.submit(load, {"path": "a.csv"})

        Args:
            task: what to run.
            parameters: its arguments, by name; futures among them are replaced by their results.
            wait_for: a future, or several, to wait for, whose results are not needed.

        Raises:
            ParameterBindError: arguments that the task does not take.
        """
        run = task.run_of(*task.unbound(parameters), nested=False)
        return self.take_in([run], inputs.find(wait_for))[0]

    def map(
        self, task: Task[Any, Any], parameters: dict[str, Any], wait_for: Any = None
    ) -> PrefectFutureList[Any]:
        """Run a task on this runner once for each element of its arguments; see `Task.map`."""
        args, kwargs = task.unbound(parameters)
        return PrefectFutureList(self.take_in(task.runs_over(args, kwargs), inputs.find(wait_for)))

    def take_in(
        self, all_runs: Iterable[TaskRun], wait_for: Sequence[PrefectFuture[Any]] = ()
    ) -> list[PrefectFuture[Any]]:
        """Take runs in, which share the surroundings of the code that submits them.

        Args:
            all_runs: what to run.
            wait_for: futures to wait for besides those among the runs' inputs.
        """
        set_up_console()
        context = contextvars.copy_context()
        context.run(held.set, ())  # what the submitting code holds, it holds for itself
        submissions = []
        for run in all_runs:
            self.check(run)
            submissions.append(Submission(self, run, tuple(wait_for), context))
        try:
            with self._lock:
                self._open.update(dict.fromkeys(submissions))
            for submission in submissions:
                submission.run.show()
                submission.wait_for_inputs()
        except BaseException:  # an interruption: nobody will ever have these futures
            for submission in submissions:
                submission.cancel()
            self.ask()  # for others, whose turn it was
            raise
        return [submission.future for submission in submissions]

    @property
    def size(self) -> int:
        """How many bodies run at once."""
        return self._max_workers

    @property
    def is_bounded(self) -> bool:
        """Whether there may be more to run than there are workers for."""
        return self._max_workers < sys.maxsize

    def open_futures(self) -> list[PrefectFuture[Any]]:
        """Give the futures of all runs that have not ended."""
        with self._lock:
            return [submission.future for submission in self._open]

    def cancel_waiting(self) -> None:
        """Cancel what waits; bodies that run go on to their end."""
        with self._lock:
            waiting = list(self._open)
            self._lines.clear()
        for submission in waiting:
            submission.cancel()

    def interrupt(self) -> bool:
        """Cancel what waits, interrupt what runs, and wait a moment for its `finally` blocks.

        False when something goes on all the same.
        """
        self.cancel_waiting()
        with self._lock:
            running = list(self._open)
        for submission in running:
            if submission.interrupt is not None:
                submission.interrupt()
        self._wait(GRACE_SECONDS)
        with self._lock:
            left = [submission.future.name for submission in self._open]
        if left:
            log.warning(
                "Cancelled, but a call blocks in %s and cannot be interrupted from outside. The "
                "process does not wait for it.",
                ", ".join(left[:5]) + (" and others" if len(left) > len(left[:5]) else ""),
            )
        return not left

    def _wait(self, seconds: float | None) -> None:
        with self._none_open:
            wait_until(lambda left: self._none_open.wait_for(lambda: not self._open, left), seconds)

    def _in_line(self, request: SlotRequest) -> int:
        with self._lock:
            return len(self._lines.get(request, ()))

    # -- for submissions

    def wait_for_slots(self, submission: Submission, request: SlotRequest) -> None:
        """Ask for slots when a worker is free to use them."""
        with self._lock:
            line = self._lines.setdefault(request, deque())
            line.append(submission)
        self.ask()

    def ask(self) -> None:
        """Let so many runs ask for slots as workers are free."""
        while (chosen := self._next_to_ask()) is not None:
            submission, request = chosen
            try:
                submission.ask(request)
            except BaseException:  # the code that submits may be interrupted at any line
                if submission.is_in_line:
                    with self._lock:
                        self._lines.setdefault(request, deque()).appendleft(submission)
                    self.answered(request)
                raise

    def _next_to_ask(self) -> tuple[Submission, SlotRequest] | None:
        if not self._lines:  # as where no task is tagged; whoever joins a line asks after that
            return None
        with self._lock:
            free = min(self._max_workers - self._busy, MOST_ASKED)
            for request, line in self._lines.items():
                if self._asked[request] < free:
                    self._asked[request] += 1
                    submission = line.popleft()
                    if not line:
                        del self._lines[request]
                    return submission, request
        return None

    def answered(self, request: SlotRequest) -> None:
        """Take in that somebody's wait for slots is over."""
        with self._lock:
            self._asked[request] -= 1
            if not self._asked[request]:
                del self._asked[request]

    def work(self, submission: Submission) -> None:
        """Have a worker make the next attempt."""
        with self._lock:
            self._busy += 1
        try:
            self.execute(submission.work)
        except RuntimeError as error:  # the workers are being ended
            self.worker_is_free()
            submission.fail(CancelledRunError(f"The task runner has ended: {error}."))

    def worker_is_free(self) -> None:
        """Take in that a worker has done its work."""
        with self._lock:
            self._busy -= 1
        try:
            self.ask()
        except BaseException:
            self.ask()  # who joined the line meanwhile counted on this
            raise

    def ended(self, submission: Submission) -> None:
        """Take in that a run has ended."""
        with self._lock:
            self._open.pop(submission, None)
            if not self._open:
                self._none_open.notify_all()


class Submission:
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
        "interrupt",
        "run",
    )

    def __init__(
        self,
        runner: TaskRunner,
        run: TaskRun,
        wait_for: tuple[PrefectFuture[Any], ...],
        context: Context,
    ) -> None:
        self._runner = runner
        self._wait_for = wait_for
        self._context = context
        self._hold: Hold | None = None
        self._timer: timers.Timer | None = None
        self._lock: threading.Lock | None = None
        self._left = 0
        self.interrupt: Callable[[], None] | None = None
        self.run = run
        self.future: PrefectFuture[Any] = PrefectFuture(run)
        run.future = self.future
        run.runner = runner

    @property
    def hold(self) -> Hold | None:
        """The slots of the attempt that is to be made."""
        return self._hold

    def wait_for_inputs(self) -> None:
        """Go on when all inputs are there."""
        args, kwargs = self.run.context.arguments
        given = [*args, *kwargs.values(), *self._wait_for]
        waited_for = inputs.find(given) if given else []
        if not waited_for:
            self._inputs_are_there()
            return
        self._left = len(waited_for)
        self._lock = threading.Lock()
        for future in waited_for:
            future.add_done_callback(self._one_input_is_there)

    def _one_input_is_there(self, _: PrefectFuture[Any]) -> None:
        assert self._lock is not None
        with self._lock:
            self._left -= 1
            done = not self._left
        if done:
            self._inputs_are_there()

    def _inputs_are_there(self) -> None:
        if self.run.ended:
            return
        # In the surroundings of the code that submitted it, for a function that names runs.
        if self._context.copy().run(self.run.prepare, self._wait_for):
            self._next_attempt()
        else:
            self._runner.ended(self)

    def _next_attempt(self) -> None:
        self._timer = None
        if self.run.cancelled:
            return
        try:
            request = self.run.slots()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the run's outcome
            self.fail(error)
            return
        if request is None:
            self._runner.work(self)
        else:
            self.run.wants = request.names
            self._runner.wait_for_slots(self, request)

    @property
    def is_in_line(self) -> bool:
        """Whether it has not asked for its slots yet."""
        return bool(self.run.wants) and not (self._hold and self._hold.has_started)

    def ask(self, request: SlotRequest) -> None:
        """Ask for the slots, and go on when they are granted or refused."""
        hold = self._hold = self.run.hold()
        error: BaseException | None = None
        if hold is not None:
            try:
                hold.start()
            except Exception as refused:  # noqa: BLE001 - whatever it is, it is the run's outcome
                error = refused
            else:
                if not hold.future.done():
                    hold.future.add_done_callback(lambda _: self._was_answered(request))
                    return
                error = hold.future.exception()
        # It has become known since it stood in line that there is no such limit, or it fails.
        self._slots_are_there(request, error)

    def _was_answered(self, request: SlotRequest) -> None:
        assert self._hold is not None
        self._slots_are_there(request, self._hold.future.exception())
        self._runner.ask()

    def _slots_are_there(self, request: SlotRequest, error: BaseException | None) -> None:
        self.run.wants = ()
        self._runner.answered(request)
        if error is not None:
            self.fail(error)
        elif not self.run.cancelled:
            self._runner.work(self)
        elif self._hold is not None:
            self._hold.abandon()

    def work(self) -> None:
        """Make one attempt; called by a worker."""
        if self.run.cancelled:
            if self._hold is not None:
                self._hold.abandon()
            self._runner.worker_is_free()
            return
        if self._hold is None and self.run.slots() is not None:
            # There was no limit when it was submitted, but that is long ago.
            self._runner.worker_is_free()
            self._next_attempt()
            return
        try:
            context = self._context.copy()
            context.run(deadlocks.working_for.set, self._runner)
            context.run(self._runner.attempt, self)
        except Exception as error:  # noqa: BLE001 - no worker could be had, or it is a bug of ours
            self.run.raised(error)
        finally:
            self.interrupt = None
            self._hold = None
            try:
                self._runner.worker_is_free()
            finally:
                self._go_on()

    def _go_on(self) -> None:
        if self.run.ended:
            self._runner.ended(self)
        elif self.run.cancelled:
            self.cancel()
        elif self.run.delay_seconds:
            self._timer = timers.call_later(self.run.delay_seconds, self._next_attempt)
        else:
            self._next_attempt()

    def fail(self, error: BaseException) -> None:
        """End the run with an error that is not its body's."""
        self.run.raised(error)
        self._runner.ended(self)

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
        self._runner.ended(self)
