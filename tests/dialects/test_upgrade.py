"""A server is upgraded or restarted under running tasks: 3.4.18 -> 3.4.25, on one database."""

from __future__ import annotations

import logging
import threading
import uuid
from typing import TYPE_CHECKING

import pytest

from leasehold import flow, task
from leasehold.client import GlobalConcurrencyLimitCreate, get_client
from leasehold.concurrency import concurrency
from places import NEWEST, assert_all_back, occupy
from servers import PrefectServer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.server]


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> Iterator[PrefectServer]:
    server = PrefectServer("3.4.18").start()
    monkeypatch.setenv("PREFECT_API_URL", server.url)
    yield server
    server.stop()


def upgraded(server: PrefectServer) -> PrefectServer:
    """Exchange a server as operators do: the old one ends, a newer one finds its database."""
    server.kill()
    return PrefectServer("3.4.25", home=server.home, port=server.port).start()


def test_slots_go_back_on_the_path_they_came_although_the_server_was_upgraded(
    old: PrefectServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "leasehold")
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("database", 1)
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="api", limit=1))
    in_body, go_on = threading.Event(), threading.Event()

    @task(tags=["database"])
    def body() -> None:
        with concurrency("api"):
            in_body.set()
            assert go_on.wait(120)

    @flow
    def work() -> None:
        running = body.submit()
        assert in_body.wait(30)
        running.result()

    working = threading.Thread(target=work)
    working.start()
    assert in_body.wait(30)
    new = upgraded(old)
    try:
        go_on.set()
        working.join(60)
        assert not working.is_alive()
        assert_all_back("database")
        # The lease on the plain limit was forgotten in the restart, and its counter kept.
        with concurrency(["tag:database", "api"], timeout_seconds=20) as lease:
            assert lease.id is not None  # that it is another server was seen at once
            assert set(lease.limits) == {"tag:database", "api"}
        assert_all_back("database")
        with get_client(sync_client=True) as client:
            assert str(client.read_server().version) == "3.4.25"
    finally:
        new.stop()


def test_a_slot_and_a_client_outlive_an_upgrade_and_one_more_restart(old: PrefectServer) -> None:
    seconds = 0.0
    with get_client(sync_client=True) as client:
        client._limits._clock = lambda: seconds
        client.create_concurrency_limit("database", 1)
        assert client.read_server().name == "legacy"
        with concurrency("tag:database"):
            new = upgraded(old)
            new.kill()
            new.start()
        try:
            assert_all_back("database")
            with concurrency("tag:database", timeout_seconds=20):
                pass
            assert_all_back("database")
            assert client.read_server().name == "legacy"  # it is not asked at every step
            seconds = 301.0
            assert client.read_server().name == "leases"
        finally:
            new.stop()


def test_a_slot_of_the_old_calls_that_a_restart_made_a_zombie_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = PrefectServer(NEWEST).start()
    monkeypatch.setenv("PREFECT_API_URL", server.url)
    monkeypatch.setenv("LEASEHOLD_DIALECT", "legacy")
    try:
        with get_client(sync_client=True) as client:
            client.create_concurrency_limit("database", 3)
            with concurrency("tag:database") as lease:
                assert lease.id is None
                server.kill()
                server.start()
                occupy(client, "tag:database", uuid.uuid4())  # who came later is left alone
                assert client.read_concurrency_limit_use("database").used == 2
            assert_all_back("database", but=1)
    finally:
        server.stop()
