"""`leasehold limit convert`: leases for tags on a server that has them, but not for tags."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from cli.running import run, run_json
from leasehold.client import get_client
from leasehold.client.dialect import LEASES, TAG_CALLS
from leasehold.client.http import SyncApi
from leasehold.client.wire import Granted, Holder, Request, SlotRequest
from leasehold.concurrency import concurrency
from leasehold.concurrency.connection import Connection
from leasehold.concurrency.healing import heal
from leasehold.concurrency.lease import Lease, read_clock
from leasehold.concurrency.process import shut_down
from leasehold.settings import load
from places import EMBEDDED, NEWEST, assert_all_back, places, settings_of
from servers import PrefectServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


ODD = "with ü #?"


@pytest.fixture(scope="module")
def shared() -> Iterator[PrefectServer]:
    """Start a server of its own: a conversion is for all tags of a server."""
    server = PrefectServer("3.4.18").start()
    yield server
    server.stop()


@pytest.fixture
def server(shared: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> PrefectServer:
    """Have two tags with limits on the old path, and nothing else."""
    monkeypatch.setenv("PREFECT_API_URL", shared.url)
    with get_client(sync_client=True) as client:
        for one in client.read_concurrency_limits(None, 0):
            client.delete_concurrency_limit_by_tag(one.tag)
        client.create_concurrency_limit("database", 2)
        client.create_concurrency_limit(ODD, 1)
    return shared


def make_old(tag: str) -> None:
    """Make a tag's limit of 2 as old clients do, who ask for nothing but a string."""
    body = {"tag": tag, "concurrency_limit": 2}
    with SyncApi(load()) as api:
        assert api.send(Request("POST", "/concurrency_limits/", body)).status == 200


def used(tag: str) -> tuple[int, int]:
    """Count the slots in use: on the old path, and by leases."""
    with get_client(sync_client=True) as client:
        use = client.read_concurrency_limit_use(tag)
    return len(use.limit.active_slots), use.counted.active_slots if use.counted else 0


@pytest.mark.slow
@pytest.mark.server
def test_without_apply_it_says_what_it_would_do_and_does_nothing(server: PrefectServer) -> None:
    dry = run_json("limit", "convert", "--json")
    assert (dry["applied"], [one["tag"] for one in dry["tags"]]) == (False, ["database", ODD])
    told = run("limit", "convert").stdout
    assert "tag:database" in told
    assert "clients on the old path go on counting apart" in told
    assert run_json("gcl", "ls", "--json") == []


@pytest.mark.slow
@pytest.mark.server
def test_while_a_slot_is_held_nothing_is_converted(server: PrefectServer) -> None:
    with concurrency("tag:database") as lease:
        assert lease.id is None
        assert used("database") == (1, 0)
        assert "Not now: 1 slot held" in run("limit", "convert").stdout
        refused = run("limit", "convert", "--apply", code=1).stderr
        assert "'database'" in refused
        assert len(refused.splitlines()) == 1
        assert run_json("gcl", "ls", "--json") == []
    assert_all_back("database")


@pytest.mark.slow
@pytest.mark.server
def test_after_it_tags_are_held_by_leases(server: PrefectServer) -> None:
    assert "Converted tag 'database'" in run("limit", "convert", "--apply").stdout
    assert "all tags are converted" in run("limit", "convert").stdout
    shut_down()  # a program that runs on notices within a minute; this one starts anew
    with concurrency(["tag:database", f"tag:{ODD}"], timeout_seconds=10) as lease:
        assert lease.id is not None
        assert lease.crash_safe
        assert (used("database"), used(ODD)) == ((0, 1), (0, 1))
        assert "1 of 2 slots in use" in run("limit", "inspect", "database").stdout
        assert run_json("doctor", "--wait", "0", "--json") == []
    assert_all_back("database")


@pytest.mark.slow
@pytest.mark.server
def test_old_clients_meet_the_old_limit_still_and_changes_reach_both(server: PrefectServer) -> None:
    run("limit", "convert", "--apply")
    run("limit", "update", "database", "1")
    wanted, first, second = SlotRequest(("tag:database",)), Holder(uuid4()), Holder(uuid4())
    with SyncApi(load()) as api:
        assert api.send(TAG_CALLS.acquire(wanted, first)).status == 200
        assert api.send(TAG_CALLS.acquire(wanted, second)).status == 423
        assert api.send(LEASES.acquire(wanted, second)).status == 200
        assert api.send(LEASES.acquire(wanted, first)).status == 423
    assert used("database") == (1, 1)
    run("limit", "reset", "database", "--yes")
    assert used("database") == (0, 0)


@pytest.mark.slow
@pytest.mark.server
def test_a_tag_that_cannot_be_converted_is_named_before_anything_is_changed(
    server: PrefectServer,
) -> None:
    make_old("a/b")
    for options in ((), ("--apply",)):
        refused = run("limit", "convert", *options, code=1).stderr
        assert "'a/b'" in refused
        assert len(refused.splitlines()) == 1
    assert run_json("gcl", "ls", "--json") == []


@pytest.mark.slow
@pytest.mark.server
def test_healing_takes_nobodys_slot_although_leases_are_not_listed_there(
    server: PrefectServer,
) -> None:
    run("limit", "convert", "--apply")
    wanted = SlotRequest(("tag:database",))
    with SyncApi(load()) as api:
        assert api.send(LEASES.acquire(wanted, Holder(uuid4()))).status == 200

    async def doubt() -> None:
        connection = Connection(load(), clock=read_clock)
        ours = Lease(wanted, Granted({"tag:database": 2}), read_clock(), holder_id=uuid4())
        await heal(ours, connection, sure=False)
        await connection.close()

    asyncio.run(doubt())
    assert used("database") == (0, 1)


@pytest.mark.slow
@pytest.mark.server
def test_a_new_tag_lives_where_the_converted_ones_do(server: PrefectServer) -> None:
    run("limit", "convert", "--apply")
    run("limit", "create", "new", "3")
    assert "tag:new" in run("gcl", "ls").stdout
    assert "all tags are converted" in run("limit", "convert").stdout
    run("limit", "delete", "new")
    assert "tag:new" not in run("gcl", "ls").stdout


@pytest.mark.slow
@pytest.mark.server
def test_a_limit_that_an_old_tool_changes_on_its_own_path_is_found(server: PrefectServer) -> None:
    run("limit", "convert", "--apply")
    body = {"tag": "database", "concurrency_limit": 4}
    with SyncApi(load()) as api:
        assert api.send(Request("POST", "/concurrency_limits/", body)).status == 200
    assert "limit of 4" in run("doctor", "database", code=1).stdout


@pytest.mark.slow
@pytest.mark.server
def test_a_later_upgrade_of_the_server_keeps_the_limits(server: PrefectServer) -> None:
    # The last test of this file: it uses the server up.
    run("limit", "convert", "--apply")
    make_old("a/b")
    server.kill()
    newer = PrefectServer("3.4.25", home=server.home, port=server.port).start()
    try:
        assert "Nothing to do" in run("limit", "convert", "--apply").stdout
        limits = {one["tag"]: one for one in run_json("limit", "ls", "--json")}
        assert {tag: one["concurrency_limit"] for tag, one in limits.items()} == {
            "a/b": 2,
            "database": 2,
            ODD: 1,
        }
        run("limit", "update", "a/b", "1")
        assert "0 of 1 slot in use" in run("limit", "inspect", "a/b").stdout
        assert run_json("gcl", "inspect", "tag:a/b", "--json")["limit"] == 1
        assert run_json("doctor", "--wait", "0", "--json") == []
    finally:
        newer.stop()


@pytest.mark.parametrize("place", places(EMBEDDED, NEWEST, "3.4.25", "3.0.11"))
def test_where_there_is_nothing_to_convert_it_says_why(
    place: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(place, request, tmp_path)
    if settings.api_url is not None:
        monkeypatch.setenv("PREFECT_API_URL", settings.api_url)
    if place == "3.0.11":
        refused = run("limit", "convert", "--apply", code=1).stderr
        assert "Prefect 3.0.11 has no leases" in refused
        assert "Upgrade it to 3.4.19 or newer" in refused
        assert len(refused.splitlines()) == 1
    else:
        assert "Nothing to do" in run("limit", "convert").stdout
        assert run_json("limit", "convert", "--apply", "--json")["tags"] == []
