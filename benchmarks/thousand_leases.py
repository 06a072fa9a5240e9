"""Many leases held at once, by one process, on a real server: are they kept, and what do they cost?

    .venv/bin/python benchmarks/thousand_leases.py [--leases 1000] [--seconds 180]

Installs and starts Prefect 3.8.8 as the tests do. Prints the figures, and exits with 1 if a lease
was lost, or a renewal came more than a third of a lease's duration late.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import resource
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from servers import PrefectServer

if TYPE_CHECKING:
    from uuid import UUID

LEASE_SECONDS = 60.0

#: Renewals are planned for this share of the duration, jitter included (sdk: concurrency/lease.py).
PLANNED_SECONDS = 0.315 * LEASE_SECONDS


def resident_bytes() -> int:
    """Say how much memory this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def hold_all(count: int, seconds: float) -> dict[str, float]:
    """Take the leases, hold them, give them back; gives the figures."""
    from leasehold.client import GlobalConcurrencyLimitCreate, get_client
    from leasehold.concurrency import events, leases, on_event
    from leasehold.concurrency.asyncio import concurrency

    async with get_client() as client:
        wanted = GlobalConcurrencyLimitCreate(name="many", limit=count + 1)
        await client.create_global_concurrency_limit(wanted)

    confirmed: dict[UUID | None, list[float]] = defaultdict(list)
    lost = 0

    def note(event: events.Event) -> None:
        nonlocal lost
        if isinstance(event, (events.Acquired, events.Renewed)):
            confirmed[event.holder_id].append(time.monotonic())
        lost += isinstance(event, events.Lost)

    async with concurrency("many", lease_duration=LEASE_SECONDS):  # what is needed once, is there
        on_event(note)
        memory, threads = resident_bytes(), threading.active_count()
        everybody, may_end = asyncio.Semaphore(0), asyncio.Event()

        async def hold() -> None:
            async with concurrency("many", lease_duration=LEASE_SECONDS):
                everybody.release()
                await may_end.wait()

        began = time.monotonic()
        tasks = [asyncio.create_task(hold()) for _ in range(count)]
        for _ in range(count):
            await everybody.acquire()
        taken = time.monotonic() - began
        print(
            f"{count} leases taken in {taken:.1f} s; holding them for {seconds:.0f} s", flush=True
        )
        cpu = time.process_time()
        await asyncio.sleep(seconds)
        cpu = time.process_time() - cpu
        figures = {
            "leases held": len(leases()) - 1,
            "lost": lost,
            "threads added": threading.active_count() - threads,
            "memory added, MB": (resident_bytes() - memory) / 1e6,
            "memory per lease, KB": (resident_bytes() - memory) / 1e3 / count,
            "CPU while holding, s": cpu,
        }
        gaps = [b - a for times in confirmed.values() for a, b in itertools.pairwise(times)]
        figures["renewals"] = len(gaps)
        figures["latest renewal, s late"] = max([0.0, *(gap - PLANNED_SECONDS for gap in gaps)])
        may_end.set()
        await asyncio.gather(*tasks)
    return figures


def main() -> int:
    """Run it, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--leases", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--seconds", type=float, default=180, help="for how long (default: 180)")
    chosen = parser.parse_args()
    print("starting Prefect 3.8.8 ...", flush=True)
    server = PrefectServer("3.8.8").start()
    try:
        os.environ["PREFECT_API_URL"] = server.url
        figures = asyncio.run(hold_all(chosen.leases, chosen.seconds))
    finally:
        server.stop()
    for name, value in figures.items():
        print(f"{name:>24}: {value:g}")
    late = figures["latest renewal, s late"] > LEASE_SECONDS / 3
    return int(bool(figures["lost"]) or late)


if __name__ == "__main__":
    sys.exit(main())
