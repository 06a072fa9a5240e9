"""A script for `prefect` needs only its first word changed: both helps, compared."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from cli.running import run
from servers import install

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = [
    "concurrency-limit create",
    "concurrency-limit ls",
    "concurrency-limit inspect",
    "concurrency-limit reset",
    "concurrency-limit delete",
    "global-concurrency-limit create",
    "global-concurrency-limit ls",
    "global-concurrency-limit inspect",
    "global-concurrency-limit update",
    "global-concurrency-limit enable",
    "global-concurrency-limit disable",
    "global-concurrency-limit delete",
]

#: Options of all commands, which `leasehold` moves to its front: see `cli.rewriting`.
SESSION = {"--profile", "--prompt", "--no-prompt", "--help", "-h"}


def options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", text)) - SESSION


def arguments(text: str) -> list[str]:
    usage = text.split("Usage:")[1].split("\n\n", maxsplit=1)[0].splitlines()[0]
    words = re.sub(r"--\S+ [A-Z]+|\[OPTIONS\]", "", usage).split()
    return [word.strip("{}").replace("_", "-").upper() for word in words if word.isupper()]


@pytest.mark.slow  # Prefect's program takes seconds to say what its options are
@pytest.mark.server("3.8.8")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", COMMANDS)
def test_arguments_and_options_are_those_of_prefect(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {**os.environ, "PREFECT_HOME": str(tmp_path), "COLUMNS": "200", "NO_COLOR": "1"}
    theirs = subprocess.run(
        [str(install("3.8.8") / "prefect"), *command.split(), "--help"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    monkeypatch.setenv("COLUMNS", "200")
    ours = run(*command.split(), "--help").stdout
    assert arguments(ours) == arguments(theirs)
    assert options(theirs) | set(arguments(theirs)), "nothing was compared"
    # Prefect lists an argument's name as an option, too; `cli.rewriting` accepts it as one.
    as_options = {f"--{word.lower()}" for word in arguments(ours)}
    assert options(theirs) - as_options <= options(ours)


@pytest.mark.parametrize(
    "command", [*COMMANDS, "concurrency-limit update", "concurrency-limit convert", "doctor"]
)
def test_every_command_has_json(command: str) -> None:
    assert "--json" in run(*command.split(), "--help").stdout


@pytest.mark.parametrize("group", ["limit", "gcl"])
def test_the_short_names_have_the_same_commands(group: str) -> None:
    long = {"limit": "concurrency-limit", "gcl": "global-concurrency-limit"}[group]

    def commands(name: str) -> list[str]:
        shown: str = run(name, "--help").stdout
        return shown.split("Commands:")[1].split()

    assert commands(group) == commands(long)
