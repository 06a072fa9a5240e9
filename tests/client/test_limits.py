"""The administration of limits: the same scenarios on the embedded ledger and on a real server."""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from typing import TYPE_CHECKING

import anyio
import pytest
from pydantic import ValidationError

from leasehold.client import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    SyncClient,
    get_client,
)
from leasehold.client.changes import _observers, on_change
from leasehold.client.http import SyncApi
from leasehold.client.wire import Request
from leasehold.exceptions import (
    InvalidLimitError,
    InvalidTagError,
    LimitExistsError,
    LimitNotFoundError,
    ParameterError,
)
from leasehold.settings import Settings
from places import DIVIDED, EVERYWHERE, NEWEST, OLD, occupy, places, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@pytest.fixture(params=EVERYWHERE)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return settings_of(request.param, request, tmp_path)


@pytest.fixture
def client(settings: Settings) -> Iterator[SyncClient]:
    with get_client(sync_client=True, settings=settings) as client:
        yield client


@pytest.fixture(params=["plain", "with space", "ü#?", "..", "[b]", "a'b\"c"])
def tag(request: pytest.FixtureRequest, client: SyncClient) -> Iterator[str]:
    """A tag that exists nowhere yet, in all kinds of writing."""
    tag = str(request.param)
    if tag != "..":  # two dots are a danger only when they are all there is
        tag += f" {uuid.uuid4().hex[:8]}"
    with contextlib.suppress(LimitNotFoundError):
        client.delete_concurrency_limit_by_tag(tag)
    yield tag
    with contextlib.suppress(LimitNotFoundError):
        client.delete_concurrency_limit_by_tag(tag)


@pytest.fixture
def name(client: SyncClient) -> Iterator[str]:
    """A name that no global limit has yet."""
    name = f"ü #? {uuid.uuid4().hex[:8]}"
    yield name
    with contextlib.suppress(LimitNotFoundError):
        client.delete_global_concurrency_limit_by_name(name)


def test_a_tags_limit_can_be_made_read_changed_and_deleted(client: SyncClient, tag: str) -> None:
    made = client.create_concurrency_limit(tag=tag, concurrency_limit=3)
    assert isinstance(made, uuid.UUID)
    limit = client.read_concurrency_limit_by_tag(tag)
    assert (limit.id, limit.tag, limit.concurrency_limit) == (made, tag, 3)
    assert limit.active_slots == []
    assert isinstance(limit.created, dt.datetime)

    client.update_concurrency_limit(tag, 5)
    assert client.read_concurrency_limit_by_tag(tag).concurrency_limit == 5

    client.delete_concurrency_limit_by_tag(tag)
    with pytest.raises(LimitNotFoundError) as caught:
        client.read_concurrency_limit_by_tag(tag)
    assert caught.value.name == tag
    assert repr(tag) in str(caught.value)


def test_making_a_tags_limit_again_changes_it_as_prefect_does(client: SyncClient, tag: str) -> None:
    first = client.create_concurrency_limit(tag, 3)
    assert client.create_concurrency_limit(tag, 0) == first
    assert client.read_concurrency_limit_by_tag(tag).concurrency_limit == 0


@pytest.mark.parametrize("tag", ["plain"], indirect=True)
def test_every_change_of_a_limit_that_is_not_there_names_it(client: SyncClient, tag: str) -> None:
    for change in (
        lambda: client.update_concurrency_limit(tag, 1),
        lambda: client.reset_concurrency_limit_by_tag(tag),
        lambda: client.delete_concurrency_limit_by_tag(tag),
        lambda: client.read_concurrency_limit_holders(tag),
    ):
        with pytest.raises(LimitNotFoundError, match=tag):
            change()


@pytest.mark.parametrize("tag", ["ü#?"], indirect=True)
def test_a_holder_is_listed_by_the_id_of_its_run(client: SyncClient, tag: str) -> None:
    client.create_concurrency_limit(tag, 2)
    run = uuid.uuid4()
    occupy(client, f"tag:{tag}", run)
    assert client.read_concurrency_limit_by_tag(tag).active_slots == [run]
    (holder,) = client.read_concurrency_limit_holders(tag)
    assert (holder.id, holder.name, holder.state, holder.since) == (run, None, None, None)


@pytest.mark.parametrize("settings", places(*DIVIDED), indirect=True)
def test_an_old_tag_with_a_slash_has_a_limit_like_any_other(
    settings: Settings, client: SyncClient
) -> None:
    tag, runs = f"a/b {uuid.uuid4()}", [uuid.uuid4() for _ in range(3)]
    with SyncApi(settings) as api:
        made = Request("POST", "/concurrency_limits/", {"tag": tag, "concurrency_limit": 2})
        assert api.send(made).status == 200
    assert client.read_concurrency_limit_by_tag(tag).concurrency_limit == 2
    for run in runs[:2]:
        occupy(client, f"tag:{tag}", run)
    client.reset_concurrency_limit_by_tag(tag, slot_override=[runs[2]])
    client.update_concurrency_limit(tag, 3)
    use = client.read_concurrency_limit_use(tag)
    assert (use.limit.concurrency_limit, use.limit.active_slots) == (3, [runs[2]])
    client.delete_concurrency_limit_by_tag(tag)
    with pytest.raises(LimitNotFoundError, match="a/b"):
        client.read_concurrency_limit_by_tag(tag)


@pytest.mark.parametrize("tag", ["plain"], indirect=True)
def test_after_a_reset_all_slots_can_be_had_again(client: SyncClient, tag: str) -> None:
    client.create_concurrency_limit(tag, 2)
    occupy(client, f"tag:{tag}", uuid.uuid4())
    occupy(client, f"tag:{tag}", uuid.uuid4())
    client.reset_concurrency_limit_by_tag(tag)
    assert client.read_concurrency_limit_by_tag(tag).active_slots == []
    assert client.read_concurrency_limit_use(tag).used == 0
    occupy(client, f"tag:{tag}", uuid.uuid4())
    occupy(client, f"tag:{tag}", uuid.uuid4())
    assert client.read_concurrency_limit_use(tag).used == 2


@pytest.mark.parametrize("tag", ["plain"], indirect=True)
def test_a_reset_can_leave_slots_to_chosen_runs(client: SyncClient, tag: str) -> None:
    client.create_concurrency_limit(tag, 2)
    run = uuid.uuid4()
    client.reset_concurrency_limit_by_tag(tag, slot_override=[run])
    assert client.read_concurrency_limit_by_tag(tag).active_slots == [run]
    assert client.read_concurrency_limit_use(tag).used == 1


@pytest.mark.parametrize("tag", ["plain"], indirect=True)
def test_tags_are_listed_although_other_limits_stand_before_them(
    client: SyncClient, tag: str, name: str
) -> None:
    # A server counts limits of every name for a page of tags: PROTOCOL.md, "Limits, v1 form".
    early = f"!{name}"
    client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=early, limit=1))
    client.create_concurrency_limit(tag, 3)
    try:
        everything = client.read_concurrency_limits(limit=None, offset=0)
        assert tag in {one.tag for one in everything}
        assert client.read_concurrency_limits(1, 0) == everything[:1]
        assert client.read_concurrency_limits(1000, 0) == everything
        assert client.read_concurrency_limits(5, len(everything)) == []
    finally:
        client.delete_global_concurrency_limit_by_name(early)


def test_a_global_limit_can_be_made_read_changed_and_deleted(client: SyncClient, name: str) -> None:
    made = client.create_global_concurrency_limit(
        concurrency_limit=GlobalConcurrencyLimitCreate(
            name=name, limit=3, slot_decay_per_second=0.5
        )
    )
    limit = client.read_global_concurrency_limit_by_name(name)
    assert (limit.id, limit.name, limit.limit) == (made, name, 3)
    assert (limit.active, limit.active_slots, limit.slot_decay_per_second) == (True, 0, 0.5)

    client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(active=False))
    limit = client.read_global_concurrency_limit_by_name(name)
    assert (limit.active, limit.limit) == (False, 3)

    client.delete_global_concurrency_limit_by_name(name)
    with pytest.raises(LimitNotFoundError, match="no global limit"):
        client.delete_global_concurrency_limit_by_name(name)


def test_a_name_in_use_is_refused(client: SyncClient, name: str) -> None:
    wanted = GlobalConcurrencyLimitCreate(name=name, limit=3)
    client.create_global_concurrency_limit(wanted)
    with pytest.raises(LimitExistsError) as caught:
        client.create_global_concurrency_limit(wanted)
    assert caught.value.name == name


def test_a_limit_can_be_renamed(client: SyncClient, name: str) -> None:
    client.create_global_concurrency_limit(
        GlobalConcurrencyLimitCreate(name=f"old {name}", limit=3)
    )
    change = GlobalConcurrencyLimitUpdate(name=name)
    client.update_global_concurrency_limit(f"old {name}", change)
    assert client.read_global_concurrency_limit_by_name(name).limit == 3


def test_upsert_makes_a_limit_and_then_changes_it(client: SyncClient, name: str) -> None:
    client.upsert_global_concurrency_limit_by_name(name, 3, slot_decay_per_second=2.0)
    client.upsert_global_concurrency_limit_by_name(name, 4)
    limit = client.read_global_concurrency_limit_by_name(name)
    assert (limit.limit, limit.slot_decay_per_second) == (4, 2.0)


def test_more_than_one_page_of_limits_is_listed(tmp_path: Path) -> None:
    with get_client(sync_client=True, settings=Settings(home=tmp_path)) as client:
        for number in range(205):
            client.create_concurrency_limit(f"{number:03}", 1)
            client.create_global_concurrency_limit(
                GlobalConcurrencyLimitCreate(name=f"{number:03}", limit=1)
            )
        assert len(client.read_global_concurrency_limits()) == 10
        assert len(client.read_global_concurrency_limits(limit=201)) == 201
        assert len(client.read_global_concurrency_limits(None, offset=3)) == 407
        tags = client.read_concurrency_limits(203, 1)
        assert [one.tag for one in tags] == [f"{number:03}" for number in range(1, 204)]


@pytest.mark.parametrize("settings", places(NEWEST, *OLD), indirect=True)
def test_more_tags_than_a_page_holds_are_listed_by_every_server(client: SyncClient) -> None:
    mine = [f"page {number:03} {uuid.uuid4().hex[:6]}" for number in range(205)]
    try:
        for tag in mine:
            client.create_concurrency_limit(tag, 1)
        found = {one.tag for one in client.read_concurrency_limits(1000, 0)}
        assert found.issuperset(mine)
        assert len(client.read_concurrency_limits(202, 1)) == 202
    finally:
        for tag in mine:
            client.delete_concurrency_limit_by_tag(tag)


@pytest.mark.parametrize(
    "tag", ["a/b", "a%b", "a&b", "a<b", "a>b", "", " ", None, 3, b"a", "\ud800"]
)
def test_a_tag_that_servers_refuse_is_refused_before_anything_is_sent(tag: str) -> None:
    nowhere = Settings(api_url="http://127.0.0.1:9/api")
    with get_client(sync_client=True, settings=nowhere) as client:
        with pytest.raises(InvalidTagError) as caught:
            client.create_concurrency_limit(tag, 1)
        assert caught.value.tag is tag
        with pytest.raises(InvalidTagError):
            client.create_concurrency_limit(tag, 1)


@pytest.mark.parametrize("size", [-1, -2, 2**31, 1.5, "3", None, True])
def test_a_number_that_cannot_be_a_limit_is_refused_before_anything_is_sent(size: int) -> None:
    nowhere = Settings(api_url="http://127.0.0.1:9/api")
    with get_client(sync_client=True, settings=nowhere) as client:
        with pytest.raises(InvalidLimitError, match="database"):
            client.create_concurrency_limit("database", size)
        with pytest.raises(InvalidLimitError, match="database"):
            client.update_concurrency_limit("database", size)


def test_a_page_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with get_client(sync_client=True, settings=Settings(home=tmp_path)) as client:
        with pytest.raises(ParameterError, match="limit must be"):
            client.read_concurrency_limits(-1, 0)
        with pytest.raises(ParameterError, match="offset must be"):
            client.read_global_concurrency_limits(1, -1)


@pytest.mark.parametrize(
    "wrong",
    [
        GlobalConcurrencyLimitCreate(name="api", limit=-1),
        GlobalConcurrencyLimitCreate(name="api", limit=1, active_slots=-1),
        GlobalConcurrencyLimitCreate(name="api", limit=1, slot_decay_per_second=-0.5),
        GlobalConcurrencyLimitCreate(name="api", limit=1, slot_decay_per_second=float("nan")),
    ],
)
def test_numbers_of_a_global_limit_are_checked(
    wrong: GlobalConcurrencyLimitCreate, tmp_path: Path
) -> None:
    with (
        get_client(sync_client=True, settings=Settings(home=tmp_path)) as client,
        pytest.raises(InvalidLimitError, match="api"),
    ):
        client.create_global_concurrency_limit(wrong)


def test_results_are_frozen(tmp_path: Path) -> None:
    with get_client(sync_client=True, settings=Settings(home=tmp_path)) as client:
        client.create_concurrency_limit("database", 3)
        limit = client.read_concurrency_limit_by_tag("database")
    with pytest.raises(ValidationError):
        limit.concurrency_limit = 4


def test_the_async_client_does_the_same(settings: Settings) -> None:
    tag = f"async {uuid.uuid4().hex[:8]}"

    async def scenario() -> None:
        async with get_client(settings=settings) as client:
            made = await client.create_concurrency_limit(tag, 3)
            assert (await client.read_concurrency_limit_by_tag(tag)).id == made
            found = await client.read_concurrency_limits(limit=None, offset=0)
            assert tag in {one.tag for one in found}
            await client.delete_concurrency_limit_by_tag(tag)
            with pytest.raises(LimitNotFoundError):
                await client.delete_concurrency_limit_by_tag(tag)

    for backend in ("asyncio", "trio"):
        anyio.run(scenario, backend=backend)


def test_those_who_remember_limits_are_told_of_changes(tmp_path: Path) -> None:
    told: list[Sequence[str]] = []
    on_change(told.append)
    try:
        with get_client(sync_client=True, settings=Settings(home=tmp_path)) as client:
            client.create_concurrency_limit("database", 3)
            client.read_concurrency_limit_by_tag("database")
            assert told == [("tag:database",)]
            with pytest.raises(LimitNotFoundError):
                client.delete_global_concurrency_limit_by_name("api")
            assert told == [("tag:database",), ("api",)]
    finally:
        _observers.remove(told.append)
