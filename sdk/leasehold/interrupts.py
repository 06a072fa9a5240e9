"""Ending a body from outside: time limits, and the cancellation of a flow.

What can be interrupted:

- an async body: at its next `await`;
- a sync body in the main thread: at once, calls that wait in the operating system included
  (`time.sleep`, sockets), unless the program uses SIGALRM itself;
- a sync body in a worker thread: at its next line of Python. A call that blocks in C, as most
  database drivers do, must return first. Where that takes long, a WARNING says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from leasehold.exceptions import CancelledRunError, RunTimeoutError
from leasehold.logging import get_logger
from leasehold.timers import call_later

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

log = get_logger("runs")

#: A body that has not reacted to an interruption after this long is told of, in seconds.
PATIENCE_SECONDS: Final = 1.0


class Interrupted(BaseException):
    """Raised inside a body, so that its `finally` blocks run; never seen outside of it."""


class Interruptible:
    """The time for which a body of this thread may be interrupted by another one.

    Example:
        >>> with Interruptible() as body:
        ...     other_thread_may_call = body.interrupt
    """

    __slots__ = ("_lock", "_open", "sent", "thread")

    def __init__(self) -> None:
        self.sent = False
        self._lock = threading.Lock()
        self._open = False
        self.thread = 0

    @property
    def open(self) -> bool:
        """Whether the body is running."""
        return self._open

    def __enter__(self) -> Self:
        self.thread = threading.get_ident()
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        # An interruption may arrive at any line here. Once the block is closed none is sent any
        # more, and one that was sent and has not arrived is awaited, not taken back: Python would
        # look for it at each call from then on, and 3.11 hangs so where a debugger or coverage
        # traces. Whether it has arrived is not to be known, so another takes its place, if need be.
        try:
            with self._lock:
                self._open = False
            if self.sent:
                _throw(self.thread, Interrupted)
                while True:  # it arrives at once
                    pass
        except Interrupted:
            self._open = False

    def interrupt(self) -> None:
        """Raise `Interrupted` in the body; does nothing twice, or when it has ended."""
        with self._lock:
            if not self._open or self.sent:
                return
            self.sent = True
            if not _alarm.ring(self):
                _throw(self.thread, Interrupted)


def call(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    body: Interruptible,
    seconds: float | None,
    who: str,
) -> Any:
    """Call a sync function that may be interrupted.

    Args:
        function: what to call.
        args: for it.
        kwargs: for it.
        body: through which it may be interrupted.
        seconds: the most it may take, in seconds; None: no end.
        who: what messages call it.

    Raises:
        RunTimeoutError: it took longer.
        CancelledRunError: it was interrupted for another reason.
        Exception: what it raised.
    """
    limit = None if seconds is None else _Limit(body, seconds, who)
    try:
        with _alarm.installed(wanted=seconds is not None), body:
            try:
                return function(*args, **kwargs)
            finally:
                if limit is not None:
                    limit.end()
    except Interrupted:
        if limit is None or not limit.expired:
            raise CancelledRunError(f"{who} was cancelled.", run=who) from None
        raise limit.error() from None


async def call_async(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    seconds: float | None,
    who: str,
) -> Any:
    """Await an async function, for a limited time; see `call`."""
    if seconds is None:
        return await function(*args, **kwargs)
    import anyio

    with anyio.move_on_after(seconds) as scope:
        return await function(*args, **kwargs)
    assert scope.cancelled_caught
    raise _too_long(who, seconds)


class Budget:
    """A time limit on several calls together, as the steps of what yields.

    Args:
        seconds: the most they may take, in seconds; None: no end.
        who: what messages call it.
    """

    def __init__(self, seconds: float | None, who: str) -> None:
        self._seconds = seconds
        self._who = who
        self._spent = 0.0

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Make one of the calls.

        Raises:
            RunTimeoutError: time is up.
        """
        with self._counted() as left:
            return call(function, args, {}, body=Interruptible(), seconds=left, who=self._who)

    async def call_async(self, function: Callable[..., Any], *args: Any) -> Any:
        """Await one of the calls; see `call`."""
        with self._counted() as left:
            return await call_async(function, args, {}, seconds=left, who=self._who)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[float | None]:
        if self._seconds is None:
            yield None
            return
        left = self._seconds - self._spent
        if left <= 0:
            raise _too_long(self._who, self._seconds)
        began = time.monotonic()
        try:
            yield left
        except RunTimeoutError as error:
            if error.timeout_seconds != left:
                raise
            raise _too_long(self._who, self._seconds) from None
        finally:
            self._spent += time.monotonic() - began


class _Limit:
    """A time limit on a body that is running."""

    def __init__(self, body: Interruptible, seconds: float, who: str) -> None:
        self.expired = False
        self._body = body
        self._seconds = seconds
        self._who = who
        self._timer = call_later(seconds, self._expire)

    def end(self) -> None:
        self._timer.cancel()

    def error(self) -> RunTimeoutError:
        return _too_long(self._who, self._seconds)

    def _expire(self) -> None:
        self.expired = True
        self._timer = call_later(PATIENCE_SECONDS, self._tell)
        self._body.interrupt()
        if not self._body.open:
            self._timer.cancel()

    def _tell(self) -> None:
        if self._body.open:
            log.warning(
                "%s has taken longer than its timeout of %g s, but a call in it blocks and cannot "
                "be interrupted from outside. The run ends when that call returns.",
                self._who,
                self._seconds,
            )


def _too_long(who: str, seconds: float) -> RunTimeoutError:
    return RunTimeoutError(
        f"{who} took longer than its timeout of {seconds:g} s.", timeout_seconds=seconds
    )


def _throw(thread: int, kind: type[BaseException]) -> None:
    """Raise `kind` in a thread at its next line, instead of what is not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))


class _Alarm:
    """Interrupts what the main thread waits for in the operating system, by SIGALRM.

    Installed only while a body with a time limit runs there, and only where nobody else uses that
    signal. Once it has rung it stays: a late signal must not meet the default, which is to die.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._rung: Interruptible | None = None

    @contextlib.contextmanager
    def installed(self, *, wanted: bool) -> Iterator[None]:
        """Be ready for the time of the block, if wanted and possible."""
        ours = wanted and self._usable()
        if ours:
            signal.signal(signal.SIGALRM, self._on_signal)
            self._depth += 1
        try:
            yield
        finally:
            if ours:
                self._depth -= 1
                if not self._depth and self._rung is None:
                    signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def ring(self, body: Interruptible) -> bool:
        """Interrupt a body, if it runs in the main thread and the signal is ours."""
        main = threading.main_thread().ident
        if not self._depth or body.thread != main or main is None:
            return False
        self._rung = body
        signal.pthread_kill(main, signal.SIGALRM)
        return True

    def _on_signal(self, *_: object) -> None:
        if self._rung is not None and self._rung.open:
            raise Interrupted

    def _usable(self) -> bool:
        return (
            hasattr(signal, "pthread_kill")
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGALRM) in {signal.SIG_DFL, self._on_signal}
        )


_alarm = _Alarm()
