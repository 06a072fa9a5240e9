"""One suite for both places where limits live: the embedded ledger, and a real server."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from leasehold.client import get_client
from scenarios.gauges import Gauge, slots_in_use, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_serial = itertools.count(1)


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("server", marks=[pytest.mark.server("3.8.8"), pytest.mark.timeout(300)]),
    ]
)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have limits live in the embedded ledger, then on a real server."""
    if request.param == "server":
        monkeypatch.setenv("PREFECT_API_URL", request.getfixturevalue("prefect_server_url"))
    return str(request.param)


@pytest.fixture
def limit(backend: str) -> Iterator[Callable[[int], str]]:
    """Make a tag with a limit; at the end of the test all slots must be back."""
    tags: list[str] = []

    def make(size: int) -> str:
        tag = f"scenario-{next(_serial)}"
        with get_client(sync_client=True) as client:
            client.create_concurrency_limit(tag, size)
        tags.append(tag)
        return tag

    yield make
    # Releases may be under way still, and grants to those who wait no more.
    wait_until(lambda: not any(slots_in_use(tag) for tag in tags))


@pytest.fixture
def gauge() -> Gauge:
    """Count bodies."""
    return Gauge()
