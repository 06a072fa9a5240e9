"""Servers that hold tags by the old calls: the old ones, and the newest, when told to."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from leasehold.client import get_client
from places import DIVIDED, NEWEST, assert_all_back, places, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_serial = itertools.count(1)


@pytest.fixture(params=places(NEWEST, *DIVIDED))
def old_path(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Have tags held by the old calls; give the server's address."""
    settings = settings_of(request.param, request, tmp_path)
    assert settings.api_url is not None
    monkeypatch.setenv("PREFECT_API_URL", settings.api_url)
    if request.param == NEWEST:
        monkeypatch.setenv("LEASEHOLD_DIALECT", "legacy")
    return settings.api_url


@pytest.fixture
def limit(old_path: str) -> Iterator[Callable[[int], str]]:
    """Make a tag with a limit; at the end of the test all slots must be back."""
    tags: list[str] = []

    def make(size: int) -> str:
        tag = f"old ü {next(_serial)}"
        with get_client(sync_client=True) as client:
            client.create_concurrency_limit(tag, size)
        tags.append(tag)
        return tag

    yield make
    for tag in tags:
        assert_all_back(tag)
