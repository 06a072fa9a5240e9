"""Waiting for what another thread will do: in a thread, or in an event loop of asyncio or trio."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from leasehold.concurrency import crash

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable

T = TypeVar("T")


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


def wait_sync(future: concurrent.futures.Future[T], timeout_seconds: float | None = None) -> T:
    """Wait for another thread's future; the main thread looks after its signals meanwhile.

    Raises:
        concurrent.futures.TimeoutError: it is not done in time.
    """
    ends_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    news = threading.Event()
    with crash.waking(news.set):
        future.add_done_callback(lambda _: news.set())
        news.wait(timeout_seconds)
    crash.prepare()
    return future.result(None if ends_at is None else max(ends_at - time.monotonic(), 0.0))


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
