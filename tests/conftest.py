"""What all tests share: a clean environment, real servers, and nothing left behind."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

import pytest

from servers import LOCKED, PrefectServers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import PrefectServer

pytest_plugins = ["crash.table"]

NEWEST: Final = "3.8.8"


@pytest.fixture(scope="session")
def server_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], PrefectServer]]:
    """The real server of a version, shared by all tests; started when the first one asks.

    Tests name what they need in their marker, `pytest.mark.server("3.4.25")`, so that all servers
    of a run start at the same time.
    """
    servers = PrefectServers(_needed(request, "server"))
    yield servers.of
    servers.stop()


@pytest.fixture(scope="session")
def locked_server_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], PrefectServer]]:
    """The same, of servers that want a key: see `servers.LOCKED`, and `pytest.mark.locked`."""
    servers = PrefectServers(_needed(request, "locked"), LOCKED)
    yield servers.of
    servers.stop()


def _needed(request: pytest.FixtureRequest, marker: str) -> set[str]:
    return {
        version
        for item in request.session.items
        for mark in item.iter_markers(marker)
        for version in mark.args
    }


@pytest.fixture(scope="session")
def prefect_server(server_of: Callable[[str], PrefectServer]) -> PrefectServer:
    """The newest one, which most tests use."""
    return server_of(NEWEST)


@pytest.fixture(scope="session")
def prefect_server_url(prefect_server: PrefectServer) -> str:
    """Its address."""
    return prefect_server.url


@pytest.fixture(autouse=True)
def _clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the developer's own settings and ledger out of the tests, and the keeper's thread in."""
    for name in list(os.environ):
        if name.startswith(("PREFECT_", "LEASEHOLD_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path / "leasehold"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    yield
    from leasehold import timers
    from leasehold.concurrency import process

    process.shut_down()
    timers.rest()
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("leasehold")]
    assert left == [], "threads were left behind"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that talks to a real server, and give it time for the server to start."""
    for item in items:
        if "prefect_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.server(NEWEST))
        if item.get_closest_marker("locked"):
            item.add_marker(pytest.mark.server)
        if item.get_closest_marker("server") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300))
