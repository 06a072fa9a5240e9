"""How processes share a limit: the rules one by one, and what becomes of them in a crowd.

The times are simulated, so that they are the same on every machine.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import Any

import pytest

from concurrency.crowd import LEDGER, SERVER, Kind, Process, Result, Server, crowd
from leasehold.concurrency.sharing import (
    MET_SECONDS,
    PATIENCE_RATIO,
    SHORTEST_PAUSE_SECONDS,
    Pace,
    Share,
)

SEEDS = 15


def share(handover_seconds: float = 5.0, round_trip: float = 0.0) -> Share:
    return Share(Pace(handover_seconds, 1.0, jitter=lambda: 0.5, round_trip=round_trip), 0.0)


def met(one: Share, now: float = 0.0) -> Share:
    one.refused(1, now, by_others=True)
    return one


# -- alone


def test_a_lease_passes_on_while_nobody_was_met() -> None:
    assert share().passes_on(1, 0.09, taken_at=0)


def test_soon_one_slot_is_offered_to_others() -> None:
    alone = share()
    assert not alone.passes_on(3, 0.11, taken_at=0)
    assert alone.passes_on(2, 0.11, taken_at=0)


def test_an_offered_slot_is_left_alone_for_a_moment() -> None:
    alone = share()
    alone.passes_on(1, 0.2, taken_at=0)
    assert 0.2 < alone.rests_until < 0.3


def test_each_offer_that_nobody_took_makes_the_time_until_the_next_longer() -> None:
    alone, now, pauses = share(), 0.0, []
    for _ in range(8):
        began = now
        while alone.passes_on(1, now, taken_at=0):
            now += 0.01
        pauses.append(now - began)
        alone.granted(1, now, first=True)
    assert pauses == pytest.approx([0.1, 0.25, 0.625, 1.5625, 3.90625, 5, 5, 5], abs=0.03)


def test_who_had_no_slots_for_a_while_begins_anew() -> None:
    alone = share()
    alone.passes_on(1, 0.6, taken_at=0)
    alone.granted(1, 0.7, first=True)
    alone.granted(1, 60, first=True)
    assert alone.passes_on(1, 60.09, taken_at=60)
    assert not alone.passes_on(1, 60.11, taken_at=60)


def test_who_is_alone_asks_for_more_at_once() -> None:
    assert share().granted(1, 0, first=True) == -math.inf


# -- among others


@pytest.mark.parametrize(("round_trip", "seconds"), [(0.001, 0.25), (0.01, 0.6), (0.05, 0.75)])
def test_where_others_were_met_every_lease_is_used_for_a_short_while_only(
    round_trip: float, seconds: float
) -> None:
    crowded = met(share(round_trip=round_trip))
    assert crowded.passes_on(1, seconds - 0.01, taken_at=0)
    assert not crowded.passes_on(1, seconds + 0.01, taken_at=0)


def test_the_more_slots_it_has_the_sooner_it_gives_one_back() -> None:
    uses = [met(share()).pace.use(held) for held in range(1, 6)]
    assert uses == sorted(uses, reverse=True)
    assert uses[0] > 3 * uses[3]


def test_others_that_were_not_met_again_are_forgotten() -> None:
    later = MET_SECONDS + 0.1
    assert met(share()).passes_on(1, later + 0.1, taken_at=0) is False  # an offer
    assert met(share()).granted(1, later, first=False) == -math.inf


def test_a_refusal_because_of_our_own_slots_tells_nothing_of_others() -> None:
    full = share()
    full.refused(1, 0, by_others=False)
    assert full.granted(1, 0.1, first=False) == -math.inf


def test_who_has_more_slots_waits_longer_before_it_asks_for_another() -> None:
    pauses = [met(share()).granted(held, 0, first=False) for held in (1, 2, 5)]
    assert pauses == sorted(pauses)
    assert pauses[0] > SHORTEST_PAUSE_SECONDS


def test_who_is_refused_asks_less_and_less_often() -> None:
    refused = share()
    pauses = [refused.refused(0, count, by_others=True) for count in range(40)]
    assert pauses == sorted(pauses)
    assert pauses[0] == SHORTEST_PAUSE_SECONDS
    assert pauses[10] == pytest.approx(10 * PATIENCE_RATIO)
    refused.granted(1, 40, first=True)
    assert refused.refused(0, 41, by_others=True) == SHORTEST_PAUSE_SECONDS


def test_a_server_that_takes_long_for_its_answers_is_asked_less() -> None:
    quick, slow = (met(share(round_trip=seconds)) for seconds in (0.001, 0.1))
    assert slow.granted(1, 0, first=False) > 5 * quick.granted(1, 0, first=False)


def test_many_slots_are_kept_longer_so_that_changing_them_does_not_fill_the_server() -> None:
    crowded = met(share(round_trip=0.01))
    assert crowded.passes_on(20, 0.8, taken_at=0)
    assert not crowded.passes_on(20, 1.0, taken_at=0)


def test_the_round_trip_is_smoothed() -> None:
    pace = Pace(5, 1, jitter=lambda: 0.5)
    pace.heard_after(0.01)
    assert pace.round_trip == 0.01
    pace.heard_after(1.01)
    assert pace.round_trip == pytest.approx(0.21)


def test_without_handover_leases_never_pass_on_and_nothing_rests_where_nobody_was_met() -> None:
    never = share(handover_seconds=0)
    assert not never.passes_on(1, 0, taken_at=0)
    assert never.rests_until == -math.inf


# -- in a crowd


def median_of(*, processes: int, tasks: int, seconds: float, limit: int, **how: Any) -> Result:
    """Have the same crowd compete several times."""
    results = [
        crowd(processes=processes, tasks=tasks, seconds=seconds, limit=limit, seed=seed, **how)
        for seed in range(SEEDS)
    ]
    columns = zip(*(dataclasses.astuple(result) for result in results), strict=True)
    return Result(*map(statistics.median, columns))


@pytest.mark.parametrize("kind", [SERVER, LEDGER])
def test_four_processes_share_five_slots_evenly_and_leave_few_idle(kind: Kind) -> None:
    result = median_of(processes=4, tasks=25, seconds=0.1, limit=5, kind=kind)
    assert result.overhead < 1.5
    assert result.spread < 1.5


@pytest.mark.parametrize("kind", [SERVER, LEDGER])
def test_who_took_all_before_the_others_came_notices_them_soon(kind: Kind) -> None:
    result = median_of(processes=4, tasks=25, seconds=0.1, limit=5, kind=kind, within=0.2)
    assert result.overhead < 1.5
    assert result.spread < 1.7


def test_shares_even_out_the_longer_it_takes() -> None:
    assert median_of(processes=4, tasks=100, seconds=0.1, limit=5).spread < 1.3


def test_two_processes_take_turns_with_a_single_slot() -> None:
    result = median_of(processes=2, tasks=60, seconds=0.2, limit=1)
    assert result.overhead < 1.2
    assert result.spread < 1.5


def test_forty_processes_neither_starve_each_other_nor_bury_the_server() -> None:
    result = crowd(processes=40, tasks=20, seconds=0.5, limit=20)
    assert result.overhead < 1.3
    assert result.spread < 3
    assert result.requests < 130


@pytest.mark.parametrize("limit", [1, 5])
def test_who_comes_late_gets_a_slot_within_the_handover_time_and_a_bit(limit: int) -> None:
    waits = []
    for seed in range(SEEDS):
        server = Server(limit, seed)
        Process(server, tasks=200 * limit, seconds=0.2)
        late = Process(server, tasks=1, seconds=0.2, starts_at=server.rng.uniform(5, 25))
        server.run()
        waits.append(late.first_at - late.starts_at)
    assert statistics.median(waits) < 5
    assert max(waits) < 12


def test_who_is_alone_loses_little_by_its_offers() -> None:
    assert median_of(processes=1, tasks=600, seconds=0.2, limit=2).overhead < 1.1
