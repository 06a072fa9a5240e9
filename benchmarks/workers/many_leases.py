"""Many leases held at once, by one process: are they kept, and what do they cost?"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from benchmarks.workers import talk

if TYPE_CHECKING:
    from uuid import UUID

LEASE_SECONDS = 60.0

#: Renewals are planned for this share of the duration, jitter included (sdk: concurrency/lease.py).
PLANNED_SECONDS = 0.315 * LEASE_SECONDS


def main() -> None:
    """Hold them for as long as told."""
    options = talk.parser()
    options.add_argument("--leases", type=int, required=True)
    options.add_argument("--seconds", type=float, required=True)
    chosen = options.parse_args()
    asyncio.run(hold_all(chosen.limit, chosen.leases, chosen.seconds))


async def hold_all(limit: str, count: int, seconds: float) -> None:
    """Take the leases, hold them, give them back."""
    from leasehold.concurrency import events, leases, on_event
    from leasehold.concurrency.asyncio import concurrency

    confirmed: dict[UUID | None, list[float]] = defaultdict(list)
    lost = 0

    def note(event: events.Event) -> None:
        nonlocal lost
        if isinstance(event, (events.Acquired, events.Renewed)):
            confirmed[event.holder_id].append(time.monotonic())
        lost += isinstance(event, events.Lost)

    threads = threading.active_count()
    async with concurrency(limit, lease_duration=LEASE_SECONDS):  # what is needed once, is there
        on_event(note)
        talk.ready()
        memory = talk.resident_bytes()
        everybody, may_end = asyncio.Semaphore(0), asyncio.Event()

        async def hold() -> None:
            async with concurrency(limit, lease_duration=LEASE_SECONDS):
                everybody.release()
                await may_end.wait()

        began = time.monotonic()
        tasks = [asyncio.create_task(hold()) for _ in range(count)]
        for _ in range(count):
            await everybody.acquire()
        taken, cpu = time.monotonic() - began, time.process_time()
        await asyncio.sleep(seconds)
        cpu = time.process_time() - cpu
        gaps = [b - a for times in confirmed.values() for a, b in itertools.pairwise(times)]
        talk.report(
            acquire_ms=1e3 * taken / count,
            missing=count - (len(leases()) - 1),
            lost=lost,
            threads=threading.active_count() - threads,
            lease_kb=(talk.resident_bytes() - memory) / 1e3 / count,
            cpu_share=cpu / seconds,
            renewals=len(gaps),
            late_share=max([0.0, *(gap - PLANNED_SECONDS for gap in gaps)]) / LEASE_SECONDS,
        )
        may_end.set()
        await asyncio.gather(*tasks)


if __name__ == "__main__":
    main()
