"""What `concurrency()` and `rate_limit()` refuse at once, and how they say so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from leasehold import concurrency
from leasehold.concurrency import asyncio as for_loops
from leasehold.concurrency import sync
from leasehold.concurrency.lease import Term
from leasehold.exceptions import (
    ConcurrencySlotAcquisitionError,
    InvalidTagError,
    NotARateLimitError,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lease_duration": 59.9}, "60 to 86400.*59.9"),
        ({"lease_duration": 86_401}, "60 to 86400.*86401"),
        ({"timeout_seconds": -0.1}, "timeout_seconds must be 0 or more.*-0.1"),
        ({"max_retries": -1}, "max_retries must be 0 or more.*-1"),
        ({"occupy": 0}, "occupy must be a whole number above 0.*0"),
        ({"occupy": 1.5}, "occupy must be a whole number above 0.*1.5"),
        ({"holder": {"type": "cat", "id": "1"}}, "holder must have a type"),
    ],
)
def test_a_value_out_of_its_bounds_is_refused_at_construction(
    arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        concurrency("api", **arguments)


@pytest.mark.parametrize("name", [7, "", "a/b", "tag:a%b", b"api"])
def test_a_name_that_no_server_accepts_is_refused_at_construction(name: Any) -> None:
    with pytest.raises(InvalidTagError):
        concurrency([name])


def test_a_renewal_ratio_with_fewer_than_three_attempts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at most 0\.3167.*0\.4"):
        Term(60, 0, renew_ratio=0.4)


def test_a_negative_time_out_of_a_rate_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout_seconds"):
        sync.rate_limit("mail", timeout_seconds=-1)
    with pytest.raises(ValueError, match="timeout_seconds"):
        anyio.run(lambda: for_loops.rate_limit("mail", timeout_seconds=-1))


def test_a_limit_that_does_not_exist_is_a_warning_or_an_error(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"no-such-limit-{backend}"
    with concurrency(name) as lease:
        assert not lease.limits
    assert f"{name!r}] do not exist" in caplog.text
    with pytest.raises(ConcurrencySlotAcquisitionError, match=name), concurrency(name, strict=True):
        pass
    with pytest.raises(ConcurrencySlotAcquisitionError, match=name):
        sync.rate_limit(name, strict=True)


def test_a_limit_without_decay_is_no_rate_limit(limit: Callable[[int], str]) -> None:
    tag = limit(1)
    with pytest.raises(NotARateLimitError, match=tag):
        sync.rate_limit(f"tag:{tag}")


def test_the_three_import_paths_are_one_object() -> None:
    assert sync.concurrency is for_loops.concurrency
    assert isinstance(concurrency("api"), sync.concurrency)
