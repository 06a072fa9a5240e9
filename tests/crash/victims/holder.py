"""A process that takes a slot and then dies: ``python holder.py KIND DEATH LIMIT GO``.

KIND is how the slot is held, LIMIT the tag or, for a block, the limit. When the slot is held, a
line of JSON says which processes there are. Then the body waits for the file GO, and does what
DEATH says; or it goes on waiting to be killed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import json
import multiprocessing
import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from leasehold import flow, tags, task
from leasehold.concurrency.sync import concurrency
from leasehold.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_SECONDS: Final = 90.0


def body(death: str, go: str) -> None:
    """Hold the slot until death."""
    heir = fork_an_heir() if death in {"killed parent", "killed worker"} else None
    pids = {"main": int(os.environ["VICTIM"]), "holder": os.getpid(), "heir": heir}
    os.write(1, json.dumps(pids).encode() + b"\n")
    ends_at = time.monotonic() + MOST_SECONDS
    while not Path(go).exists() and time.monotonic() < ends_at:
        time.sleep(0.01)
    if death == "os._exit":
        os._exit(7)
    if death == "exception":
        raise RuntimeError("as planned")
    if death == "sys.exit in a thread":
        sys.exit(3)
    if death == "MemoryError":
        bytearray(1 << 62)


async def async_body(death: str, go: str) -> None:
    """Hold the slot until death; the event loop stands still meanwhile."""
    await asyncio.sleep(0)
    body(death, go)


def fork_an_heir() -> int:
    """Fork a child that inherits what there is, and lives for longer than its parent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads: that is the point
        pid = os.fork()
    if not pid:
        time.sleep(MOST_SECONDS)
        os._exit(0)
    return pid


@task
def body_in_a_worker(death: str, go: str) -> None:
    """Hold the slot until death, in a process of a task runner's."""
    body(death, go)


def hold(kind: str, death: str, limit: str, go: str) -> None:
    """Take the slot, and hold it as `kind` says."""
    if kind == "block" and death != "sys.exit in a thread":
        concurrency(limit)(body)(death, go)
        return
    if kind == "block":
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(concurrency(limit)(body), death, go).result()
        return
    functions: dict[str, Any] = {
        "sync task": task(body),
        "async task": task(async_body),
        "process pool task": body_in_a_worker,
    }
    runner: Callable[[], Any] = ThreadPoolTaskRunner
    if kind == "process pool task":
        runner = functools.partial(ProcessPoolTaskRunner, 1)

    @flow(task_runner=runner())
    def crash() -> None:
        with tags(limit):
            future = functions[kind].submit(death, go)
        future.result()

    crash()


def main() -> None:
    """Hold the slot here, or in the worker of somebody else's pool."""
    kind, death, limit, go = sys.argv[1:]
    os.environ["VICTIM"] = str(os.getpid())
    if death == "killed worker" and kind != "process pool task":
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            pool.submit(hold, kind, death, limit, go).result()
    else:
        hold(kind, death, limit, go)


if __name__ == "__main__":
    main()
