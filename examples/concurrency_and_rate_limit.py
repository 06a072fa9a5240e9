"""Limits without flows and tasks: any code can take slots of a global limit.

Threads render reports, no more than two at once: `concurrency()` holds a slot for the time of a
block. Then one mail is sent for each report, at a steady rate: `rate_limit()` waits for its turn,
and nothing is given back, because slots of a rate limit come back with time.

    python examples/concurrency_and_rate_limit.py --reports 12 --seconds 0.5
"""

from __future__ import annotations

import argparse
import asyncio
import math
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from _scaffold import Meter, global_limit, run, slots_in_use, summarize
from leasehold.client import get_client
from leasehold.concurrency.asyncio import rate_limit
from leasehold.concurrency.sync import concurrency

#: How many reports may be rendered at once.
RENDERERS: Final = 2

#: Mails that may go out at once after a pause, and then each second.
BURST, PER_SECOND = 4, 4.0

meter = Meter()


def render(number: int, seconds: float) -> str:
    """Render one report while holding a slot."""
    with concurrency("renderer", occupy=1), meter:
        time.sleep(seconds)
        return f"report {number}"


async def send(report: str, sent: list[tuple[float, str]]) -> None:
    """Send one mail when the rate allows it."""
    await rate_limit("mail")
    sent.append((time.monotonic(), report))


async def send_all(reports: list[str]) -> list[tuple[float, str]]:
    """Send all mails as fast as the rate allows; gives when each one went."""
    sent: list[tuple[float, str]] = []
    await asyncio.gather(*(send(report, sent) for report in reports))
    return sent


def render_all(count: int, seconds: float) -> list[str]:
    """Render all reports, with more threads than may render at once."""
    pool = ThreadPoolExecutor(max_workers=8)
    try:
        return list(pool.map(partial(render, seconds=seconds), range(1, count + 1)))
    finally:
        pool.shutdown(cancel_futures=True)


def main() -> int:
    """Render and send, and say how many ran at once and how fast they went."""
    parser = argparse.ArgumentParser(description="Take slots without flows and tasks.")
    parser.add_argument("--reports", type=int, default=12, help="how many (default: 12)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of one (default: 0.5)")
    options = parser.parse_args()

    with (
        global_limit("renderer", RENDERERS) as renderers,
        global_limit("mail", BURST, slot_decay_per_second=PER_SECOND),
    ):
        began = time.monotonic()
        reports = render_all(options.reports, options.seconds)
        rendered = time.monotonic()
        mails = asyncio.run(send_all(reports))
        with get_client(sync_client=True) as client:
            left, kept_at = slots_in_use(client, "renderer"), client.address

    took = mails[-1][0] - rendered
    ideal = math.ceil(options.reports / renderers) * options.seconds
    summarize(
        limit=f"{renderers} for 'renderer'",
        peak_in_use=f"{meter.peak}, counted inside the block",
        time=f"{rendered - began:.1f} s",
        ideal_time=f"{ideal:.1f} s",
        slots_in_use_at_the_end=left,
        mails_sent=f"{len(mails)} in {took:.1f} s ('mail': {BURST} at once, "
        f"then {PER_SECOND:g} a second)",
        limits_are_kept_at=kept_at,
    )
    return 0 if meter.peak <= renderers else 1


if __name__ == "__main__":
    run(main)
