"""One acquire and one release after the other, with nobody in the way."""

from __future__ import annotations

import importlib
import time

from benchmarks.workers import talk


def main() -> None:
    """Take and give back; from one entry to the next both have happened once."""
    options = talk.parser()
    options.add_argument("--pairs", type=int, required=True)
    chosen = options.parse_args()
    sync = importlib.import_module(f"{chosen.sdk}.concurrency.sync")

    def enter() -> float:
        with sync.concurrency(chosen.limit, lease_duration=60):
            return time.perf_counter()

    enter()  # what is needed once, is there
    talk.ready()
    began = enter()
    for _ in range(chosen.pairs):
        ended = enter()
    talk.report(ms=1e3 * (ended - began) / chosen.pairs)


if __name__ == "__main__":
    main()
