"""Detection: which server is this, and how does it hold which limits?"""

from __future__ import annotations

import json
from typing import Any

import pytest

from leasehold.client import server as servers
from leasehold.client.dialect import COUNTERS, LEASES, TAG_CALLS, Dialect
from leasehold.client.wire import Reply, SlotRequest
from leasehold.exceptions import (
    AuthenticationError,
    NotAPrefectServerError,
    ServerTooOldError,
    ServerUnreachableError,
)
from leasehold.settings import Settings

URL = "http://prefect.test/api"
TAG = SlotRequest(("tag:database",))
PLAIN = SlotRequest(("api",))
RATE = SlotRequest(("api",), mode="rate_limit")


def reply(status: int = 200, body: Any = None, **headers: str) -> Reply:
    return Reply(status, headers, json.dumps(body).encode())


def server_of(version: str) -> servers.Server:
    return servers.read(reply(body=version), URL)


@pytest.mark.parametrize(
    ("version", "tags", "plain"),
    [
        ("3.0.0", TAG_CALLS, COUNTERS),
        ("3.0.11", TAG_CALLS, COUNTERS),
        ("3.4.8", TAG_CALLS, COUNTERS),
        ("3.4.9", TAG_CALLS, LEASES),
        ("3.4.18", TAG_CALLS, LEASES),
        ("3.4.19", LEASES, LEASES),
        ("3.5.0", LEASES, LEASES),
        ("3.8.8", LEASES, LEASES),
        ("3.10.0", LEASES, LEASES),
        ("4.0.0", LEASES, LEASES),
    ],
)
def test_the_table_of_the_protocol_decides(version: str, tags: Dialect, plain: Dialect) -> None:
    server = server_of(version)
    assert server.dialect(TAG) is tags
    assert server.dialect(PLAIN) is plain
    assert server.dialect(RATE) is COUNTERS
    assert version in server.why


@pytest.mark.parametrize("version", ["3.4.9", "3.4.12", "3.4.18"])
def test_a_server_that_has_leases_but_not_for_tags_gets_the_old_tag_calls(version: str) -> None:
    assert server_of(version).dialect(TAG) is TAG_CALLS
    assert server_of(version).name == "legacy"
    assert server_of(version).may_be_converted


@pytest.mark.parametrize(
    ("version", "tags", "plain"),
    [
        ("3.4.19.dev3", TAG_CALLS, LEASES),
        ("3.4.19rc1", TAG_CALLS, LEASES),
        ("3.4.9.dev1", TAG_CALLS, COUNTERS),
        ("3.4.20.dev1", LEASES, LEASES),
        ("3.8.8+12.gabc1234", LEASES, LEASES),
        ("3.4.18+dirty", TAG_CALLS, LEASES),
        ("3.4.19.post1", LEASES, LEASES),
    ],
)
def test_a_release_that_is_not_out_yet_is_not_trusted_to_have_it_all(
    version: str, tags: Dialect, plain: Dialect
) -> None:
    assert server_of(version).dialect(TAG) is tags
    assert server_of(version).dialect(PLAIN) is plain


@pytest.mark.parametrize("version", ["2.20.4", "2.0.0", "1.4.1", "3.0.0rc1"])
def test_a_server_of_the_second_line_is_refused_with_what_to_do(version: str) -> None:
    with pytest.raises(ServerTooOldError, match=r"Upgrade the server to 3\.4\.19") as caught:
        server_of(version)
    assert (caught.value.version, caught.value.address) == (version, URL)


@pytest.mark.parametrize(
    "answer",
    [
        reply(404),
        reply(405),
        reply(200, {"version": "3.8.8"}),
        reply(200, "not a version"),
        reply(200, 3),
        Reply(200, {}, b"<html>"),
        Reply(200, {}, b"\xff"),
        Reply(200, {}, b""),
    ],
    ids=str,
)
def test_what_answers_with_no_version_is_no_prefect_server(answer: Reply) -> None:
    with pytest.raises(NotAPrefectServerError, match="Check PREFECT_API_URL"):
        servers.read(answer, URL)


def test_an_address_without_api_at_its_end_gets_a_hint() -> None:
    with pytest.raises(NotAPrefectServerError, match=r"http://prefect\.test/api\?"):
        servers.read(reply(404), "http://prefect.test")


def test_an_address_that_redirects_gets_a_hint() -> None:
    with pytest.raises(NotAPrefectServerError, match="use the address that it redirects to"):
        servers.read(reply(307, location="https://elsewhere.test"), URL)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_said(status: int) -> None:
    with pytest.raises(AuthenticationError, match="PREFECT_API_KEY"):
        servers.read(reply(status), URL)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_says_nothing_about_what_it_is(status: int) -> None:
    with pytest.raises(ServerUnreachableError):
        servers.read(reply(status), URL)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.prefect.cloud/api/accounts/a/workspaces/w",
        "https://prefect.cloud/api",
        "https://eu.api.prefect.cloud/api",
        "https://API.Prefect.Cloud/api",
    ],
)
def test_prefect_cloud_counts_as_new_and_is_not_asked(url: str) -> None:
    known = servers.known_unasked(Settings(api_url=url))
    assert known is not None
    assert known.dialect(TAG) is LEASES
    assert "Cloud" in known.why


@pytest.mark.parametrize(
    "url",
    [
        "https://prefect.cloud.example.com/api",
        "https://myprefect.cloud/api",
        "http://example.com/prefect.cloud/api",
    ],
)
def test_an_address_that_only_looks_like_prefect_cloud_is_asked(url: str) -> None:
    assert servers.known_unasked(Settings(api_url=url)) is None


def test_the_embedded_ledger_needs_no_question() -> None:
    known = servers.known_unasked(Settings())
    assert known is not None
    assert known.dialect(TAG) is LEASES
    assert known.summary == "all by leases, because the embedded ledger holds all limits by leases"


@pytest.mark.parametrize(
    ("name", "tags", "plain"), [("leases", LEASES, LEASES), ("legacy", TAG_CALLS, COUNTERS)]
)
def test_a_dialect_that_is_set_overrides_every_version(
    name: Any, tags: Dialect, plain: Dialect
) -> None:
    known = servers.known_unasked(Settings(api_url=URL, dialect=name))
    assert known is not None
    assert (known.dialect(TAG), known.dialect(PLAIN)) == (tags, plain)
    assert known.name == name
    assert f"LEASEHOLD_DIALECT={name}" in known.why


@pytest.mark.parametrize("version", ["3.0.11", "3.4.18"])
def test_what_an_old_server_cannot_give_together_is_refused_with_what_to_do(version: str) -> None:
    server = server_of(version)
    with pytest.raises(ServerTooOldError, match="two blocks"):
        server.dialect(SlotRequest(("api", "tag:database")))
    with pytest.raises(ServerTooOldError, match="Occupy one"):
        server.dialect(SlotRequest(("tag:database",), slots=2))


def test_a_new_server_gives_tags_and_other_limits_together() -> None:
    assert server_of("3.4.19").dialect(SlotRequest(("api", "tag:database"), slots=2)) is LEASES
