"""Waiting for what another thread will do: in a thread, or in an event loop of asyncio or trio."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from leasehold.concurrency import crash

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable

T = TypeVar("T")

#: How long the main thread waits at a time, in seconds. Python sees a signal that arrives just as a
#: wait begins only when that wait ends (in a test, 19 of 61,785): Ctrl-C would do nothing.
LOOK_SECONDS: Final = 1.0


def waker(function: Callable[[], Any]) -> Callable[[], None]:
    """Wrap `function` so that any thread can have it called on the event loop running here."""
    import asyncio

    try:
        soon: Callable[..., Any] = asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        import trio

        soon = trio.lowlevel.current_trio_token().run_sync_soon

    def wake() -> None:
        # The loop may have ended in the meantime: then nobody is waiting any more.
        with contextlib.suppress(RuntimeError):
            soon(function)

    return wake


def wait_until(look: Callable[[float | None], bool], seconds: float | None = None) -> bool:
    """Wait for something, without missing a signal; say whether it has come.

    Example:
        >>> done = threading.Event()
        >>> wait_until(done.wait, 0.01)
        False

    Args:
        look: waits for it, for a number of seconds at most, and says whether it is there. In the
            main thread it is called again and again, and may come back early.
        seconds: how long to wait at most, in seconds; None: no end.
    """
    if not crash.is_main_thread():
        return look(seconds)
    ends_at = None if seconds is None else time.monotonic() + seconds
    while True:
        left = LOOK_SECONDS if ends_at is None else ends_at - time.monotonic()
        if look(max(min(left, LOOK_SECONDS), 0.0)):
            return True
        if left <= 0:
            return False


def wait_sync(future: concurrent.futures.Future[T], timeout_seconds: float | None = None) -> T:
    """Wait for another thread's future; the main thread looks after its signals meanwhile.

    Raises:
        concurrent.futures.TimeoutError: it is not done in time.
    """
    news = threading.Event()

    def look(seconds: float | None) -> bool:
        news.wait(seconds)
        news.clear()
        crash.prepare()
        return future.done()

    with crash.waking(news.set):
        future.add_done_callback(lambda _: news.set())
        wait_until(look, timeout_seconds)
    return future.result(0)


async def wait_async(future: concurrent.futures.Future[T]) -> T:
    """Wait for another thread's future without blocking the event loop.

    Being cancelled here leaves the future as it is: its owner decides what becomes of it.
    """
    if not future.done():
        import anyio

        done = anyio.Event()
        wake = waker(done.set)
        future.add_done_callback(lambda _: wake())
        with crash.waking(waker(crash.prepare)):
            await done.wait()
    return future.result()
