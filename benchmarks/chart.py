"""The same in two pictures: beside Prefect, and beside the targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.figures import Figure, Row
    from benchmarks.report import Outcome

OURS, PREFECT, FLOOR = "#1b7f5c", "#c4c9d1", "#1d2733"
MISSED = "#c0392b"

IN_SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}


def draw(outcomes: Iterable[Outcome], path: Path) -> None:
    """Draw the figures into a PNG."""
    from matplotlib.figure import Figure as Picture

    measured = [
        (f"{outcome.case.name}: {figure.title}", figure, row)
        for outcome in outcomes
        for figure, row in outcome.rows()
    ]
    times = [one for one in measured if one[1].unit in IN_SECONDS and one[2].prefect is not None]
    shares = [
        (f"{label}  {target.text}", share)
        for label, figure, row in measured
        for target in figure.targets
        for share in [target.share(row)]
        if share is not None
    ]
    height = 1.5 + 0.3 * max(len(times), len(shares))
    picture = Picture(figsize=(16 if times else 9, height), layout="constrained")
    *left, right = picture.subplots(1, 2 if times else 1, squeeze=False)[0]
    for axes in left:
        _draw_times(axes, times)
    _draw_shares(right, shares)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=120)


def _draw_times(axes: Axes, times: Sequence[tuple[str, Figure, Row]]) -> None:
    for place, (_, figure, row) in enumerate(times):
        scale = IN_SECONDS[figure.unit]
        axes.barh(place - 0.2, (row.prefect or 0) * scale, 0.4, color=PREFECT)
        axes.barh(place + 0.2, row.ours * scale, 0.4, color=OURS)
        if row.floor:
            axes.plot([row.floor * scale] * 2, [place, place + 0.4], color=FLOOR, linewidth=2)
    for label, color in (("Prefect", PREFECT), ("leasehold", OURS), ("floor", FLOOR)):
        axes.barh(0, 0, color=color, label=label)
    axes.set_title("Seconds, on a logarithmic scale: less is better")
    _finish(axes, [label for label, _, _ in times])
    axes.legend(loc="best")


def _draw_shares(axes: Axes, shares: Sequence[tuple[str, float]]) -> None:
    smallest = 1e-3  # so that a bar of nothing can be seen
    for place, (_, share) in enumerate(shares):
        axes.barh(place, max(share, smallest), 0.6, color=OURS if share <= 1 else MISSED)
    axes.axvline(1, color=FLOOR)
    axes.set_title("What is used of each target: up to the line it is met")
    _finish(axes, [label for label, _ in shares])


def _finish(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.spines[["top", "right"]].set_visible(False)
