"""The benchmarks run, and judge by what they measured. How fast anything is, no test says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks import figures
from benchmarks.cases import all_cases

ROOT: Final = Path(__file__).resolve().parents[1]


def run(case: str, folder: Path, *options: str) -> dict[str, Any]:
    """Run one case as small as it gets; gives what was written about it."""
    written = folder / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--json"]
    subprocess.run([*command, str(written), "--case", case, *options], cwd=ROOT, check=True)
    (found,) = json.loads(written.read_text())["cases"]
    assert not found["failures"]
    return dict(found)


def test_a_case_runs_its_sides_and_writes_their_figures(tmp_path: Path) -> None:
    found = run("import", tmp_path, "--prefect-rounds", "0")
    figure, *_ = found["figures"]
    assert figure["ours"] > 0
    assert figure["floor"] > 0
    assert figure["prefect"] is None


def test_several_processes_work_at_once_and_are_put_together(tmp_path: Path) -> None:
    found = run("embedded", tmp_path)
    (together,) = found["runs"]["four"]
    assert together["per_second_least"] <= together["per_second_most"]
    assert together["per_second_most"] < together["per_second_sum"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_both_clients_and_the_bare_requests_do_the_same_work_on_one_server(tmp_path: Path) -> None:
    found = run("tasks-5", tmp_path)
    assert set(found["runs"]) == {"leasehold", "warm", "floor", "cold", "prefect"}
    most_at_once = next(one for one in found["figures"] if one["title"] == "most at once")
    assert most_at_once["ours"] <= 5
    assert most_at_once["prefect"] <= 5


def test_every_figure_is_measured_by_a_side_of_its_case() -> None:
    for case in all_cases():
        sides = {side.name for side in case.sides}
        assert {figure.side for figure in case.figures} <= sides, case.name


@pytest.mark.parametrize(
    ("target", "row", "share"),
    [
        (figures.at_most(30), figures.Row(15, None, None), 0.5),
        (figures.at_most(0), figures.Row(0, None, None), 0),
        (figures.at_most(0), figures.Row(1, None, None), 2),
        (figures.at_least(1000), figures.Row(500, None, None), 2),
        (figures.times_faster(100), figures.Row(1, 50, None), 2),
        (figures.times_faster(100), figures.Row(1, None, None), None),
        (figures.times_the_floor(1.5), figures.Row(3, None, 2), 1),
        (figures.times_the_ideal(1.5, 2), figures.Row(1.5, None, None), 0.5),
    ],
)
def test_a_target_says_how_much_of_it_is_used(
    target: figures.Target, row: figures.Row, share: float | None
) -> None:
    assert target.share(row) == share


def test_what_ran_at_once_took_from_the_first_beginning_to_the_last_end() -> None:
    first = {"began": 10.0, "ended": 12.0, "seconds": 2.0}
    second = {"began": 11.0, "ended": 15.0, "seconds": 4.0}
    together = figures.merged([first, second])
    assert together["seconds"] == 5
    assert together["seconds_spread"] == 2
