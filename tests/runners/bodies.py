"""Tasks for worker processes: these import them by name, so they are at the top of a module."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from leasehold import current_lease, get_run_logger, task
from leasehold.context import TaskRunContext
from leasehold.runtime import flow_run, task_run


@task
def pid_of_worker(number: int = 0) -> int:
    """Give the process that runs it."""
    del number
    return os.getpid()


@task
async def add_async(a: int, b: int) -> int:
    """Add, in an event loop."""
    await asyncio.sleep(0)
    return a + b


@task
def count(items: int) -> Any:
    """Yield."""
    yield from range(items)


@task
def fail(text: str) -> None:
    """Raise."""
    raise ZeroDivisionError(text)


@task
def dies(how: str) -> None:
    """End its process."""
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)


@task
def attempts(folder: str) -> int:
    """Kill its process at the first attempt."""
    context = TaskRunContext.get()
    assert context is not None
    if context.run_count == 1:
        Path(folder, "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return context.run_count


@task
def names() -> tuple[str | None, str | None, Any]:
    """Tell what it knows of itself."""
    return task_run.name, flow_run.name, task_run.parameters


@task
def logs(text: str) -> None:
    """Log a line."""
    get_run_logger().info("said in a worker: %s", text)


@task
def prints(text: str) -> None:
    """Print a line."""
    print(text)  # noqa: T201 - what it is for


@task
def unpicklable_result() -> Any:
    """Give what cannot travel."""
    return threading.Lock()


class PickyError(Exception):
    """An error that cannot be unpickled: its arguments are not those of its constructor."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


@task
def fails_pickily() -> None:
    """Raise what cannot travel."""
    raise PickyError("one ", "two")


@task(timeout_seconds=0.5)
def sleeps(seconds: float) -> None:
    """Take longer than it may."""
    time.sleep(seconds)


@task
def holds(log: str, seconds: float) -> tuple[int, list[str]]:
    """Note when it begins and ends, and what it holds."""
    lease = current_lease()
    with Path(log).open("a") as file:
        file.write(f"{time.time()} +1\n")
        file.flush()
        time.sleep(seconds)
        file.write(f"{time.time()} -1\n")
    return os.getpid(), [] if lease is None else list(lease.limits)


@task
def waits_for_interruption(folder: str) -> None:
    """Sleep for long, and note that its `finally` ran."""
    Path(folder, "began").touch()
    try:
        time.sleep(60)
    finally:
        Path(folder, "finally").touch()


@task(retries=1)
def retried_attempts(folder: str) -> int:
    """Kill its process at the first attempt, and tell which one this is."""
    attempt: int = attempts.fn(folder)
    return attempt
