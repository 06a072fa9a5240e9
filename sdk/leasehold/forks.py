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
import logging  # noqa: F401 - see above
import os
import threading
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The longest wait of a fork for one of the locks, and of an import for a fork or another import.
#: What takes longer than that hangs, and is not to take others along.
_PATIENCE_SECONDS: Final = 10.0


class Lock(Protocol):
    """What forks can wait for."""

    def acquire(self, *, timeout: float) -> bool:
        """Take it, if that is possible in so many seconds."""
        ...

    def release(self) -> None:
        """Let go of it; called in the parent and in the child."""
        ...


L = TypeVar("L", bound=Lock)

_locks: Final[list[Lock]] = []
_taken: Final[dict[int, list[Lock]]] = {}


class Rest:
    """Whether the threads that work in the background are at rest, as a lock that forks take.

    They work one at a time. Whoever works takes other locks, too, so forks take this one first;
    and nobody who holds one of those waits for what is done in the background.
    """

    def __init__(self) -> None:
        self._door = threading.Lock()  # a fork that waits goes before the next work
        self._work = threading.RLock()

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

    def acquire(self, *, timeout: float) -> bool:
        """Wait for a rest, and make it last; whoever works may fork, too."""
        if not self._door.acquire(timeout=timeout):
            return False
        if self._work.acquire(timeout=timeout):
            return True
        self._door.release()
        return False

    def release(self) -> None:
        """Let the work go on."""
        self._work.release()
        self._door.release()

    def start_anew(self) -> None:
        """In a forked child: whoever was at work is not here."""
        self._door, self._work = threading.Lock(), threading.RLock()

    def _begin(self) -> None:
        with self._door:
            self._work.acquire()


def waiting_for(lock: L) -> L:
    """Have forks wait for a lock that is held for short times only; in the child it is free.

    Example:
        >>> changes = waiting_for(threading.Lock())

    Args:
        lock: a lock; whoever holds it takes none that was handed in before it.
    """
    _locks.append(lock)
    return lock


background: Final = waiting_for(Rest())
_importing: Final = waiting_for(threading.RLock())


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


def _before() -> None:
    # One after the other: when nothing is being imported any more, all are known.
    taken = _taken[threading.get_ident()] = []
    for lock in _locks:
        if lock.acquire(timeout=_PATIENCE_SECONDS):
            taken.append(lock)  # noqa: PERF401 - at once, because an interrupt may come


def _after() -> None:
    for lock in reversed(_taken.pop(threading.get_ident(), [])):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
    os.register_at_fork(after_in_child=background.start_anew)
