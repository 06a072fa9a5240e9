"""What it takes to have a thread call a function that does nothing, in microseconds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from benchmarks.workers import talk
from benchmarks.workers.overhead import measured, nothing

#: As many as there is work for: a task that waits must not keep others from their start.
MOST_THREADS = 10_000


def main() -> None:
    """Measure a pool of the standard library."""
    options = talk.parser()
    options.add_argument("--calls", type=int, default=400, help="per batch")
    chosen = options.parse_args()

    with ThreadPoolExecutor(MOST_THREADS) as pool:

        def submit(count: int) -> None:
            for future in [pool.submit(nothing) for _ in range(count)]:
                future.result()

        submit(3)
        talk.ready()
        talk.report(submit_us=1e6 * measured(submit, chosen.calls))


if __name__ == "__main__":
    main()
