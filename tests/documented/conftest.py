"""Features of flows as the public documentation of Prefect shows them, used in the same way here.

One file for each subject. What tests/authoring, tests/runners and tests/scenarios show already is
named at the top of each file, and not shown again.
"""

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
