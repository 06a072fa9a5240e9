"""The README does what it says: its snippets are run, its tables are held against the code."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from leasehold import settings

ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")

#: What differs from run to run, and what stands for it.
VARIES: Final = {
    r"\d\d:\d\d:\d\d\.\d{3}": "<clock>",
    r"'etl-[0-9a-f]{4}'": "<run>",
    r"\d+\.\d s": "<seconds>",
    r"\S*ledger\.db": "<ledger>",
    r"\d tasks wait for tag 'database' \(./3 in use, held by .*\)": "<waiting>",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def sessions() -> list[tuple[str, str]]:
    """Give each command of the console blocks, with what it is said to print."""
    found = []
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def steady(text: str) -> str:
    for pattern, stand_in in VARIES.items():
        text = re.sub(pattern, stand_in, text)
    return text


def run(command: str, folder: Path) -> str:
    """Run one line in a folder, with this Python's programs, and give what it prints."""
    programs = {"python": [sys.executable], "leasehold": [sys.executable, "-m", "leasehold"]}
    program, *arguments = shlex.split(command)
    done = subprocess.run(
        [*programs[program], *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_every_command_prints_what_the_readme_shows(tmp_path: Path) -> None:
    for block in blocks("python"):
        name = block.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(block, encoding="utf-8")
    shown = [f"$ {command}\n{steady(output)}" for command, output in sessions()]
    printed = [f"$ {command}\n{steady(run(command, tmp_path))}" for command, _ in sessions()]
    assert "\n".join(printed) == "\n".join(shown)
    assert len(printed) >= 5


def test_the_flow_of_the_readme_runs_on_a_server(
    tmp_path: Path, prefect_server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server_url)
    (tmp_path / "etl.py").write_text(blocks("python")[0], encoding="utf-8")
    run("leasehold limit create database 3", tmp_path)
    told = run("python etl.py", tmp_path)
    assert "tasks wait for tag 'database'" in told
    assert prefect_server_url in run("leasehold server", tmp_path)
    assert "0 of 3 slots in use" in run("leasehold limit inspect database", tmp_path)
    run("leasehold limit delete database", tmp_path)


def test_the_imports_after_porting_exist() -> None:
    ported = [line[1:] for line in blocks("diff")[0].splitlines() if line.startswith("+")]
    before = [line[1:] for line in blocks("diff")[0].splitlines() if line.startswith("-")]
    assert [line.replace("leasehold", "prefect") for line in ported] == before
    exec("\n".join(ported), {})


@pytest.mark.parametrize("field", settings._READERS)
def test_the_readme_knows_the_setting_and_its_default(field: str) -> None:
    variable, _ = settings._READERS[field]
    rows = [line for line in README.splitlines() if line.startswith(f"| `{variable}`")]
    assert len(rows) == 1, f"the README's table of settings has no row for {variable}"
    default = getattr(settings.Settings(), field)
    if isinstance(default, float):
        assert rows[0].split("|")[2].strip() == f"{default:g}"


def test_the_commands_of_the_readme_exist(tmp_path: Path) -> None:
    named = re.findall(r"`leasehold ((?:limit|gcl) [a-z]+|server)\b", README)
    assert named
    for command in sorted(set(named)):
        assert "Usage" in run(f"leasehold {command} --help", tmp_path)


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "examples" / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), target
