"""Calling functions later: one thread for all of a process's timers.

Retries of many tasks and time limits of many bodies wait here. The thread exists only while
something waits.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leasehold.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

log = get_logger("runs")

_serial = itertools.count()


@dataclass(order=True, slots=True)
class Timer:
    """A call that is to be made later; made by `call_later`."""

    due_at: float
    serial: int
    function: Callable[[], object] | None = field(compare=False)

    def cancel(self) -> None:
        """Do not make the call, unless it is being made already."""
        self.function = None
        _thread.cancelled()


def call_later(seconds: float, function: Callable[[], object]) -> Timer:
    """Have `function` called after `seconds`, on a thread where it must not take long.

    Example:
        >>> timer = call_later(60, print)
        >>> timer.cancel()
    """
    timer = Timer(time.monotonic() + seconds, next(_serial), function)
    _thread.add(timer)
    return timer


def rest(seconds: float = 1.0) -> None:
    """Wait until the thread has ended, if nothing waits any more."""
    _thread.rest(seconds)


class _TimerThread:
    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, timer: Timer) -> None:
        with self._changed:
            heapq.heappush(self._heap, timer)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="leasehold-timers", daemon=True
                )
                self._thread.start()
            elif self._heap[0] is timer:
                self._changed.notify()

    def cancelled(self) -> None:
        with self._changed:
            if all(timer.function is None for timer in self._heap[:1]):
                self._changed.notify()

    def rest(self, seconds: float) -> None:
        with self._changed:
            idle = self._next() is None
            thread = self._thread
        if idle and thread is not None and thread is not threading.current_thread():
            thread.join(seconds)

    def _next(self) -> Timer | None:
        while self._heap and self._heap[0].function is None:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    def _run(self) -> None:
        while True:
            with self._changed:
                timer = self._next()
                if timer is None:
                    self._thread = None
                    return
                seconds = timer.due_at - time.monotonic()
                if seconds > 0:
                    self._changed.wait(seconds)
                    continue
                heapq.heappop(self._heap)
                function = timer.function
            if function is not None:
                try:
                    function()
                except Exception:  # one faulty call must not take the others along
                    log.exception("A delayed call failed in an unforeseen way.")


_thread = _TimerThread()


def _after_fork_in_child() -> None:
    global _thread  # noqa: PLW0603 - one per process is the point
    _thread = _TimerThread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
