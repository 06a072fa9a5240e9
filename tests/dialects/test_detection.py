"""When the keeper asks what a server is, and what it says about the answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import httpx
import pytest
import respx

from leasehold.client.dialect import LEASES, TAG_CALLS
from leasehold.client.wire import Refusal, Refused, Request, SlotRequest
from leasehold.concurrency.connection import Connection
from leasehold.exceptions import ServerTooOldError, ServerUnreachableError
from leasehold.settings import Settings
from places import EVERYWHERE, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

URL = "http://prefect.test/api"
TAG = SlotRequest(("tag:database",))
NO_SUCH_ENDPOINT = Refused(Refusal.NO_SUCH_ENDPOINT, 405, "Method Not Allowed")


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Read it."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Iterator[respx.MockRouter]:
    with respx.mock(base_url=URL, assert_all_called=False) as router:
        router.get(path__regex=r"^/(v2/)?concurrency_limits/", name="limits").respond(404)
        yield router


def upgrade(server: respx.MockRouter, *versions: str) -> respx.Route:
    """Have the server be a newer one each time that it is asked."""
    answers = [httpx.Response(200, json=version) for version in versions]
    return server.get("/admin/version").mock(side_effect=answers)


def test_the_server_is_asked_once_and_again_after_five_minutes(
    server: respx.MockRouter, clock: Clock
) -> None:
    asked = upgrade(server, "3.8.7", "3.8.8")

    async def scenario() -> None:
        connection = Connection(Settings(api_url=URL), clock=clock)
        for clock.now in (0.0, 1.0, 299.0):
            assert await connection.dialect(TAG) is LEASES
        assert asked.call_count == 1
        clock.now = 300.0
        assert await connection.dialect(TAG) is LEASES
        assert asked.call_count == 2
        await connection.close()

    asyncio.run(scenario())


def test_an_old_server_is_asked_again_when_it_was_silent_for_as_long_as_an_upgrade_takes(
    server: respx.MockRouter, clock: Clock
) -> None:
    asked = upgrade(server, "3.4.18", "3.4.25")

    async def scenario() -> None:
        connection = Connection(Settings(api_url=URL), clock=clock)
        for clock.now in (0.0, 4.0, 8.0, 12.0):
            assert await connection.dialect(TAG) is TAG_CALLS
            await connection.look_at("tag:database")  # it is heard of all the time
        assert asked.call_count == 1
        clock.now = 18.0
        assert await connection.dialect(TAG) is LEASES
        await connection.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param([httpx.ConnectError("refused")], id="refused"),
        pytest.param([httpx.ReadError("reset")], id="cut"),
        pytest.param([httpx.Response(503)] * 2, id="gateway"),
    ],
)
def test_after_an_outage_the_server_is_asked_again_before_anything_else(
    server: respx.MockRouter, clock: Clock, trouble: list[httpx.Response | Exception]
) -> None:
    upgrade(server, "3.4.18", "3.4.25")
    server.get("/health").mock(side_effect=[*trouble, httpx.Response(200)])

    async def scenario() -> None:
        connection = Connection(Settings(api_url=URL), clock=clock)
        assert await connection.dialect(TAG) is TAG_CALLS
        for _ in trouble:
            with contextlib.suppress(ServerUnreachableError):
                await connection.send(Request("GET", "/health"))
            clock.now += 4.0
            connection._heard_at = clock.now  # the silence alone would do, too
        await connection.send(Request("GET", "/health"))
        assert await connection.dialect(TAG) is LEASES
        await connection.close()

    asyncio.run(scenario())


def test_a_server_that_is_away_is_asked_by_one_for_all(
    server: respx.MockRouter, clock: Clock
) -> None:
    async def no_reply(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.01)
        raise httpx.ReadTimeout("no reply")

    asked = server.get("/admin/version").mock(side_effect=no_reply)

    async def scenario() -> None:
        connection = Connection(Settings(api_url=URL), clock=clock)
        answers = await asyncio.gather(
            *(connection.dialect(TAG) for _ in range(20)), return_exceptions=True
        )
        assert {type(one) for one in answers} == {ServerUnreachableError}
        await connection.close()

    asyncio.run(scenario())
    assert asked.call_count == 1


def test_a_task_with_two_tags_outlasts_a_conversion_that_is_half_way_through(
    server: respx.MockRouter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leasehold.concurrency.connection._PAUSE_SECONDS", 0.01)
    upgrade(server, "3.4.18")
    looks = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal looks
        looks += (unconverted := request.url.path.endswith("v2/concurrency_limits/tag:disk"))
        return httpx.Response(404 if unconverted and looks < 3 else 200)

    server["limits"].mock(side_effect=answer)

    async def scenario() -> None:
        connection = Connection(Settings(api_url=URL), clock=clock)
        assert await connection.dialect(SlotRequest(("tag:database", "tag:disk"))) is LEASES
        await connection.close()

    asyncio.run(scenario())


def test_limits_that_stay_half_converted_are_an_error_that_says_what_to_do(
    server: respx.MockRouter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leasehold.concurrency.connection._PAUSE_SECONDS", 0.01)
    upgrade(server, "3.4.18")
    existing = ("/v2/concurrency_limits/tag:database", "/concurrency_limits/tag/disk")
    server["limits"].mock(
        side_effect=lambda request: httpx.Response(
            200 if request.url.path.endswith(existing) else 404
        )
    )

    async def scenario() -> None:
        connection = Connection(Settings(api_url=URL), clock=clock)
        with pytest.raises(ServerTooOldError, match="limit convert --apply"):
            await connection.dialect(SlotRequest(("tag:database", "tag:disk")))
        await connection.close()

    asyncio.run(scenario())


def test_many_tasks_at_once_ask_what_the_server_is_once(
    server: respx.MockRouter, clock: Clock
) -> None:
    asked = upgrade(server, "3.8.8", "3.8.8")

    async def scenario() -> None:
        connection = Connection(Settings(api_url=URL), clock=clock)
        dialects = await asyncio.gather(*(connection.dialect(TAG) for _ in range(20)))
        assert dialects == [LEASES] * 20
        await connection.close()

    asyncio.run(scenario())
    assert asked.call_count == 1


def test_the_server_is_asked_again_at_once_when_an_endpoint_is_missing(
    server: respx.MockRouter, clock: Clock
) -> None:
    asked = upgrade(server, "3.8.8", "3.4.18", "3.4.18")

    async def scenario() -> None:
        connection = Connection(Settings(api_url=URL), clock=clock)
        assert await connection.dialect(TAG) is LEASES
        assert await connection.has_changed(NO_SUCH_ENDPOINT)
        assert await connection.dialect(TAG) is TAG_CALLS
        assert not await connection.has_changed(NO_SUCH_ENDPOINT)  # so it is an error after all
        await connection.close()

    asyncio.run(scenario())
    assert asked.call_count == 3


def test_a_server_that_is_busy_when_asked_again_stays_what_it_was(
    server: respx.MockRouter, clock: Clock
) -> None:
    server.get("/admin/version").mock(
        side_effect=[httpx.Response(200, json="3.8.8"), httpx.Response(503)]
    )

    async def scenario() -> None:
        connection = Connection(Settings(api_url=URL), clock=clock)
        assert await connection.dialect(TAG) is LEASES
        clock.now = 301.0
        assert await connection.dialect(TAG) is LEASES
        await connection.close()

    asyncio.run(scenario())


LINES = {
    "3.0.11": "tags by the old tag calls, other limits by bare counters, because Prefect 3.0.11",
    "3.4.18": "tags by the old tag calls, other limits by leases, because Prefect 3.4.18",
    "3.4.25": "all by leases, because Prefect 3.4.25",
    "3.8.8": "all by leases, because Prefect 3.8.8",
}


@pytest.mark.parametrize("place", EVERYWHERE)
def test_one_line_says_which_dialect_is_used_and_why(
    place: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    clock: Clock,
) -> None:
    settings = settings_of(place, request, tmp_path)
    caplog.set_level(logging.INFO, "leasehold")

    async def scenario() -> None:
        connection = Connection(settings, clock=clock)
        for clock.now in (0.0, 1.0, 1000.0):
            await connection.dialect(TAG)
        await connection.close()

    asyncio.run(scenario())
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("leaseh")]
    if settings.api_url is None:
        assert lines == []  # nobody chose: there is no server
    else:
        (line,) = lines
        assert line.startswith(f"Limits are kept at {settings.api_url}: {LINES[place]}")
