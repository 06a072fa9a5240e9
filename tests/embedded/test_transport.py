"""The transport, where it is more than the wire protocol: see tests/conformance for that."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import httpx
import pytest

from leasehold.embedded import file as ledger_file
from leasehold.embedded.ledger import Ledger
from leasehold.embedded.server import LedgerServer
from leasehold.embedded.transport import LedgerTransport
from leasehold.exceptions import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GLOBALS = "/v2/concurrency_limits/"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    transport = LedgerTransport(LedgerServer(Ledger(tmp_path / "ledger.db")))
    with httpx.Client(transport=transport, base_url="http://embedded/api") as client:
        yield client


def test_sync_and_async_clients_are_both_answered(tmp_path: Path) -> None:
    import anyio

    transport = LedgerTransport(LedgerServer(Ledger(tmp_path / "ledger.db"), version="3.9.9"))

    async def ask() -> str:
        async with httpx.AsyncClient(transport=transport, base_url="http://embedded/api") as client:
            return str((await client.get("/admin/version")).json())

    assert anyio.run(ask) == "3.9.9"
    with httpx.Client(transport=transport, base_url="http://embedded/api") as client:
        assert client.get("/admin/version").json() == "3.9.9"


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**400])
def test_a_number_that_no_database_keeps_is_refused(client: httpx.Client, number: int) -> None:
    for path, body in (
        (GLOBALS, {"name": "a", "limit": number}),
        ("/concurrency_limits/", {"tag": "a", "concurrency_limit": number}),
        (f"{GLOBALS}increment-with-lease", {"names": ["a"], "slots": number}),
        (f"{GLOBALS}filter", {"offset": number}),
    ):
        assert client.post(path, json=body).status_code == 422


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"null", b'"\\ud800"', b"1e999"])
def test_a_body_that_is_no_request_is_refused(client: httpx.Client, body: bytes) -> None:
    reply = client.post(f"{GLOBALS}increment-with-lease", content=body)
    assert reply.status_code == 422
    assert reply.json()["exception_message"] == "Invalid request received."


def test_endless_decay_is_refused(client: httpx.Client) -> None:
    body = b'{"name": "a", "limit": 1, "slot_decay_per_second": 1e999}'
    assert client.post(GLOBALS, content=body).status_code == 422


def test_a_busy_ledger_answers_503_as_a_busy_server_does(
    client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post(GLOBALS, json={"name": "a", "limit": 1})
    monkeypatch.setattr(ledger_file, "_BUSY_SECONDS", 0.1)
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    with contextlib.closing(other):
        other.execute("BEGIN IMMEDIATE")
        assert client.get(f"{GLOBALS}a").status_code == 503
        other.execute("COMMIT")
    assert client.get(f"{GLOBALS}a").status_code == 200


def test_a_broken_ledger_is_an_error_and_no_answer(client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("no ledger")
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        client.post(f"{GLOBALS}increment-with-lease", json={"names": ["a"], "slots": 1})


def test_a_slot_without_a_lease_may_be_asked_for_again_soon(client: httpx.Client) -> None:
    client.post(GLOBALS, json={"name": "a", "limit": 1})
    body = {"names": ["a"], "slots": 1}
    client.post(f"{GLOBALS}increment-with-lease", json=body)
    full = client.post(f"{GLOBALS}increment-with-lease", json=body)
    assert full.status_code == 423
    assert float(full.headers["retry-after"]) < 0.2
