"""From what the workers said to figures, and whether they are what is aimed for. Pure."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    #: What one run of one side said: numbers by name.
    Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """A figure, measured.

    Attributes:
        ours: ours.
        prefect: Prefect's.
        floor: what the least that must be done takes.
    """

    ours: float
    prefect: float | None
    floor: float | None


@dataclass(frozen=True)
class Target:
    """What a figure is to be.

    Attributes:
        text: for people.
        share: how much of the allowed is used: 1 is just met, above it is missed; None: what it
            compares with was not measured.
    """

    text: str
    share: Callable[[Row], float | None]


def at_most(bound: float) -> Target:
    """Ours is at most this."""
    return Target(f"≤ {bound:g}", lambda row: row.ours / bound if bound else 2 * row.ours)


def at_least(bound: float) -> Target:
    """Ours is at least this."""
    return Target(f"≥ {bound:g}", lambda row: bound / row.ours)


def times_the_ideal(times: float, ideal: float) -> Target:
    """Ours is at most so many times what a limit allows at best."""
    return Target(f"≤ {times:g} × ideal ({ideal:g})", at_most(times * ideal).share)


def times_faster(times: float) -> Target:
    """Prefect's is at least so many times ours."""
    return Target(
        f"≤ 1/{times:g} of Prefect",
        lambda row: None if row.prefect is None else times * row.ours / row.prefect,
    )


def times_the_floor(times: float) -> Target:
    """Ours is at most so many times the floor."""
    return Target(
        f"≤ {times:g} × floor",
        lambda row: None if row.floor is None else row.ours / (times * row.floor),
    )


@dataclass(frozen=True)
class Figure:
    """A figure to be read from a case's medians.

    Attributes:
        title: what it says.
        unit: of all its numbers.
        metric: what the workers call it.
        targets: what it is to be.
        side: who measures ours.
        prefect: who measures Prefect's; "": nobody.
        floor: who measures the floor; "": nobody.
        floor_times: what the floor is multiplied by.
        scale: what the workers' numbers are multiplied by.
    """

    title: str
    unit: str
    metric: str
    targets: tuple[Target, ...] = ()
    side: str = "leasehold"
    prefect: str = "prefect"
    floor: str = "floor"
    floor_times: float = 1
    scale: float = 1

    def read(self, medians: Mapping[str, Metrics]) -> Row | None:
        """Read it; None when ours is missing."""

        def value(side: str) -> float | None:
            found = medians.get(side, {}).get(self.metric)
            return None if found is None else found * self.scale

        ours, prefect, floor = value(self.side), value(self.prefect), value(self.floor)
        if ours is None:
            return None
        return Row(ours, prefect, None if floor is None else floor * self.floor_times)


def merged(copies: list[dict[str, float]]) -> dict[str, float]:
    """Put together what several copies said that ran at once; of one, it is what it said.

    Each number `x` becomes `x_least`, `x_most`, `x_sum` and `x_spread`, the greatest as a multiple
    of the smallest. `seconds` are from the first beginning to the last end.
    """
    if len(copies) == 1:
        return copies[0]
    together = {}
    for name in copies[0]:
        values = [copy[name] for copy in copies]
        together[f"{name}_least"], together[f"{name}_most"] = min(values), max(values)
        together[f"{name}_sum"] = sum(values)
        if min(values) > 0:
            together[f"{name}_spread"] = max(values) / min(values)
    if "ended" in copies[0]:
        together["seconds"] = together["ended_most"] - together["began_least"]
    return together


def medians(runs: Iterable[Metrics]) -> dict[str, float]:
    """Give the median of each number over some runs."""
    values = defaultdict(list)
    for run in runs:
        for name, value in run.items():
            values[name].append(value)
    return {name: statistics.median(all_of_it) for name, all_of_it in values.items()}
