"""PROTOCOL.md, "Other": who is let in; and for how long a connection is kept.

A server that wants a key is one more to start, so the oldest and the newest are; 3.4.18 and 3.4.25
answered as the newest does when they were asked for the table.
"""

from __future__ import annotations

import base64
import http.client
import time
import uuid
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

from conformance.backends import EXPECTED, GLOBALS, TAGS, Backend
from leasehold.client import get_client
from leasehold.embedded.ledger import Ledger
from leasehold.embedded.server import LedgerServer
from leasehold.embedded.transport import LedgerTransport
from leasehold.settings import Settings
from servers import LOCKED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import PrefectServer

KEY = LOCKED["PREFECT_SERVER_API_AUTH_STRING"]
BASIC = {"Authorization": f"Basic {base64.b64encode(KEY.encode()).decode()}"}
REAL = [name for name in EXPECTED if name != "embedded"]
LOCKABLE = [
    pytest.param(name, marks=[pytest.mark.locked(name), pytest.mark.slow])
    for name in ("3.0.11", "3.8.8")
]

locked_places = pytest.mark.parametrize("locked", ["embedded", *LOCKABLE], indirect=True)


@pytest.fixture
def locked(
    request: pytest.FixtureRequest,
    locked_server_of: Callable[[str], PrefectServer],
    tmp_path: Path,
) -> Iterator[Backend]:
    """Each place, told to let nobody in without a key and a token; the ledger cannot be told."""
    if request.param == "embedded":
        transport = LedgerTransport(LedgerServer(Ledger(tmp_path / "ledger.db")))
        client = httpx.Client(transport=transport, base_url="http://embedded/api")
    else:
        client = httpx.Client(base_url=locked_server_of(request.param).url, timeout=30)
    with client:
        yield Backend(request.param, client)


@locked_places
def test_without_the_key_nothing_but_the_health_is_told_where_the_table_says_so(
    locked: Backend,
) -> None:
    status = 401 if locked.expected.wants_key else 200
    assert locked.ask("GET", "/health").status_code == 200
    for wrong in ({}, {"Authorization": "Basic d3Jvbmc6d29yZA=="}):
        locked.http.headers = httpx.Headers(wrong)
        assert locked.ask("GET", "/admin/version").status_code == status
    locked.http.headers = httpx.Headers(BASIC)
    assert locked.ask("GET", "/admin/version").status_code == 200


@locked_places
def test_without_a_token_nothing_is_changed_where_the_table_says_so(locked: Backend) -> None:
    locked.http.headers = httpx.Headers(BASIC)
    body = {"tag": f"tag {uuid.uuid4()}", "concurrency_limit": 1}
    refused = locked.ask("POST", f"{TAGS}/", body)
    name = str(uuid.uuid4())
    token = locked.ask("GET", f"/csrf-token?client={name}")
    if not locked.expected.wants_csrf_token:
        assert (refused.is_success, token.status_code) == (True, 422)
        return
    assert refused.status_code == 403
    assert "CSRF" in refused.text  # by this we know that it is not the key
    locked.http.headers.update(
        {"Prefect-Csrf-Token": token.json()["token"], "Prefect-Csrf-Client": name}
    )
    assert locked.ask("POST", f"{TAGS}/", body).is_success


@pytest.mark.parametrize("name", LOCKABLE)
def test_our_client_gets_in_everywhere(
    name: str, locked_server_of: Callable[[str], PrefectServer]
) -> None:
    settings = Settings(api_url=locked_server_of(name).url, api_auth_string=KEY)
    tag = f"tag {uuid.uuid4()}"
    with get_client(sync_client=True, settings=settings) as client:
        client.create_concurrency_limit(tag, 3)
        assert client.read_concurrency_limit_by_tag(tag).concurrency_limit == 3
        client.delete_concurrency_limit_by_tag(tag)


@pytest.mark.slow  # it waits for more than 5 s
@pytest.mark.server(*(name for name in REAL if EXPECTED[name].cuts_idle_connections))
def test_a_connection_that_was_idle_for_five_seconds_is_cut_where_the_table_says_so(
    server_of: Callable[[str], PrefectServer],
) -> None:
    addresses = {name: urlsplit(server_of(name).url).netloc for name in REAL}
    lines = {name: http.client.HTTPConnection(at, timeout=30) for name, at in addresses.items()}
    for line in lines.values():
        line.request("GET", "/api/health")
        assert line.getresponse().read() == b"true"
    time.sleep(3)
    for line in lines.values():
        line.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):  # nothing is said, and nothing is cut, for now
            line.sock.recv(1)
    for name, line in lines.items():
        line.sock.settimeout(5)
        assert (line.sock.recv(1) == b"") is EXPECTED[name].cuts_idle_connections
        line.close()


def test_the_ledger_has_no_connection_that_could_be_cut(tmp_path: Path) -> None:
    transport = LedgerTransport(LedgerServer(Ledger(tmp_path / "ledger.db")))
    with httpx.Client(transport=transport, base_url="http://embedded/api") as client:
        assert client.post(f"{GLOBALS}/filter", json={}).status_code == 200
        transport.close()
        assert client.post(f"{GLOBALS}/filter", json={}).status_code == 200
