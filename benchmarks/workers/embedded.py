"""How many pairs of acquire and release a process does on the embedded ledger in some seconds."""

from __future__ import annotations

import threading
import time

from benchmarks.workers import talk


def main() -> None:
    """Take and give back for as long as told, in one thread or several."""
    options = talk.parser()
    options.add_argument("--seconds", type=float, required=True)
    options.add_argument("--callers", type=int, default=1, help="threads")
    chosen = options.parse_args()

    from leasehold.concurrency.sync import concurrency

    def use(ends_at: float, waits: list[float]) -> None:
        while (began := time.perf_counter()) < ends_at:
            with concurrency(chosen.limit, lease_duration=60):
                waits.append(time.perf_counter() - began)

    use(time.perf_counter() + 0.1, [])  # what is needed once, is there
    talk.ready()
    began, cpu, waits = time.perf_counter(), time.process_time(), list[float]()
    callers = [
        threading.Thread(target=use, args=(began + chosen.seconds, waits))
        for _ in range(chosen.callers)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    seconds = time.perf_counter() - began
    waits.sort()
    talk.report(
        per_second=len(waits) / seconds,
        p50_ms=1e3 * waits[len(waits) // 2],
        p99_ms=1e3 * waits[len(waits) * 99 // 100],
        cpu_us=1e6 * (time.process_time() - cpu) / len(waits),
    )


if __name__ == "__main__":
    main()
