"""The command line as a program: exit codes, streams, signals, and what it imports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "leasehold"]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    home = str(tmp_path)
    return {**ours, "PREFECT_HOME": home, "LEASEHOLD_HOME": home, "PYTHONUTF8": "1"}


def run(environ: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *args],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=50,
    )
    assert "Traceback" not in done.stderr
    return done


def test_limits_outlive_the_program(environ: dict[str, str]) -> None:
    tag = "my ü#? tag"
    assert run(environ, "limit", "create", tag, "3").returncode == 0
    shown = run(environ, "limit", "inspect", tag, "--json")
    assert json.loads(shown.stdout)["tag"] == tag
    assert run(environ, "limit", "ls").stdout.splitlines()[0].split() == [
        "TAG",
        "LIMIT",
        "USED",
        "TASK",
        "RUNS",
    ]
    assert run(environ, "limit", "delete", tag).returncode == 0
    gone = run(environ, "limit", "delete", tag)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert tag in gone.stderr


def test_a_server_that_does_not_answer_is_said_in_bounded_time(environ: dict[str, str]) -> None:
    environ |= {"PREFECT_API_URL": "http://127.0.0.1:9/api", "LEASEHOLD_UNREACHABLE_SECONDS": "1"}
    done = run(environ, "limit", "ls")
    assert done.returncode == 1
    assert "http://127.0.0.1:9/api" in done.stderr.splitlines()[-1]


def test_a_ledger_that_cannot_be_used_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("this is no database, and long enough to be sure" * 100)
    done = run(environ, "limit", "ls")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert str(tmp_path / "ledger.db") in done.stderr


def test_ctrl_c_ends_it_with_130(environ: dict[str, str]) -> None:
    environ |= {"PREFECT_API_URL": "http://127.0.0.1:9/api", "LEASEHOLD_UNREACHABLE_SECONDS": "30"}
    with subprocess.Popen(
        [*COMMAND, "limit", "ls"], env=environ, stderr=subprocess.PIPE, encoding="utf-8"
    ) as program:
        assert program.stderr is not None
        assert "Trying for" in program.stderr.readline()
        program.send_signal(signal.SIGINT)
        assert program.wait(20) == 130
        assert "Traceback" not in program.stderr.read()


def test_a_reader_that_has_seen_enough_is_no_error(environ: dict[str, str]) -> None:
    run(environ, "limit", "create", "database", "3")
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [*COMMAND, "limit", "ls"],
            env=environ,
            stdout=write,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
            timeout=50,
        )
    finally:
        os.close(write)
    assert done.stderr == ""


def test_importing_the_package_imports_no_command_line() -> None:
    code = (
        "import sys, leasehold, leasehold.client\n"
        "print([name for name in ('typer', 'rich', 'httpx', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_commands_are_completed(environ: dict[str, str]) -> None:
    words = {
        "_LEASEHOLD_COMPLETE": "complete_bash",
        "COMP_WORDS": "leasehold li",
        "COMP_CWORD": "1",
    }
    done = run({**environ, **words})
    assert (done.returncode, done.stdout.split()) == (0, ["limit"])


@pytest.mark.slow  # each completion starts a program
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("leasehold limit inspect dat", ["database"]),
        ("leasehold gcl inspect ", ["api", "tag:database", "tag:disk"]),
        ("leasehold doctor d", ["database", "disk"]),
    ],
)
def test_names_of_limits_are_completed(
    environ: dict[str, str], words: str, expected: list[str]
) -> None:
    for command in ("limit create database 1", "limit create disk 1", "gcl create api --limit 1"):
        assert run(environ, *command.split()).returncode == 0
    count = str(len(words.split(" ")) - 1)
    asked = {"_LEASEHOLD_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count}
    done = run({**environ, **asked})
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, expected, "")


def test_a_server_that_is_away_completes_nothing(environ: dict[str, str]) -> None:
    environ |= {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    asked = {"COMP_WORDS": "leasehold limit inspect ", "COMP_CWORD": "3"}
    done = run({**environ, **asked, "_LEASEHOLD_COMPLETE": "complete_bash"})
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")


def test_a_terminal_that_cannot_show_a_letter_shows_its_number(environ: dict[str, str]) -> None:
    environ |= {"PYTHONIOENCODING": "latin-1"}
    done = run(environ, "limit", "create", "日", "3")
    assert done.returncode == 0
    assert r"\u65e5" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
def test_on_a_terminal_a_list_is_a_table(environ: dict[str, str]) -> None:
    import pty

    run(environ, "limit", "create", "[red]", "3")
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*COMMAND, "limit", "ls"], env=environ, stdout=theirs, check=True, timeout=50
    )
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "[red]" in shown  # a tag is no markup
    assert "───" in shown
