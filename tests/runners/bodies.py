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
def names_of_flow() -> tuple[str | None, str]:
    """Tell what it knows of its flow."""
    context = TaskRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return flow_run.flow_name, context.flow_run.name


@task
def submits(items: int) -> list[int]:
    """Submit to other processes."""
    return [*pid_of_worker.map(range(items)).result(), os.getpid()]


@task(tags=["narrow"])
def narrow() -> str:
    """Need a slot."""
    return "ran"


@task(tags=["narrow"])
def submits_narrow() -> str:
    """Wait for what needs the slot that it holds."""
    return narrow.submit().result()


@task
def submits_to(other: Any) -> Any:
    """Submit a task that it gets, and wait for it."""
    return other.submit().result()


@task
def forgets(path: str) -> None:
    """Submit, and do not wait."""
    touches.submit(path)


@task
def touches(path: str) -> None:
    """Take a moment, and leave a trace."""
    time.sleep(0.2)
    Path(path).touch()


was_set_up: list[str] = []


def set_up(*words: str) -> None:
    """Be called in each process first."""
    was_set_up.extend(words)


@task
def tells_setup() -> list[str]:
    """Tell what was set up."""
    return was_set_up


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
    """An error that pickle cannot make anew: its arguments are not those of its constructor."""

    def __init__(self, first: str, *, second: str) -> None:
        super().__init__(first + second)
        self.second = second


class LockedError(OSError):
    """An error that cannot travel with all that it has."""

    def __init__(self, path: str) -> None:
        super().__init__(13, "locked", path)
        self.path, self.lock = path, threading.Lock()


@task
def fails_pickily() -> None:
    """Raise what pickle cannot make anew."""
    raise PickyError("one ", second="two")


@task
def fails_with_baggage() -> None:
    """Raise what cannot travel with all that it has."""
    raise LockedError("a.csv")


@task
def fails_locally() -> None:
    """Raise what nobody else can import."""

    class LocalError(Exception):
        pass

    raise LocalError("one two")


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
    try:
        Path(folder, "began").touch()
        time.sleep(60)
    finally:
        Path(folder, "finally").touch()
