"""Running the command line inside the tests' process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from typer.testing import CliRunner

from leasehold.cli.app import app

if TYPE_CHECKING:
    from click.testing import Result  # type: ignore[import-not-found,unused-ignore]


def run(*args: str, answer: str = "", code: int = 0) -> Result:
    """Run a command that is to end with this exit code."""
    result = CliRunner().invoke(app, args, input=answer)
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    assert "Traceback" not in result.output
    return result


def run_json(*args: str, code: int = 0) -> Any:
    """Run a command that prints JSON."""
    return json.loads(run(*args, code=code).stdout)
