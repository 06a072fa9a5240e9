"""What the administration does when the server is not as it should be."""

from __future__ import annotations

import inspect
import json
import time
import uuid
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest
import respx

from leasehold.client import (
    AsyncClient,
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    SyncClient,
    get_client,
)
from leasehold.exceptions import (
    AuthenticationError,
    LimitExistsError,
    LimitNotFoundError,
    NotAPrefectServerError,
    ServerTooOldError,
    ServerUnreachableError,
    UnexpectedReplyError,
)
from leasehold.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

URL = "http://prefect.test/api"
LIMIT = {"id": str(uuid.uuid4()), "name": "api", "limit": 3, "active_slots": 0}
TAG = {"id": LIMIT["id"], "tag": "database", "concurrency_limit": 3, "active_slots": []}


@pytest.fixture
def server() -> Iterator[respx.MockRouter]:
    with respx.mock(base_url=URL) as router:
        router.get("/admin/version").respond(json="3.8.8")
        yield router


@pytest.fixture
def client() -> Iterator[SyncClient]:
    settings = Settings(api_url=URL, source="a test", unreachable_seconds=0.6)
    with get_client(sync_client=True, settings=settings) as client:
        yield client


def test_the_server_is_asked_what_it_is_once(server: respx.MockRouter, client: SyncClient) -> None:
    server.get("/concurrency_limits/tag/database").respond(json=TAG)
    client.read_concurrency_limit_by_tag("database")
    client.read_concurrency_limit_by_tag("database")
    assert [call.request.url.path for call in server.calls].count("/api/admin/version") == 1
    assert str(client.read_server().version) == "3.8.8"


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_named_and_not_tried_again(
    server: respx.MockRouter, client: SyncClient, status: int
) -> None:
    route = server.get("/concurrency_limits/tag/database").respond(status)
    with pytest.raises(AuthenticationError, match="PREFECT_API_KEY"):
        client.read_concurrency_limit_by_tag("database")
    assert route.call_count == 1


def test_a_busy_server_is_asked_again(server: respx.MockRouter, client: SyncClient) -> None:
    route = server.post("/concurrency_limits/").mock(
        side_effect=[
            httpx.Response(503),
            httpx.Response(429, headers={"retry-after": "0.05"}),
            httpx.Response(201, json=TAG),
        ]
    )
    assert str(client.create_concurrency_limit("database", 3)) == LIMIT["id"]
    assert route.call_count == 3


def test_the_async_client_asks_again_too(server: respx.MockRouter) -> None:
    server.post("/concurrency_limits/").mock(
        side_effect=[httpx.ConnectError("refused"), httpx.Response(201, json=TAG)]
    )

    async def scenario() -> uuid.UUID:
        async with get_client(settings=Settings(api_url=URL)) as client:
            return await client.create_concurrency_limit("database", 3)

    assert str(anyio.run(scenario)) == LIMIT["id"]


def test_a_server_that_stays_busy_is_given_up_within_bounds(
    server: respx.MockRouter, client: SyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    busy = httpx.Response(503, headers={"retry-after": "3600"})
    server.get("/concurrency_limits/tag/database").mock(return_value=busy)
    started = time.monotonic()
    with pytest.raises(ServerUnreachableError, match=r"HTTP 503.*Tried for.*a test") as caught:
        client.read_concurrency_limit_by_tag("database")
    assert time.monotonic() - started < 2
    assert caught.value.address == URL


def test_a_create_whose_reply_was_lost_is_taken_for_done_when_the_limit_is_there(
    server: respx.MockRouter, client: SyncClient
) -> None:
    server.post("/v2/concurrency_limits/").mock(
        side_effect=[httpx.ReadError("cut"), httpx.Response(409, json={"detail": "exists"})]
    )
    server.get("/v2/concurrency_limits/api").respond(json=LIMIT)
    made = client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="api", limit=3))
    assert str(made) == LIMIT["id"]


def test_a_create_whose_reply_was_lost_is_not_taken_for_done_when_another_limit_is_there(
    server: respx.MockRouter, client: SyncClient
) -> None:
    server.post("/v2/concurrency_limits/").mock(
        side_effect=[httpx.ReadError("cut"), httpx.Response(409, json={"detail": "exists"})]
    )
    server.get("/v2/concurrency_limits/api").respond(json=LIMIT)
    with pytest.raises(LimitExistsError):
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="api", limit=4))


def test_a_create_that_never_left_is_no_excuse_for_a_name_in_use(
    server: respx.MockRouter, client: SyncClient
) -> None:
    server.post("/v2/concurrency_limits/").mock(
        side_effect=[httpx.ConnectError("refused"), httpx.Response(409, json={"detail": "exists"})]
    )
    with pytest.raises(LimitExistsError):
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="api", limit=3))


def test_a_delete_whose_reply_was_lost_is_done_when_nothing_is_left(
    server: respx.MockRouter, client: SyncClient
) -> None:
    lost_then_gone: list[httpx.Response | Exception | type[Exception]] = [
        httpx.ReadError("cut"),
        httpx.Response(404),
    ]
    server.delete("/v2/concurrency_limits/api").mock(side_effect=lost_then_gone)
    server.delete("/concurrency_limits/tag/database").mock(side_effect=lost_then_gone)
    client.delete_global_concurrency_limit_by_name("api")
    client.delete_concurrency_limit_by_tag("database")


def test_a_rename_whose_reply_was_lost_is_done_when_the_new_name_is_there(
    server: respx.MockRouter, client: SyncClient
) -> None:
    server.patch("/v2/concurrency_limits/old").mock(
        side_effect=[httpx.ReadError("cut"), httpx.Response(404)]
    )
    server.get("/v2/concurrency_limits/api").respond(json=LIMIT)
    client.update_global_concurrency_limit("old", GlobalConcurrencyLimitUpdate(name="api"))


def test_an_upsert_survives_somebody_else_making_the_limit_meanwhile(
    server: respx.MockRouter, client: SyncClient
) -> None:
    change = server.patch("/v2/concurrency_limits/api").mock(
        side_effect=[httpx.Response(404), httpx.Response(204)]
    )
    server.post("/v2/concurrency_limits/").respond(409)
    client.upsert_global_concurrency_limit_by_name("api", 5)
    assert json.loads(change.calls.last.request.content) == {"limit": 5}


def test_only_what_was_given_is_sent(server: respx.MockRouter, client: SyncClient) -> None:
    route = server.patch("/v2/concurrency_limits/api").respond(204)
    client.update_global_concurrency_limit("api", GlobalConcurrencyLimitUpdate(active=False))
    assert json.loads(route.calls.last.request.content) == {"active": False}


def test_holders_have_the_names_that_the_server_knows(
    server: respx.MockRouter, client: SyncClient
) -> None:
    known, unknown = str(uuid.uuid4()), str(uuid.uuid4())
    tag = {**TAG, "active_slots": [unknown, known]}
    run = {"id": known, "name": "load-1", "state_name": "Running", "start_time": None}
    server.get("/concurrency_limits/tag/database").respond(json=tag)
    server.get("/v2/concurrency_limits/tag%3Adatabase").respond(json=LIMIT)
    server.post("/task_runs/filter").respond(json=[run])
    first, second = client.read_concurrency_limit_holders("database")
    assert (str(first.id), first.name) == (unknown, None)
    assert (str(second.id), second.name, second.state) == (known, "load-1", "Running")


def test_a_limit_deleted_while_limits_are_listed_is_left_out(
    server: respx.MockRouter, client: SyncClient
) -> None:
    gone = {**LIMIT, "name": "tag:gone"}
    server.post("/v2/concurrency_limits/filter").respond(json=[gone])
    server.post("/concurrency_limits/filter").respond(json=[TAG])
    server.get(f"/concurrency_limits/{gone['id']}").respond(404)
    assert [one.tag for one in client.read_concurrency_limits(10, 0)] == ["database"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(404, text="<html>"), NotAPrefectServerError),
        (httpx.Response(200, text="<html>"), NotAPrefectServerError),
        (httpx.Response(307, headers={"location": "https://x"}), NotAPrefectServerError),
        (httpx.Response(200, json="2.20.4"), ServerTooOldError),
        (httpx.Response(401), AuthenticationError),
    ],
)
def test_a_server_that_cannot_be_used_is_found_out_first(
    client: SyncClient, answer: httpx.Response, error: type[Exception]
) -> None:
    with respx.mock(base_url=URL) as server:
        server.get("/admin/version").mock(return_value=answer)
        with pytest.raises(error, match=URL):
            client.create_concurrency_limit("database", 3)


def test_a_reply_that_is_not_understood_is_no_success(
    server: respx.MockRouter, client: SyncClient
) -> None:
    server.post("/concurrency_limits/").respond(200, text="hello")
    with pytest.raises(UnexpectedReplyError, match="hello") as caught:
        client.create_concurrency_limit("database", 3)
    assert caught.value.status == 200
    server.get("/v2/concurrency_limits/api").respond(418, text="teapot")
    with pytest.raises(UnexpectedReplyError, match="teapot"):
        client.read_global_concurrency_limit_by_name("api")


def test_prefect_cloud_is_not_asked_for_its_version() -> None:
    url = "https://api.prefect.cloud/api/accounts/a/workspaces/w"
    with (
        respx.mock(base_url=url) as server,
        get_client(sync_client=True, settings=Settings(api_url=url)) as client,
    ):
        server.get("/v2/concurrency_limits/api").respond(404)
        with pytest.raises(LimitNotFoundError):
            client.read_global_concurrency_limit_by_name("api")
        assert "Cloud" in client.read_server().why


def test_both_faces_have_the_same_operations_and_signatures() -> None:
    def operations(client: type) -> dict[str, inspect.Signature]:
        members = inspect.getmembers(client, inspect.isfunction)
        return {name: inspect.signature(one) for name, one in members if "_limit" in name}

    assert operations(SyncClient) == operations(AsyncClient)
    assert len(operations(SyncClient)) > 13


def test_the_signatures_are_those_that_authors_know() -> None:
    def parameters(name: str) -> list[str]:
        return list(inspect.signature(getattr(SyncClient, name)).parameters)[1:]

    assert parameters("create_concurrency_limit") == ["tag", "concurrency_limit"]
    assert parameters("read_concurrency_limits") == ["limit", "offset"]
    assert parameters("reset_concurrency_limit_by_tag") == ["tag", "slot_override"]
    assert parameters("update_global_concurrency_limit") == ["name", "concurrency_limit"]
    assert parameters("upsert_global_concurrency_limit_by_name") == [
        "name",
        "limit",
        "slot_decay_per_second",
    ]
