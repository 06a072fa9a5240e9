"""Where tests of the administration run: the embedded ledger, and real servers of four versions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from leasehold.client import get_client
from leasehold.client.http import SyncApi
from leasehold.client.wire import Holder, SlotRequest
from leasehold.settings import Settings

if TYPE_CHECKING:
    import uuid
    from pathlib import Path

    from leasehold.client import SyncClient

EMBEDDED: Final = "embedded"
NEWEST: Final = "3.8.8"
OLD: Final = ("3.0.11", "3.4.18", "3.4.25")

#: Servers whose limits of tags are global limits, and those that keep them apart.
UNIFIED: Final = ("3.4.25", NEWEST)
DIVIDED: Final = ("3.0.11", "3.4.18")


def places(*names: str) -> list[Any]:
    """Make parameters of places; the older servers take their time, and are left to `test-all`."""
    return [
        pytest.param(
            name,
            marks=[
                *([] if name == EMBEDDED else [pytest.mark.server(name)]),
                *([pytest.mark.slow] if name in OLD else []),
            ],
        )
        for name in names
    ]


_BUSY: Final = 503

EVERYWHERE: Final = places(EMBEDDED, NEWEST, *OLD)


def settings_of(place: str, request: pytest.FixtureRequest, home: Path) -> Settings:
    """Say how to reach a place."""
    if place == EMBEDDED:
        return Settings(home=home)
    return Settings(api_url=request.getfixturevalue("server_of")(place).url, source="a test")


def occupy(client: SyncClient, limit: str, holder: uuid.UUID, slots: int = 1) -> None:
    """Take a slot as a task would: by a lease, or by the old tag calls where there are none."""
    wanted = SlotRequest((limit,), slots)
    acquire = client.read_server().dialect(wanted).acquire(wanted, Holder(holder))
    with SyncApi(client.settings) as api:
        while (reply := api.send(acquire)).status == _BUSY:
            time.sleep(0.05)
    assert reply.status == 200, reply.text


def assert_all_back(tag: str, *, but: int = 0, within_seconds: float = 10.0) -> None:
    """Require that no slot of a tag is in use. A slot is given back after its work has ended.

    Args:
        tag: whose slots.
        but: so many others are in use, and stay so.
        within_seconds: when the last one must be back.
    """
    give_up_at = time.monotonic() + within_seconds
    with get_client(sync_client=True) as client:
        while (used := client.read_concurrency_limit_use(tag).used) > but and (
            time.monotonic() < give_up_at
        ):
            time.sleep(0.05)
    assert used == but
