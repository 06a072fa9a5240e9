"""What the guard costs: its memory, and the time that its start takes before the first slot."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from benchmarks.workers import talk


def children() -> list[int]:
    """List the processes that this one has started."""
    found = Path("/proc/self/task").glob("*/children")
    return [int(child) for one in found for child in one.read_text().split()]


def memory_of(process: int, what: str) -> int:
    """Read a line of a process's memory, in bytes."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) * 1024


def main() -> None:
    """Take the first slot of a process."""
    chosen = talk.parser().parse_args()

    from leasehold.concurrency import guarding
    from leasehold.concurrency.sync import concurrency

    spent = 0.0
    start = guarding.Guarding._start  # noqa: SLF001 - alone it can be told from the import of httpx

    def timed_start(self: Any) -> None:
        nonlocal spent
        began = time.perf_counter()
        start(self)
        spent += time.perf_counter() - began

    guarding.Guarding._start = timed_start  # type: ignore[method-assign]  # noqa: SLF001
    talk.ready()
    began = time.perf_counter()
    with concurrency(chosen.limit, lease_duration=60):
        first = time.perf_counter() - began
        time.sleep(1)  # it is up by then
        guards = children()
        figures = {"first_ms": 1e3 * first, "start_ms": 1e3 * spent, "guards": len(guards)}
        if guards:
            figures["rss_mb"] = memory_of(guards[0], "Rss") / 1e6
            figures["own_mb"] = (
                sum(memory_of(guards[0], f"Private_{kind}") for kind in ("Clean", "Dirty")) / 1e6
            )
    assert bool(guards) == (os.environ.get("LEASEHOLD_GUARD") != "false"), "one guard, if wanted"
    talk.report(**figures)


if __name__ == "__main__":
    main()
