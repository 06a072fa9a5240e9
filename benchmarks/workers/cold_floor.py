"""The floor in a process that has imported nothing: what any client made of these libraries pays.

That is asyncio and httpx, and one more request: a client that does not know the server must ask
what it is before it may trust its limits.
"""

from __future__ import annotations

import time

from benchmarks.workers import talk


def main() -> None:
    """Measure tasks, imports included."""
    options = talk.parser()
    options.add_argument("--tasks", type=int, required=True)
    options.add_argument("--seconds", type=float, required=True, help="what one task takes")
    options.add_argument("--leases", type=int, required=True)
    chosen = options.parse_args()
    talk.ready()
    began = time.perf_counter()
    import asyncio

    from benchmarks.workers.floor import Bare

    async def tasks() -> None:
        bare = Bare(chosen.limit)
        await bare.ask_version()
        await bare.hold([chosen.tasks // chosen.leases * chosen.seconds] * chosen.leases)
        talk.report(seconds=time.perf_counter() - began)

    asyncio.run(tasks())


if __name__ == "__main__":
    main()
