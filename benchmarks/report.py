"""How it went: a table for people, JSON for programs."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from benchmarks.figures import medians

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rich.console import Console

    from benchmarks.cases import Case
    from benchmarks.figures import Figure, Row, Target


@dataclass
class Outcome:
    """What the sides of one case have said so far.

    Attributes:
        case: the case.
        runs: for each side, what each of its runs said.
        failures: what went wrong.
    """

    case: Case
    runs: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def rows(self) -> Iterable[tuple[Figure, Row]]:
        """Give the figures that could be measured."""
        middle = {side: medians(runs) for side, runs in self.runs.items()}
        for figure in self.case.figures:
            row = figure.read(middle)
            if row is not None:
                yield figure, row


def show(outcomes: Iterable[Outcome], console: Console) -> None:
    """Print all figures: medians, ratios, and targets met or missed."""
    for outcome in outcomes:
        console.print(f"\n[bold]{outcome.case.name}[/bold]  {outcome.case.title}", highlight=False)
        console.print(_table(outcome))
        for failure in outcome.failures:
            console.print(f"  failed: {failure.splitlines()[0]}", style="red", markup=False)


def _table(outcome: Outcome) -> Table:
    drawn = Table(box=None)
    drawn.add_column("", width=42)
    for name in ("leasehold", "floor", "Prefect", "Prefect ÷ ours"):
        drawn.add_column(name, justify="right", width=14)
    drawn.add_column("target", min_width=36)
    for figure, row in outcome.rows():
        drawn.add_row(
            figure.title,
            _number(row.ours, figure.unit),
            _number(row.floor, figure.unit),
            _number(row.prefect, figure.unit),
            "" if not row.prefect or not row.ours else _number(row.prefect / row.ours, "×"),
            Text("\n").join(_verdict(target, row) for target in figure.targets),
        )
    return drawn


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = 0 if value == int(value) or abs(value) >= 100 else 1 if abs(value) >= 10 else 3
    return f"{value:,.{digits}f} {unit}".strip()


def _verdict(target: Target, row: Row) -> Text:
    share = target.share(row)
    if share is None:
        return Text(f"{target.text}: not measured", style="dim")
    if share <= 1:
        return Text(f"{target.text}: met", style="green")
    return Text(f"{target.text}: missed, {share:.2f} × that", style="red")


def write(outcomes: Iterable[Outcome], path: Path, *, rounds: int, load: tuple[float, ...]) -> None:
    """Write all figures, and what each run said."""
    content = {
        "at": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "leasehold": version("leasehold"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "load_at_the_start": load[0],
        "load_at_the_end": os.getloadavg()[0],
        "rounds": rounds,
        "cases": [_plain(outcome) for outcome in outcomes],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.case.name,
        "title": outcome.case.title,
        "figures": [
            {
                "title": figure.title,
                "unit": figure.unit,
                **asdict(row),
                "targets": [
                    {"text": target.text, "share": share, "met": share is not None and share <= 1}
                    for target in figure.targets
                    for share in [target.share(row)]
                ],
            }
            for figure, row in outcome.rows()
        ],
        "runs": outcome.runs,
        "failures": outcome.failures,
    }
