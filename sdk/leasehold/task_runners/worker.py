"""What runs in a process of `ProcessPoolTaskRunner`.

The main thread runs bodies, so that SIGINT and time limits interrupt them; another one listens to
the parent. When the parent is gone the process ends at once: its slots are being given back.
"""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import os
import pickle
import queue
import threading
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from leasehold import alias, interrupts, printing
from leasehold.client.wire import Granted
from leasehold.concurrency.lease import Lease, held
from leasehold.context import FlowRunContext, RunContext, TaskRunContext, entered
from leasehold.exceptions import CancelledRunError, LeaseholdError, UnpicklableError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from uuid import UUID

    from typing_extensions import Self

    from leasehold.client.wire import SlotRequest
    from leasehold.runs import TaskRun
    from leasehold.tasks import Task


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker takes over from its parent."""

    levels: dict[str | None, int]
    as_prefect: bool

    @classmethod
    def here(cls) -> Self:
        """Read them in the parent."""
        names = (None, "leasehold")
        levels = {name: logging.getLogger(name).getEffectiveLevel() for name in names}
        return cls(levels, as_prefect=alias.is_installed())

    def take_over(self, pipe: Connection) -> None:
        """Apply them in the worker."""
        if self.as_prefect:
            alias.install()
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)
        logging.getLogger().addHandler(_ToParent(pipe))


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
    run: dict[str, Any]
    flow_run: dict[str, Any] | None
    leases: tuple[_Held, ...] = field(default=())

    @classmethod
    def of(cls, run: TaskRun, leases: tuple[Lease, ...]) -> Self:
        """Describe a run, in the parent."""
        args, kwargs = run.context.arguments
        flow_run = run.context.flow_run
        return cls(
            run.task,
            args,
            kwargs,
            _described(run.context),
            None if flow_run is None else _described(flow_run),
            tuple(_Held(one.request, one.holder_id, dict(one.limits)) for one in leases),
        )

    def context(self) -> TaskRunContext:
        """Make the run's context, in the worker."""
        context = TaskRunContext(
            self.task, self.run["name"], self.run["tags"], (self.args, self.kwargs)
        )
        if self.flow_run is not None:
            flow_run = FlowRunContext.__new__(FlowRunContext)
            flow_run.parent = None
            flow_run.parameters = {}
            _restore(flow_run, self.flow_run)
            context.parent = flow_run
        _restore(context, self.run)
        return context

    def held(self) -> tuple[Lease, ...]:
        """Make leases for `current_lease()`. The parent keeps them: here they do not expire."""
        return tuple(
            Lease(
                one.request, Granted(one.limits), 0.0, who=self.run["name"], holder_id=one.holder_id
            )
            for one in self.leases
        )


_DESCRIBED = ("id", "name", "tags", "run_count", "log_prints", "_created")


def _described(run: RunContext) -> dict[str, Any]:
    return {name: getattr(run, name) for name in _DESCRIBED}


def _restore(run: RunContext, described: dict[str, Any]) -> None:
    for name, value in described.items():
        setattr(run, name, value)


class _ToParent(logging.handlers.QueueHandler):
    """Sends log records to the parent."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(cast("Any", None))
        self._pipe = pipe

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send one; the handler's lock keeps threads apart."""
        send(self._pipe, "log", record)


_sending = threading.Lock()


def send(pipe: Connection, *message: Any) -> None:
    """Send a message to the parent."""
    content = pickle.dumps(message)
    with _sending:
        pipe.send_bytes(content)


def serve(pipe: Connection, surroundings: Surroundings) -> None:
    """Run bodies until the parent wants no more."""
    surroundings.take_over(pipe)
    todo: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    listener = threading.Thread(
        target=_listen, args=(pipe, todo), name="leasehold-parent", daemon=True
    )
    listener.start()
    try:
        while payload := todo.get():
            try:
                answer = ("value", pickle.dumps(_run(payload)))
            except KeyboardInterrupt:
                answer = _packed(CancelledRunError("The run was interrupted."))
            except BaseException as error:  # noqa: BLE001 - it is the run's outcome
                answer = _packed(error)
            send(pipe, *answer)
    except (KeyboardInterrupt, OSError):
        return  # Ctrl-C reaches all processes of a terminal; the parent knows it too


def _listen(pipe: Connection, todo: queue.SimpleQueue[bytes]) -> None:
    try:
        while True:
            todo.put(pipe.recv_bytes())
    except (EOFError, OSError):
        os._exit(1)  # the parent is gone, and with it the slots: not one line more


def _run(payload: bytes) -> Any:
    work: Work = pickle.loads(payload)  # noqa: S301 - our own parent's
    context = work.context()
    if context.log_prints:
        printing.watch_prints()
    token = held.set(work.held())
    try:
        with entered(context):
            value = _call(work, context.name)
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


def _packed(error: BaseException) -> tuple[Any, ...]:
    """Make an error ready to travel; one that cannot travels as text alone."""
    text = "".join(traceback.format_exception(error))
    try:
        content = pickle.dumps(error)
        pickle.loads(content)  # noqa: S301 - what we have just written
    except Exception:  # noqa: BLE001 - pickling runs anybody's code
        content = b""
    return "error", content, text


class RemoteError(Exception):
    """The traceback of an error in another process, as the cause of the error here."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


def unpacked(content: bytes, text: str, name: str) -> BaseException:
    """Take an error out again, in the parent."""
    error: BaseException
    try:
        error = pickle.loads(content)  # noqa: S301 - our own child's
    except Exception:  # noqa: BLE001 - unpickling runs anybody's code
        last = text.strip().splitlines()[-1]
        error = LeaseholdError(f"{name} failed in its process with {last}")
    error.__cause__ = RemoteError(text)
    return error
