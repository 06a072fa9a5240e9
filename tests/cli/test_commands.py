"""The command line, inside this process, on the embedded ledger and on a real server."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

import places
from cli.running import run, run_json
from leasehold.cli.app import app
from leasehold.client import get_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def occupy(limit: str) -> uuid.UUID:
    """Take a slot, as a task run would."""
    holder = uuid.uuid4()
    with get_client(sync_client=True) as client:
        places.occupy(client, limit, holder)
    return holder


@pytest.fixture(autouse=True)
def _no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_CLI_PROMPT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path))


@pytest.fixture(params=places.EVERYWHERE)
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    settings = places.settings_of(request.param, request, tmp_path)
    if settings.api_url is None:
        return str(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", settings.api_url)
    return settings.api_url


@pytest.fixture
def name(address: str) -> Iterator[str]:
    name = f"ü #?[b] {uuid.uuid4().hex[:8]}"
    yield name
    for group in ("limit", "gcl"):
        CliRunner().invoke(app, [group, "delete", name, "--yes"])


def test_the_life_of_a_tags_limit(name: str, address: str) -> None:
    made = run("limit", "create", name, "3").stdout
    assert name in made
    assert "at most 3" in made
    assert address in made
    assert "had a limit of 3; now at most 4" in run("limit", "create", name, "4").stdout
    assert name in run("limit", "ls").stdout
    assert f"Tag {name!r}: 0 of 4 slots in use" in run("limit", "inspect", name).stdout
    run("limit", "update", name, "5")
    assert run_json("limit", "inspect", name, "--json")["concurrency_limit"] == 5
    run("limit", "reset", name)
    run("limit", "delete", name)
    gone = run("limit", "inspect", name, code=1)
    assert repr(name) in gone.stderr
    assert gone.stdout == ""


def test_the_life_of_a_global_limit(name: str, address: str) -> None:
    assert address in run("gcl", "create", name, "--limit", "3").stdout
    again = run("gcl", "create", name, "-l", "3", code=1).stderr
    assert repr(name) in again
    assert len(again.splitlines()) == 1
    run("gcl", "update", name, "--limit", "4", "--slot-decay-per-second", "0.5", "--disable")
    shown = run_json("gcl", "inspect", name, "-o", "json")
    assert (shown["limit"], shown["slot_decay_per_second"], shown["active"]) == (4, 0.5, False)
    assert "already disabled" in run("gcl", "disable", name, code=1).stderr
    assert run_json("gcl", "enable", name, "--json")["active"] is True
    run("gcl", "disable", name)
    assert name in run("gcl", "ls").stdout
    assert name in run("gcl", "inspect", name).stdout
    run("gcl", "delete", name)
    assert repr(name) in run("gcl", "delete", name, code=1).stderr


def test_every_command_prints_json_and_nothing_else_on_stdout(name: str) -> None:
    assert run_json("limit", "create", name, "3", "--json")["tag"] == name
    assert run_json("limit", "update", name, "4", "--json")["concurrency_limit"] == 4
    assert name in [one["tag"] for one in run_json("limit", "ls", "--json")]
    assert run_json("limit", "inspect", name, "--output", "json")["holders"] == []
    assert run_json("limit", "reset", name, "--json")["used"] == 0
    assert run_json("limit", "delete", name, "--json") == {"tag": name, "deleted": True}
    assert run_json("gcl", "create", name, "-l", "3", "--json")["name"] == name
    assert run_json("gcl", "update", name, "-l", "2", "--json")["limit"] == 2
    assert name in [one["name"] for one in run_json("gcl", "ls", "-o", "json")]
    assert run_json("gcl", "disable", name, "--json")["active"] is False
    assert run_json("gcl", "delete", name, "--json") == {"name": name, "deleted": True}
    assert run_json("server", "--json")["dialect"] in {"leases", "legacy"}


def test_inspect_names_who_holds_a_slot(name: str) -> None:
    run("limit", "create", name, "2")
    holder = occupy(f"tag:{name}")
    shown = run("limit", "inspect", name).stdout
    assert "1 of 2 slots in use" in shown
    assert str(holder) in shown
    assert "expires, " in shown
    as_json = run_json("limit", "inspect", name, "--json")
    assert as_json["used"] == 1
    assert [one["id"] for one in as_json["holders"]] == [str(holder)]


def test_reset_with_slots_in_use_needs_yes(name: str) -> None:
    run("limit", "create", name, "2")
    occupy(f"tag:{name}")
    refused = run("limit", "reset", name, code=1).stderr
    assert "1 slot" in refused
    assert "--yes" in refused
    assert run_json("limit", "inspect", name, "--json")["used"] == 1
    assert "1 slot freed" in run("limit", "reset", name, "--yes").stdout
    assert run_json("limit", "inspect", name, "--json")["used"] == 0


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("", 1)])
def test_where_there_is_somebody_to_ask_delete_and_reset_ask(answer: str, code: int) -> None:
    run("limit", "create", "database", "2")
    run("gcl", "create", "api", "--limit", "2")
    occupy("tag:database")
    asked = run("--prompt", "limit", "reset", "database", answer=answer, code=code)
    assert "1 slot" in asked.stderr
    run("limit", "delete", "database", "--prompt", answer=answer, code=code)
    run("gcl", "delete", "api", "--prompt", answer=answer, code=code)
    assert (run_json("gcl", "ls", "--json") == []) is (code == 0)


def test_what_prefect_accepts_is_accepted() -> None:
    run("concurrency-limit", "create", "--tag", "database", "--concurrency-limit", "3")
    run("concurrency-limits", "create", "--tag=database", "4")
    run("concurrency-limit", "create", "database", "--concurrency-limit", "5")
    assert run_json("limit", "inspect", "--tag", "database", "--json")["concurrency_limit"] == 5
    run("global-concurrency-limit", "create", "--name", "api", "--limit", "3", "--no-disable")
    run("gcl", "update", "api", "--active-slots", "2", "--enable", "--no-disable")
    assert run_json("gcl", "inspect", "api", "--json")["active_slots"] == 2
    run("--no-prompt", "concurrency-limit", "delete", "database")
    run("gcl", "delete", "--no-prompt", "api")


def test_an_empty_list_says_how_to_begin() -> None:
    for group in ("limit", "gcl"):
        empty = run(group, "ls")
        assert empty.stdout == ""
        assert f"leasehold {group} create" in empty.stderr
        assert run_json(group, "ls", "--json") == []


def test_a_list_has_a_window() -> None:
    for tag in ("a", "b", "c"):
        run("limit", "create", tag, "1")
    window = run_json("limit", "ls", "--limit", "1", "--offset", "1", "--json")
    assert [one["tag"] for one in window] == ["b"]
    assert "Nothing to list" in run("limit", "ls", "--offset", "9").stderr
    assert len(run_json("limit", "ls", "--limit", "1000", "--json")) == 3


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("limit", "create", "a/b", "3"), ["a/b", "a-b"]),
        (("limit", "create", "", "3"), ["empty"]),
        (("limit", "create", "database", "-2"), ["-2", "database"]),
        (("limit", "update", "database", "3"), ["database", "limit ls"]),
        (("gcl", "create", "api", "--limit", "-2"), ["-2", "api"]),
        (("gcl", "create", "a%b", "--limit", "2"), ["a%b"]),
        (("gcl", "update", "api"), ["nothing to change"]),
        (("gcl", "enable", "api"), ["api", "gcl ls"]),
        (("--profile", "nope", "server"), ["nope", "profiles.toml"]),
    ],
)
def test_what_cannot_be_done_gets_one_line(args: tuple[str, ...], words: list[str]) -> None:
    refused = run(*args, code=1)
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stderr.startswith("Error: ")
    assert all(word in refused.stderr for word in words)


@pytest.mark.parametrize(
    "args",
    [
        ("frobnicate",),
        ("limit", "create", "database"),
        ("limit", "create", "database", "many"),
        ("limit", "create", "database", "3", "4"),
        ("limit", "inspect", "database", "--output", "yaml"),
        ("limit", "ls", "--limit", "-1"),
        ("gcl", "create", "api"),
        ("gcl", "update", "api", "--enable", "--disable"),
        ("gcl", "inspect", "api", "--file", "x.json"),
        ("limit", "delete", "--tag"),
    ],
)
def test_a_wrong_command_line_has_exit_code_2(args: tuple[str, ...]) -> None:
    assert run(*args, code=2).stdout == ""


@pytest.mark.parametrize(
    "args",
    [
        ("limit", "create", "database", "many"),
        ("gcl", "create", "api", "--limit", "many"),
        ("gcl", "update", "api", "--active-slots", "many"),
    ],
)
def test_what_is_no_number_is_named(args: tuple[str, ...]) -> None:
    assert "'many' is no whole number" in run(*args, code=2).stderr


def test_help_lists_the_commands_whole_and_in_the_order_in_which_people_meet_them() -> None:
    commands = run("--help").stdout.split("Commands:")[1].splitlines()[1:]
    assert [line.split()[0] for line in commands[:5]] == [
        *("limit", "gcl", "run", "server", "doctor"),
    ]
    assert all(line.endswith(".") and "..." not in line for line in commands)


def test_a_global_limit_is_written_to_a_file(tmp_path: Path) -> None:
    run("gcl", "create", "api", "--limit", "3")
    file = tmp_path / "api.json"
    assert run("gcl", "inspect", "api", "-o", "json", "-f", str(file)).stdout == ""
    assert json.loads(file.read_text())["limit"] == 3
    nowhere = tmp_path / "no" / "api.json"
    refused = run("gcl", "inspect", "api", "-o", "json", "-f", str(nowhere), code=1)
    assert str(nowhere) in refused.stderr


def test_server_says_where_limits_are_kept_and_why_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run("server").stdout
    assert str(tmp_path) in shown
    assert "PREFECT_API_URL is not set" in shown
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("LEASEHOLD_UNREACHABLE_SECONDS", "0.1")
    assert "environment variable PREFECT_API_URL" in run("server", code=1).stderr


HELD = {
    "3.0.11": ("legacy", "tags by the old tag calls, other limits by bare counters"),
    "3.4.18": ("legacy", "tags by the old tag calls, other limits by leases"),
    "3.4.25": ("leases", "all by leases"),
    "3.8.8": ("leases", "all by leases"),
}


@pytest.mark.parametrize("address", places.places(*HELD), indirect=True)
def test_server_says_what_the_server_is_and_how_slots_are_held_there(
    address: str, request: pytest.FixtureRequest
) -> None:
    version = request.node.callspec.params["address"]
    dialect, words = HELD[version]
    shown = run_json("server", "--json")
    assert (shown["address"], shown["embedded"]) == (address, False)
    assert (shown["version"], shown["dialect"]) == (version, dialect)
    assert f"{words}, because Prefect {version}" in run("server").stdout


def test_a_profile_that_is_asked_for_wins_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "profiles.toml").write_text(
        'active = "a"\n[profiles.a]\n[profiles.b]\nPREFECT_API_URL = ""\n'
    )
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert run_json("-p", "b", "server", "--json")["embedded"] is True
    assert run_json("server", "--json", "--profile=b")["embedded"] is True


def test_the_version_is_said() -> None:
    from leasehold import __version__

    assert run("--version").stdout == f"{__version__}\n"
