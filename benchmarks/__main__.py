"""Measures, and says how it went.

python -m benchmarks [--rounds 3] [--case NAME ...] [--quick] [--prefect-rounds N] [--json PATH]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks import chart, report
from benchmarks.cases import Side, all_cases
from benchmarks.driver import ROOT, Driver, WorkerError
from leasehold.exceptions import LeaseholdError

LATEST: Final = ROOT / "benchmarks" / "results" / "latest.json"

#: What the table needs; a terminal that is narrower wraps it, a file does not.
WIDTH: Final = 148


def main() -> int:
    """Run the chosen cases; 1 when a worker failed, whatever its figures."""
    chosen = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended like Ctrl-C: all is ended
    console = Console(width=WIDTH)
    cases = [
        case
        for case in all_cases(quick=chosen.quick)
        if not chosen.case or case.name in chosen.case
    ]
    outcomes = [report.Outcome(case) for case in cases]
    load = os.getloadavg()
    try:
        with Driver() as driver:
            for outcome in outcomes:
                _run(driver, outcome, chosen, console)
    except KeyboardInterrupt:
        console.print("Stopped. So far:")
    measured = [outcome for outcome in outcomes if outcome.runs or outcome.failures]
    report.show(measured, console)
    report.write(measured, chosen.json, rounds=chosen.rounds, load=load)
    console.print(f"\nWritten: {chosen.json}", soft_wrap=True)
    _draw(measured, chosen.json.with_suffix(".png"), console)
    return int(any(outcome.failures for outcome in outcomes))


def _parser() -> argparse.ArgumentParser:
    names = [case.name for case in all_cases()]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures leasehold beside Prefect's client."
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often (default: 3)")
    parser.add_argument(
        "--case", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything run?")
    parser.add_argument(
        "--prefect-rounds",
        type=int,
        metavar="ROUNDS",
        help="how often with Prefect's client, which takes minutes (default: as often; 0: never)",
    )
    parser.add_argument("--json", type=Path, default=LATEST, help=f"default: {LATEST.name}")
    return parser


def _run(
    driver: Driver, outcome: report.Outcome, chosen: argparse.Namespace, console: Console
) -> None:
    for number in range(chosen.rounds):
        for side in outcome.case.sides:
            most = side.most_rounds
            if side.sdk == "prefect" and chosen.prefect_rounds is not None:
                most = min(most, chosen.prefect_rounds)
            if number < most:
                _run_side(driver, outcome, side, number, console)


def _run_side(
    driver: Driver, outcome: report.Outcome, side: Side, number: int, console: Console
) -> None:
    where = f"{outcome.case.name}, round {number + 1}, {side.name}"
    driver.prepare(side)
    console.print(f"{where} …", end=" ", highlight=False)
    began = time.monotonic()
    try:
        for _ in range(side.repeats):
            figures = asyncio.run(driver.run(side))
            outcome.runs.setdefault(side.name, []).append(figures)
    except (WorkerError, LeaseholdError) as error:  # the others are measured all the same
        outcome.failures.append(f"{where}: {error}")
        console.print(f"failed: {error}", style="red", markup=False)
    else:
        console.print(f"{time.monotonic() - began:.1f} s", highlight=False)


def _draw(measured: list[report.Outcome], path: Path, console: Console) -> None:
    try:
        chart.draw(measured, path)
    except ModuleNotFoundError as error:
        console.print(f"No chart: {error.name} is not installed. `make bench` installs it.")
    else:
        console.print(f"Drawn: {path}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
