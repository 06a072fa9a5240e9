"""Waiting in an event loop, asyncio's or trio's, for what another thread will do."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

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


async def wait_async(future: concurrent.futures.Future[T]) -> T:
    """Wait for another thread's future without blocking the event loop.

    Being cancelled here leaves the future as it is: its owner decides what becomes of it.
    """
    if not future.done():
        import anyio

        done = anyio.Event()
        wake = waker(done.set)
        future.add_done_callback(lambda _: wake())
        await done.wait()
    return future.result()
