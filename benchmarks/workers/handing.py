"""How long after the end of one body the next one begins.

Two actors, in this process or in two others, take turns at a limit of 1. One holds, the other
comes to wait, and some time later the first is told to leave, or is killed.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import signal
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any

from benchmarks.workers import talk

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

#: A killed holder's slot may have to expire, and be found expired.
PATIENCE_SECONDS = 120.0


def act(line: Connection, sdk: str, limit: str) -> None:
    """Take the limit and leave it, whenever told to; says when each has happened."""
    sync = importlib.import_module(f"{sdk}.concurrency.sync")
    line.send(0.0)
    while line.recv():
        with sync.concurrency(limit, lease_duration=60):
            line.send(time.monotonic())
            line.recv()
            line.send(time.monotonic())
        line.send(0.0)


class Actor:
    """One who takes and leaves.

    Args:
        inside: whether it is a thread of this process, or a process.
        sdk: what it uses.
        limit: what it takes.
    """

    def __init__(self, *, inside: bool, sdk: str, limit: str) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._line, theirs = spawn.Pipe()
        self._process: Any = None
        arguments = (theirs, sdk, limit)
        if inside:
            threading.Thread(target=act, args=arguments, daemon=True).start()
        else:
            self._process = spawn.Process(target=act, args=arguments, daemon=True)
            self._process.start()
        self.hears()

    def hears(self) -> float:
        """Wait for what it says next."""
        if not self._line.poll(PATIENCE_SECONDS):
            raise TimeoutError(f"nothing happened for {PATIENCE_SECONDS:.0f} s")
        return float(self._line.recv())

    def take(self) -> None:
        """Have it take the limit."""
        self._line.send(True)

    def leave(self) -> float:
        """Have it leave; gives when its body ended."""
        self._line.send(None)
        return self.hears()

    def kill(self) -> float:
        """Kill it; gives when."""
        killed_at = time.monotonic()
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()
        return killed_at

    def end(self) -> None:
        """Have it end."""
        self._line.send(False)
        if self._process is not None:
            self._process.join()


def main() -> None:
    """Measure some changes of hands."""
    options = talk.parser()
    options.add_argument("--changes", type=int, required=True)
    options.add_argument("--waits", type=float, default=1.0, help="how long one waits, on average")
    options.add_argument("--inside", action="store_true", help="two threads, not two processes")
    options.add_argument("--kill", action="store_true", help="the holder is killed")
    chosen = options.parse_args()
    facts = {"inside": chosen.inside, "sdk": chosen.sdk, "limit": chosen.limit}
    holder, waiter = Actor(**facts), Actor(**facts)
    talk.ready()
    holder.take()
    holder.hears()
    gaps = []
    for _ in range(chosen.changes):
        waiter.take()
        time.sleep(chosen.waits * random.uniform(0.5, 1.5))
        freed_at = holder.kill() if chosen.kill else holder.leave()
        gaps.append(waiter.hears() - freed_at)
        if chosen.kill:
            holder = Actor(**facts)
        else:
            holder.hears()
        holder, waiter = waiter, holder
    holder.leave()
    holder.hears()
    holder.end()
    waiter.end()
    talk.report(ms=1e3 * statistics.median(gaps), longest_ms=1e3 * max(gaps))


if __name__ == "__main__":
    main()
