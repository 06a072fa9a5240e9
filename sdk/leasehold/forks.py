"""Locks that a fork waits for, and imports on demand that it does not cut in two.

A forked child has one thread. What the others were doing stays half done in it: a lock that one of
them held is locked for ever, and so is a module that one of them was importing. Python looks after
locks of its own, and not after those of modules. So a fork waits for what is kept here.

What our own thread is in the middle of cannot be listed: libraries have locks of their own, for a
first validation, a handshake. So a fork waits until that thread is at rest, which is most of the
time.

What Python keeps over a fork is imported first: a fork takes last what was registered first, so
that whoever is importing something can still log.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - see above
import contextlib
import ctypes
import itertools
import logging  # noqa: F401 - see above
import operator
import os
import signal
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The longest wait of a fork for one of the locks, and of an import for a fork or another import.
#: What takes longer than that hangs, and is not to take others along.
_PATIENCE_SECONDS: Final = 10.0

#: So long after a fork is raised what was raised while it was prepared: it has returned then.
_MOMENT_SECONDS: Final = 0.01


_locks: Final[list[threading.RLock]] = []
_then: Final[dict[int, Callable[[], None]]] = {}


def awaited_lock(then: Callable[[], None] | None = None) -> threading.RLock:
    """Make a lock that forks wait for, to be held for short times only; in the child it is free.

    An RLock, since a signal handler may fork where its own thread holds it.

    Example:
        >>> changes = awaited_lock()

    Args:
        then: what to do before a fork, once it has the lock.

    Whoever holds one takes none that was made before it.
    """
    if then is not None:
        _then[len(_locks)] = then
    _locks.append(threading.RLock())
    return _locks[-1]


class Rest:
    """Whether the threads that work in the background are at rest, which forks wait for.

    They work one at a time. Whoever works takes other locks, too, so forks take these first; and
    nobody who holds one of those waits for what is done in the background.
    """

    def __init__(self) -> None:
        self._door = awaited_lock()  # a fork that waits goes before the next work
        self._work = awaited_lock()

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """Put off forks while something is done, but for the rests in between."""
        self._begin()
        try:
            yield
        finally:
            self._work.release()

    @contextlib.contextmanager
    def rest(self) -> Iterator[None]:
        """Let forks go ahead, amid work."""
        self._work.release()
        try:
            yield
        finally:
            self._begin()

    def start_anew(self) -> None:
        """In a forked child: whoever was at work is not here, or was it and has become this."""
        _free(self._door)
        _free(self._work)

    def _begin(self) -> None:
        with self._door:
            self._work.acquire()


background: Final = Rest()
_importing: Final = awaited_lock()


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """Put off forks while something is imported, or sets itself up.

    Example:
        >>> with put_off():
        ...     import json
    """
    took = _importing.acquire(timeout=_PATIENCE_SECONDS)
    try:
        yield
    finally:
        if took:
            _importing.release()


class _Fork:
    """The locks that one fork takes.

    A signal handler may run at any line here, and raise. But a fork cannot be called off: Python
    would say that the exception is ignored, and go on. So the waits go on, too, and the exception
    is raised once the fork is made. What must not be cut in two is done by one call into C, which
    no handler interrupts.
    """

    def __init__(self) -> None:
        self.is_ready = False
        self._taken: list[threading.RLock] = []
        self._raised: BaseException | None = None

    def take(self) -> None:
        """Take all locks, but for those that are not to be had."""
        # One after the other: when nothing is being imported any more, all are known.
        number = 0
        while number < len(_locks):
            try:
                if _locks[number] not in self._taken:
                    self._take(_locks[number])
                if number in _then and _locks[number] in self._taken:
                    _then[number]()
                number += 1
            except BaseException as error:  # noqa: BLE001, PERF203 - for later
                self._raised = error
        self.is_ready = True

    def let_go(self) -> None:
        """Release what was taken, and is not yet."""
        while self._taken:
            try:
                releases = [lock.release for lock in reversed(self._taken)]
                any(map(_CALL, [*releases, self._taken.clear]))
            except BaseException as error:  # noqa: BLE001, PERF203 - for later
                self._raised = error

    def free_the_rest(self) -> None:
        """In the child: free what other threads have held for too long; they are not here."""
        for lock in _locks:
            if lock not in self._taken:
                _free(lock)

    def raise_again(self) -> None:
        """Have what a signal handler has raised raised in this thread, now that it may be."""
        if self._raised is not None:
            thread = threading.get_ident()
            threading.Timer(_MOMENT_SECONDS, _raise_in, (thread, self._raised)).start()

    def _take(self, lock: threading.RLock) -> None:
        got = map(lock.acquire, (True,), (_PATIENCE_SECONDS,))
        self._taken.extend(itertools.compress((lock,), got))


_CALL: Final = operator.methodcaller("__call__")

#: The forks that a thread is about to make: one, or one in a signal handler amid another.
_forks: Final = threading.local()


def let_go() -> None:
    """Let go of what the forks of this thread have taken: the process ends instead of forking."""
    for fork in getattr(_forks, "all", ()):
        fork.let_go()


def _before() -> None:
    fork = _Fork()
    _forks.all = [*getattr(_forks, "all", ()), fork]
    fork.take()


def _after_in_parent() -> None:
    for fork in _forks.all[-1:]:
        if fork.is_ready:  # else it waits still, and this is called again for one within it
            fork.let_go()
            _forks.all.remove(fork)
            fork.raise_again()


def _after_in_child() -> None:
    fork = _forks.all.pop()
    fork.free_the_rest()
    fork.let_go()
    let_go()  # of what the fork took in whose midst this one was made
    background.start_anew()


def _free(lock: threading.RLock) -> None:
    lock._at_fork_reinit()  # type: ignore[attr-defined] # noqa: SLF001 - as Python's own modules do


def _raise_in(thread: int, error: BaseException) -> None:
    if isinstance(error, KeyboardInterrupt):
        signal.pthread_kill(thread, signal.SIGINT)
    else:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread), ctypes.py_object(type(error))
        )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_after_in_child)
    for _ in range(3):  # a signal that came during the fork may cut one short, and another the next
        os.register_at_fork(after_in_parent=_after_in_parent)
