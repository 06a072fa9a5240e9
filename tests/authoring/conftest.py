"""Time limits of direct calls wait on a thread that ends by itself: let it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from leasehold import timers

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _timers_rest() -> Iterator[None]:
    yield
    timers.rest()
