"""What calling and submitting a task costs beyond the call of its function, in microseconds."""

from __future__ import annotations

import importlib
import statistics
import time
from typing import Any

from benchmarks.workers import talk

BATCHES = 5


def nothing() -> None:
    """Do what the measured tasks do."""


def measured(repeat: Any, count: int) -> float:
    """Give the median seconds for one of `count`, over some batches."""
    times = []
    for _ in range(BATCHES):
        began = time.perf_counter()
        repeat(count)
        times.append((time.perf_counter() - began) / count)
    return statistics.median(times)


def main() -> None:
    """Measure both ways to run a task, and the bare call."""
    options = talk.parser()
    options.add_argument("--calls", type=int, default=400, help="per batch")
    chosen = options.parse_args()
    sdk = importlib.import_module(chosen.sdk)
    task = sdk.task(nothing, tags=[chosen.limit] if chosen.limit else [])

    def call(count: int) -> None:
        for _ in range(count):
            task()

    def call_bare(count: int) -> None:
        for _ in range(count):
            nothing()

    def submit(count: int) -> None:
        for future in [task.submit() for _ in range(count)]:
            future.wait()

    def measure() -> None:
        call(3)
        submit(3)  # what is needed once, is there
        talk.ready()
        bare = measured(call_bare, 100_000)
        talk.report(
            call_us=1e6 * (measured(call, chosen.calls) - bare),
            submit_us=1e6 * (measured(submit, chosen.calls) - bare),
        )

    sdk.flow(measure)()


if __name__ == "__main__":
    main()
