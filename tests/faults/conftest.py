"""A real server behind a proxy that does to requests what networks do."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

import pytest

from leasehold.client import GlobalConcurrencyLimitCreate, get_client
from leasehold.settings import Settings
from proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import PrefectServer

_serial = itertools.count(1)


@pytest.fixture
def proxy(prefect_server_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Put the proxy between the code under test and the server."""
    with Proxy(prefect_server_url) as proxy:
        monkeypatch.setenv("PREFECT_API_URL", proxy.url)
        yield proxy


class Limits:
    """Limits on a server, looked at directly: what the proxy does is not done to the test."""

    def __init__(self, url: str) -> None:
        self._settings = Settings(api_url=url)

    def tag(self, size: int) -> str:
        """Make a tag with a limit."""
        tag = f"fault-{next(_serial)}"
        with get_client(sync_client=True, settings=self._settings) as client:
            client.create_concurrency_limit(tag, size)
        return tag

    def plain(self, size: int) -> str:
        """Make a limit that is no tag's."""
        name = f"plain-fault-{next(_serial)}"
        wanted = GlobalConcurrencyLimitCreate(name=name, limit=size)
        with get_client(sync_client=True, settings=self._settings) as client:
            client.create_global_concurrency_limit(wanted)
        return name

    def used(self, name: str) -> int:
        """Count the slots of a limit that the server thinks are taken."""
        with get_client(sync_client=True, settings=self._settings) as client:
            return client.read_global_concurrency_limit_by_name(name).active_slots


@pytest.fixture
def limits(prefect_server: PrefectServer) -> Limits:
    """Limits on the shared server."""
    return Limits(prefect_server.url)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """Give the warnings so far in which a text occurs."""
    caplog.set_level(logging.WARNING, "leasehold")

    def with_text(text: str) -> list[str]:
        lines = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
        return [line for line in lines if text in line]

    return with_text
