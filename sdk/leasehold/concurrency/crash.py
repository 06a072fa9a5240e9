"""Giving slots back when a signal ends the process, from inside: where the guard ends with it.

Rules:

1. Nothing is installed in a process that never held a slot.
2. Only a default action is taken over, and it is carried out afterwards: the process dies of the
   signal that it got. Where the program has a handler of its own, that one knows whether the work
   goes on: if it raises or exits, `finally` blocks and `atexit` give the slots back.
3. A second signal ends the process at once.

Python lets the main thread alone install handlers, and slots are mostly granted to others. So the
main thread looks whether it is time, where it enters a block and while it waits for results.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from leasehold import forks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)

#: A default action takes hold of all threads, which may take a moment.
_MOMENT_SECONDS: Final = 1.0

#: Each ends work that other processes do under slots of this one. Called before these slots are
#: given back, on any thread; takes a fraction of a second at most.
work_elsewhere: Final[list[Callable[[], object]]] = []

_close: Callable[[], object] | None = None
_installed = False
_wakes: set[Callable[[], object]] = set()


def arm(close: Callable[[], object]) -> None:
    """Take in that there are slots to give back; `close` does it, within a bounded time."""
    global _close
    first, _close = _close is None, close
    if first:
        for wake in tuple(_wakes):
            wake()


def disarm() -> None:
    """Take in that there is nothing to give back any more, as in a forked child."""
    global _close  # noqa: PLW0603
    _close = None


def prepare() -> None:
    """Install the handlers, if it is time and this is the main thread."""
    global _installed  # noqa: PLW0603
    if _installed or _close is None or not is_main_thread():
        return
    _installed = True
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


@contextlib.contextmanager
def waking(wake: Callable[[], object]) -> Iterator[None]:
    """Have `wake` called when it is time to `prepare`, if this is the main thread and it waits."""
    if _installed or not is_main_thread():
        yield
        return
    _wakes.add(wake)
    if _close is not None:  # since a moment ago
        wake()
    try:
        yield
    finally:
        _wakes.discard(wake)


def is_main_thread() -> bool:
    """Say whether this is the thread that gets the signals."""
    return threading.current_thread() is threading.main_thread()


def _end(number: int, _: Any) -> None:
    """Give everything back, then do what the signal does by default."""
    for one in _SIGNALS:
        if signal.getsignal(one) is _end:
            signal.signal(one, signal.SIG_DFL)
    forks.let_go()
    try:
        if _close is not None:
            _close()
    finally:  # Ctrl-C during the release is a second signal, too
        if os.getpid() != 1:
            os.kill(os.getpid(), number)
            time.sleep(_MOMENT_SECONDS)
        # The first process of a PID namespace is spared by the default action: its status says it.
        os._exit(128 + number)
