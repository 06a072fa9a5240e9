"""The examples are what users read first: each runs as a user runs it, and tells the truth."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from leasehold.client import GlobalConcurrencyLimitCreate, get_client

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "examples"

QUICK: Final = {
    "etl_database.py": ["--files=9", "--seconds=0.2", "--limit=3"],
    "fan_out_http.py": ["--requests=20", "--seconds=0.1", "--limit=4"],
    "concurrency_and_rate_limit.py": ["--reports=6", "--seconds=0.2"],
    "two_processes.py": ["--tasks=6", "--seconds=0.2", "--limit=2"],
}

#: Long enough to be in the middle of it when Ctrl-C comes.
LONG: Final = {
    "etl_database.py": ["--files=60", "--seconds=0.5"],
    "fan_out_http.py": ["--requests=200", "--seconds=0.5"],
    "concurrency_and_rate_limit.py": ["--reports=60", "--seconds=0.5"],
    "two_processes.py": ["--tasks=60", "--seconds=0.5"],
}

every_example = pytest.mark.parametrize("script", QUICK)


@pytest.fixture(params=["embedded", pytest.param("3.8.8", marks=pytest.mark.server)])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "embedded":
        url = request.getfixturevalue("prefect_server_url")
        monkeypatch.setenv("PREFECT_API_URL", url)
    return str(request.param)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    return {**os.environ, "TMPDIR": str(temporary), "PYTHONUTF8": "1"}


def run(
    script: str, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=50,
    )


def facts(output: str) -> dict[str, str]:
    """Read the summary: two spaces, the name, two spaces or more, the value."""
    lines = [line[2:] for line in output.splitlines() if line.startswith("  ")]
    pairs = [line.split("  ", 1) for line in lines if "  " in line]
    return {name: value.strip() for name, value in pairs}


def number(text: str) -> float:
    """Read the number that a fact begins with."""
    return float(text.split(maxsplit=1)[0].rstrip(",").replace(",", ""))


def limits() -> list[str]:
    with get_client(sync_client=True) as client:
        return [limit.name for limit in client.read_global_concurrency_limits(None)]


@every_example
def test_it_keeps_its_limit_gives_its_slots_back_and_leaves_nothing_behind(
    script: str, place: str, environ: dict[str, str]
) -> None:
    before = limits()
    done = run(script, *QUICK[script], env=environ)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    told = facts(done.stdout)
    assert 1 <= number(told["peak in use"]) <= number(told["limit"])
    assert told["slots in use at the end"] == "0"
    assert number(told["time"]) >= number(told["ideal time"]) - 1
    assert (place == "embedded") == ("ledger" in told["limits are kept at"])
    assert limits() == before
    assert not list(Path(environ["TMPDIR"]).iterdir())


@every_example
def test_ctrl_c_ends_it_cleanly(script: str, environ: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / script), *LONG[script]],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as program:
        assert program.stderr is not None
        if script == "concurrency_and_rate_limit.py":  # it has no task that could tell of a wait
            wait_until_full("renderer", program)
        else:
            assert any("wait for tag" in line for line in program.stderr)
        program.send_signal(signal.SIGINT)
        _, told = program.communicate(timeout=20)
    assert program.returncode == 130
    assert "Traceback" not in told
    assert "Stopped." in told
    assert limits() == []
    assert not list(Path(environ["TMPDIR"]).iterdir())


def wait_until_full(name: str, program: subprocess.Popen[str]) -> None:
    """Wait until all slots of a limit are in use, or the program has ended."""
    with get_client(sync_client=True) as client:
        while program.poll() is None:
            found = client.read_global_concurrency_limits(None)
            if any(one.name == name and one.active_slots == one.limit for one in found):
                return
            time.sleep(0.05)


@every_example
def test_a_limit_that_exists_is_used_as_it_is_and_stays(
    script: str, environ: dict[str, str]
) -> None:
    mine = {"tag:database": 1, "tag:api": 1, "renderer": 1}
    with get_client(sync_client=True) as client:
        for name, size in mine.items():
            wanted = GlobalConcurrencyLimitCreate(name=name, limit=size)
            client.create_global_concurrency_limit(wanted)
    done = run(script, *QUICK[script], env=environ)
    assert done.returncode == 0, done.stderr
    told = facts(done.stdout)
    assert number(told["limit"]) == number(told["peak in use"]) == 1
    assert sorted(limits()) == sorted(mine)


def test_a_server_that_does_not_answer_gets_one_line(environ: dict[str, str]) -> None:
    environ |= {"PREFECT_API_URL": "http://127.0.0.1:9/api", "LEASEHOLD_UNREACHABLE_SECONDS": "1"}
    done = run("etl_database.py", env=environ)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "http://127.0.0.1:9/api" in done.stderr.splitlines()[-1]


def test_the_etl_loads_every_order(environ: dict[str, str]) -> None:
    done = run("etl_database.py", *QUICK["etl_database.py"], env=environ)
    assert facts(done.stdout)["orders loaded"] == "450, all of them"


def test_without_a_terminal_the_view_is_lines(environ: dict[str, str]) -> None:
    # The lines come once a second, and loads change places in between.
    done = run("etl_database.py", "--files=9", "--seconds=0.7", env=environ)
    assert "\x1b" not in done.stdout
    assert "database [###] 3 of 3 slots in use  3 running" in done.stdout
    assert "database [...] 0 of 3 slots in use  0 running, 0 waiting, 9 done" in done.stdout
    assert "wait for tag 'database'" in done.stderr


def test_on_a_terminal_the_log_does_not_break_the_view(environ: dict[str, str]) -> None:
    import pty

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "etl_database.py"), "--files=9", "--seconds=0.5"],
        env={**environ, "TERM": "xterm-256color", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ) as program:
        os.close(theirs)
        shown = read_all(ours)
    assert program.returncode == 0
    before, _ = re.split(r"(?:\x1b\[[0-9;]*m)*\d\d:\d\d:\d\d\S* [^\n]*wait for tag", shown)
    assert before.endswith("\x1b[2K"), "the picture is erased before a line of the log comes"
    assert "9 of 9" in shown


def read_all(terminal: int) -> str:
    """Read what a terminal shows until the program at its other end has ended."""
    chunks = []
    try:
        while chunk := os.read(terminal, 65_536):
            chunks.append(chunk)
    except OSError:  # on Linux the end of a terminal is an error
        pass
    os.close(terminal)
    return b"".join(chunks).decode()


def test_what_a_process_of_the_two_tells_is_what_it_did(environ: dict[str, str]) -> None:
    done = run("two_processes.py", "--work", "--tasks=3", "--seconds=0.1", env=environ)
    spans = json.loads(done.stdout)
    assert len(spans) == 3
    assert all(end - begin >= 0.1 for begin, end in spans)
