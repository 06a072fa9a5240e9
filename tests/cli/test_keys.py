"""A real server that wants a key, as people meet it who have none, or a wrong one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cli.running import run, run_json
from leasehold import flow, task
from leasehold.exceptions import AuthenticationError
from servers import LOCKED

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers import PrefectServer

pytestmark = [pytest.mark.slow, pytest.mark.locked("3.8.8")]

KEY = LOCKED["PREFECT_SERVER_API_AUTH_STRING"]


@pytest.fixture
def url(locked_server_of: Callable[[str], PrefectServer], monkeypatch: pytest.MonkeyPatch) -> str:
    url = locked_server_of("3.8.8").url
    monkeypatch.setenv("PREFECT_API_URL", url)
    return url


@task(tags=["database"])
def load() -> str:
    return "loaded"


@flow
def etl() -> str:
    return load.submit().result()


@pytest.mark.parametrize("key", [None, "user:wrong-4711"], ids=["none", "wrong"])
@pytest.mark.parametrize("command", ["limit ls", "limit create database 3", "doctor", "server"])
def test_every_command_says_in_one_line_that_the_key_is_refused(
    url: str, key: str | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key is not None:
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", key)
    refused = run(*command.split(), code=1)
    (line,) = refused.stderr.splitlines()
    assert refused.stdout == ""
    assert line.startswith(f"Error: The server at {url} refuses these credentials, or none")
    assert "PREFECT_API_AUTH_STRING" in line
    assert "4711" not in line


@pytest.mark.parametrize("key", [None, "user:wrong-4711"], ids=["none", "wrong"])
def test_a_task_with_a_tag_fails_with_the_same_words_and_does_not_run(
    url: str, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key is not None:
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", key)
    with pytest.raises(AuthenticationError, match="refuses these credentials, or none") as caught:
        etl()
    assert caught.value.address == url
    assert "4711" not in str(caught.value)


def test_with_the_key_all_of_them_work(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", KEY)
    run("limit", "create", "database", "3")
    assert etl() == "loaded"
    assert "database" in run("limit", "ls").stdout
    assert run_json("doctor", "database", "--wait", "0", "--json") == []
    assert url in run("server").stdout
    run("limit", "delete", "database")
