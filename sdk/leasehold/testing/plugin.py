"""The pytest plugin: fixtures for tests of flows. See `leasehold.testing`.

It loads with every run of pytest where this package is installed, so it imports nothing before a
fixture is used.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import respx

    from leasehold.testing import FakeServer, ManualClock


@pytest.fixture
def manual_clock() -> ManualClock:
    """The time of `leasehold_server` alone, which stands still until `advance(seconds)`."""
    from leasehold.testing import ManualClock

    return ManualClock()


@pytest.fixture
def leasehold_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manual_clock: ManualClock
) -> Iterator[FakeServer]:
    """A server in this process, to which flows, `concurrency()` and clients talk."""
    from leasehold.client import http

    with _serving(tmp_path, monkeypatch, manual_clock) as server, http.standing_in(server):
        yield server


@pytest.fixture
def leasehold_router(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manual_clock: ManualClock
) -> Iterator[respx.MockRouter]:
    """A respx router whose routes are answered by such a server, until you mock them otherwise.

    The routes have names: "version", "acquire", "renew", "release", "acquire_tags",
    "release_tags", and "other". The server itself is `leasehold_router.server`.
    """
    try:
        import respx
    except ModuleNotFoundError:
        pytest.fail(
            'leasehold_router needs respx. Install it with: pip install "leasehold[testing]"',
            pytrace=False,
        )

    from leasehold.testing.server import ADDRESS, ROUTES
    from leasehold.testing.utilities import give_back

    with (
        _serving(tmp_path, monkeypatch, manual_clock) as server,
        respx.mock(base_url=ADDRESS, assert_all_called=False) as router,
    ):
        for name, (method, path) in ROUTES.items():
            router.route(method=method, path__regex=f"^{path}$", name=name).mock(
                side_effect=server.handle_request
            )
        router.route(name="other").mock(side_effect=server.handle_request)
        router.server = server  # type: ignore[attr-defined] # so that one fixture is enough
        yield router
        give_back()


@contextmanager
def _serving(
    folder: Path, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> Iterator[FakeServer]:
    from leasehold.testing.server import ADDRESS, FakeServer
    from leasehold.testing.utilities import give_back

    give_back()  # what earlier tests hold is elsewhere
    for name in list(os.environ):
        if name.startswith(("PREFECT_", "LEASEHOLD_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_API_URL", ADDRESS)
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(folder / "no-profiles.toml"))
    monkeypatch.setenv("LEASEHOLD_GUARD", "0")  # another process could not reach this server
    server = FakeServer(folder / "leasehold-server.db", clock)
    try:
        yield server
        give_back()
    finally:
        server.shut_down()
