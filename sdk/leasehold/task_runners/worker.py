"""What runs in a process of `ProcessPoolTaskRunner`.

The main thread runs bodies, so that SIGINT and time limits interrupt them; another one listens to
the parent. When the parent is gone the process ends at once: its slots are being given back.

SIGINT is for the body that runs, and reaches it once: Ctrl-C in a terminal comes twice, from the
terminal and from the parent, and the second one must not cut off what the first one has begun.

What a body submits runs in processes of this process, under slots that this process takes, and the
body's own run ends after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.handlers
import os
import pickle
import queue
import signal
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from leasehold import alias, inputs, interrupts, printing
from leasehold.client.wire import Granted
from leasehold.concurrency.lease import Lease, held
from leasehold.context import FlowRunContext, TaskRunContext, resumed
from leasehold.exceptions import CancelledRunError, UnpicklableError
from leasehold.futures import wait
from leasehold.task_runners.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from uuid import UUID

    from typing_extensions import Self

    from leasehold.client.wire import SlotRequest
    from leasehold.runs import TaskRun
    from leasehold.task_runners.base import TaskRunner
    from leasehold.tasks import Task

_PR_SET_PDEATHSIG: Final = 1

#: What workers are called.
NAME: Final = "leasehold-worker"

#: With this code a worker ends whose script calls its flow when it is imported (EX_CONFIG).
CALLED_AT_IMPORT: Final = 78


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker takes over from its parent.

    Attributes:
        levels: of loggers.
        as_prefect: whether our modules are offered as `prefect`.
        workers: how many processes may run what is submitted here.
        setup: a function to be called before the first body, and its arguments; pickled, as they
            may need what is offered as `prefect`.
    """

    levels: dict[str | None, int]
    as_prefect: bool
    workers: int
    setup: bytes

    @classmethod
    def here(cls, workers: int, setup: bytes) -> Self:
        """Read them in the parent."""
        names = (None, "leasehold")
        levels = {name: logging.getLogger(name).getEffectiveLevel() for name in names}
        return cls(levels, alias.is_installed(), workers, setup)

    def take_over(self, pipe: Connection) -> None:
        """Apply them in the worker."""
        if self.as_prefect:
            alias.install()
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)
        logging.getLogger().addHandler(_ToParent(pipe))
        initializer, initargs = pickle.loads(self.setup)  # noqa: S301 - our own parent's
        if initializer is not None:
            initializer(*initargs)

    def task_runner(self) -> TaskRunner:
        """Make the runner for what a body submits."""
        from leasehold.task_runners.processes import ProcessPoolTaskRunner

        initializer, initargs = pickle.loads(self.setup)  # noqa: S301 - likewise
        return ProcessPoolTaskRunner(self.workers, initializer=initializer, initargs=initargs)


@dataclass(frozen=True, slots=True)
class _Held:
    """A lease that the parent holds for this body."""

    request: SlotRequest
    holder_id: UUID | None
    limits: dict[str, int]


@dataclass(frozen=True, slots=True)
class Work:
    """One body to run."""

    task: Task[Any, Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    run: TaskRunContext
    leases: tuple[_Held, ...] = field(default=())

    @classmethod
    def of(cls, run: TaskRun, leases: tuple[Lease, ...]) -> Self:
        """Describe a run, in the parent."""
        args, kwargs = run.context.arguments
        return cls(
            run.task,
            args,
            kwargs,
            run.context,
            tuple(_Held(one.request, one.holder_id, dict(one.limits)) for one in leases),
        )

    def context(self) -> TaskRunContext:
        """Complete the run's context, in the worker."""
        self.run.task, self.run.arguments = self.task, (self.args, self.kwargs)
        return self.run

    def held(self) -> tuple[Lease, ...]:
        """Make leases for `current_lease()`. The parent keeps them: here they do not expire."""
        return tuple(
            Lease(one.request, Granted(one.limits), 0.0, who=self.run.name, holder_id=one.holder_id)
            for one in self.leases
        )


class _ToParent(logging.handlers.QueueHandler):
    """Sends log records to the parent."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(cast("Any", None))
        self._pipe = pipe

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send one; the handler's lock keeps threads apart."""
        send(self._pipe, "log", record)


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, where kernels do that.

    It does so before it tells anybody that the parent has ended. Nothing in here could: not while a
    body holds the interpreter's lock, or is stopped.
    """
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        if os.getppid() != parent:  # it has ended before that
            os._exit(1)


class _Interrupts:
    """SIGINT, at most once in each body; a context manager for the time of a body."""

    def __init__(self) -> None:
        self._open = False
        signal.signal(signal.SIGINT, self._on_signal)

    def __enter__(self) -> None:
        self._open = True
        # Blocked by the parent until here: Ctrl-C during the start is for the first body.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def __exit__(self, *_: object) -> None:
        self._open = False

    def _on_signal(self, *_: object) -> None:
        if self._open:
            self._open = False
            raise KeyboardInterrupt


_sending = threading.Lock()


def send(pipe: Connection, *message: Any) -> None:
    """Send a message to the parent."""
    content = pickle.dumps(message)
    with _sending:
        pipe.send_bytes(content)


def serve(pipe: Connection, surroundings: Surroundings, parent: int) -> None:
    """Run bodies until the parent wants no more."""
    end_with(parent)
    interrupts_of_body = _Interrupts()
    surroundings.take_over(pipe)
    send(pipe, "ready")
    todo: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    listener = threading.Thread(
        target=_listen, args=(pipe, todo), name="leasehold-parent", daemon=True
    )
    listener.start()
    with contextlib.suppress(OSError):  # the parent is gone
        while payload := todo.get():
            answer: tuple[str, bytes | Failure]
            try:
                with interrupts_of_body:
                    value = _run(payload, surroundings)
                answer = ("value", pickle.dumps(value))
            except KeyboardInterrupt:
                answer = ("error", Failure.of(CancelledRunError("The run was interrupted.")))
            except BaseException as error:  # noqa: BLE001 - it is the run's outcome
                answer = ("error", Failure.of(error))
            send(pipe, *answer)


def _listen(pipe: Connection, todo: queue.SimpleQueue[bytes]) -> None:
    try:
        while True:
            todo.put(pipe.recv_bytes())
    except (EOFError, OSError):
        os._exit(1)  # the parent is gone, and with it the slots: not one line more


def _run(payload: bytes, surroundings: Surroundings) -> Any:
    work: Work = pickle.loads(payload)  # noqa: S301 - our own parent's
    context = work.context()
    if context.log_prints:
        printing.watch_prints()
    token = held.set(work.held())
    try:
        with _submitting(context.flow_run, surroundings), resumed(context):
            value = inputs.consumed(_call(work, context.name))
    finally:
        held.reset(token)
    try:
        pickle.dumps(value)
    except Exception as error:
        raise UnpicklableError(
            f"The result of {context.name} ({type(value).__name__}) cannot be pickled, so that it "
            f"cannot leave its process: {error}. Return something simpler.",
            task=work.task.name,
        ) from error
    return value


@contextlib.contextmanager
def _submitting(flow_run: FlowRunContext | None, surroundings: Surroundings) -> Iterator[None]:
    """Let the body submit; wait for what it has submitted."""
    if flow_run is None:
        yield
        return
    with surroundings.task_runner() as runner:
        flow_run.task_runner = runner
        yield
        wait(runner.open_futures())


def _call(work: Work, name: str) -> Any:
    task, seconds = work.task, work.task.timeout_seconds
    if task.isasync:
        return asyncio.run(
            interrupts.call_async(task.in_one_go, work.args, work.kwargs, seconds=seconds, who=name)
        )
    if seconds is None:
        return task.in_one_go(*work.args, **work.kwargs)
    return interrupts.call(
        task.in_one_go,
        work.args,
        work.kwargs,
        body=interrupts.Interruptible(),
        seconds=seconds,
        who=name,
    )
