"""Opens every place that speaks the protocol, and gives the choices that tests ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from conformance.backends import EXPECTED, Backend
from leasehold.embedded.ledger import Ledger
from leasehold.embedded.server import LedgerServer
from leasehold.embedded.transport import LedgerTransport
from places import places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import PrefectServer


@pytest.fixture
def open_backend(
    server_of: Callable[[str], PrefectServer], tmp_path: Path
) -> Iterator[Callable[[str], Backend]]:
    """Open the place of a name."""
    clients: list[httpx.Client] = []

    def open_it(name: str) -> Backend:
        if name == "embedded":
            transport = LedgerTransport(LedgerServer(Ledger(tmp_path / "ledger.db")))
            client = httpx.Client(transport=transport, base_url="http://embedded/api")
        else:
            # Servers cut connections that were idle for 5 s, and after every 500.
            limits = httpx.Limits(max_keepalive_connections=0)
            client = httpx.Client(base_url=server_of(name).url, timeout=30, limits=limits)
        clients.append(client)
        return Backend(name, client)

    yield open_it
    for client in clients:
        client.close()


@pytest.fixture(params=places(*EXPECTED))
def backend(request: pytest.FixtureRequest, open_backend: Callable[[str], Backend]) -> Backend:
    """Each place in turn."""
    return open_backend(request.param)


@pytest.fixture(params=places(*(name for name, row in EXPECTED.items() if row.leases)))
def leasing(request: pytest.FixtureRequest, open_backend: Callable[[str], Backend]) -> Backend:
    """Each place that has the lease endpoints."""
    return open_backend(request.param)


@pytest.fixture(params=places(*(name for name, row in EXPECTED.items() if row.tags_are_global)))
def unified(request: pytest.FixtureRequest, open_backend: Callable[[str], Backend]) -> Backend:
    """Each place where a tag's limit is a global limit."""
    return open_backend(request.param)


@pytest.fixture(params=places(*(name for name, row in EXPECTED.items() if not row.tags_are_global)))
def divided(request: pytest.FixtureRequest, open_backend: Callable[[str], Backend]) -> Backend:
    """Each place that keeps tags' limits apart from global ones."""
    return open_backend(request.param)
