"""Pyright reads `cases.py` as users of editors do. Mypy reads it with all other files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.timeout(180)
def test_pyright_accepts_tasks_and_flows_with_parameters_and_results_preserved() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "basedpyright", "--project", str(HERE / "pyrightconfig.json")),
            *("--pythonpath", sys.executable),
        ],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 errors" in done.stdout
