"""A day of leases on the pure core alone: who goes next, when to renew, until when to believe."""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections import Counter

from leasehold.client.wire import SlotRequest
from leasehold.concurrency.lease import Term
from leasehold.concurrency.turnstile import Turnstile, Waiter

DAY_SECONDS = 86_400
LEASES = 1_000
SIZE = 5


def test_a_day_with_1000_leases_passes_in_well_under_a_second() -> None:  # noqa: C901 - one loop
    request = SlotRequest(("tag:database",))
    rng = random.Random(0)
    gate = Turnstile[float](poll_seconds=1, jitter=rng.random)
    serial = itertools.count()
    done: Counter[str] = Counter()
    plan: list[tuple[float, int, str, object]] = []

    def at(when: float, what: str, about: object = None) -> None:
        heapq.heappush(plan, (when, next(serial), what, about))

    for number in range(LEASES):
        at(number * DAY_SECONDS / LEASES, "join", rng.uniform(60, 600))
    began = time.process_time()
    held = 0
    while plan:
        now, _, what, about = heapq.heappop(plan)
        if what == "join":
            assert isinstance(about, float)
            gate.join(request, Waiter(about, now))
        elif what == "end":
            gate.released(request, request.names, now)
            held -= 1
        elif what == "renew":
            assert isinstance(about, tuple)
            term, ends_at = about
            assert now < term.deadline
            renewed = term.renewed(now)
            done["renewals"] += 1
            if renewed.renew_at(1) < ends_at:
                at(renewed.renew_at(rng.uniform(-1, 1)), "renew", (renewed, ends_at))
        for queue in gate.asks(now):
            if held == SIZE:  # the head asks all the same now and then
                gate.full(queue, 1.0, now)
                continue
            waiter = gate.granted(queue, {"tag:database": SIZE}, now)
            assert waiter is not None
            held += 1
            term, ends_at = Term(60, now), now + waiter.payload
            done["leases"] += 1
            at(term.renew_at(rng.uniform(-1, 1)), "renew", (term, ends_at))
            at(ends_at, "end")
        wake_at = gate.wake_at(now)
        if wake_at < float("inf") and (not plan or wake_at < plan[0][0]):
            at(max(wake_at, now), "wake")
    assert done["leases"] == LEASES
    assert done["renewals"] > 10 * LEASES
    assert time.process_time() - began < 2  # 0.1 s on an idle machine of 2026
