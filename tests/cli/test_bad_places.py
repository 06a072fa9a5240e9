"""Every command, where there is no server, or none that lets us in: one line, never a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
import respx

from cli.running import run

if TYPE_CHECKING:
    from collections.abc import Iterator

URL = "http://prefect.test/api"

COMMANDS = [
    "limit create database 3",
    "limit update database 3",
    "limit ls",
    "limit inspect database",
    "limit reset database --yes",
    "limit delete database --yes",
    "limit convert",
    "limit convert --apply",
    "gcl create api --limit 3",
    "gcl ls",
    "gcl inspect api",
    "gcl update api --limit 3",
    "gcl enable api",
    "gcl disable api",
    "gcl delete api --yes",
    "doctor",
    "doctor database",
    "doctor --fix --force",
    "server",
]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", URL)
    monkeypatch.setenv("LEASEHOLD_UNREACHABLE_SECONDS", "0.1")


@pytest.fixture
def server() -> Iterator[respx.MockRouter]:
    with respx.mock(base_url=URL, assert_all_called=False) as router:
        yield router


def error_of(command: str, *options: str) -> str:
    refused = run(*command.split(), *options, code=1)
    assert refused.stdout == ""
    (line,) = refused.stderr.splitlines()
    assert line.startswith("Error: ")
    return str(line)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_server_that_does_not_answer_is_named(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert "http://127.0.0.1:9/api" in error_of(command)
    assert "http://127.0.0.1:9/api" in error_of(command, "--json")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("status", "words"), [(401, "credentials"), (403, "the right to do this")])
def test_a_refused_key_is_said_and_never_shown(
    command: str,
    status: int,
    words: str,
    server: respx.MockRouter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "very-secret")
    server.route().respond(status)
    line = error_of(command)
    assert words in line
    assert URL in line
    assert "very-secret" not in line


@pytest.mark.parametrize("command", COMMANDS)
def test_the_right_to_read_alone_is_said_too(command: str, server: respx.MockRouter) -> None:
    # A key may know the version and nothing more.
    server.get("/admin/version").respond(json="3.4.18")
    server.route().respond(403)
    assert "the right to do this" in error_of(command)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(404, text="<html>"), "no Prefect API"),
        (httpx.Response(200, json="2.20.4"), "Upgrade the server"),
    ],
)
def test_what_is_no_server_for_this_is_said(
    command: str, answer: httpx.Response, words: str, server: respx.MockRouter
) -> None:
    server.route().mock(return_value=answer)
    assert words in error_of(command)
