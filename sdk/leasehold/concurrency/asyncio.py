"""``leasehold.concurrency.asyncio``: the import path that flow authors know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leasehold.concurrency.hold import check_missing, concurrency, rate_limit_hold
from leasehold.exceptions import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "AcquireConcurrencySlotTimeoutError",
    "ConcurrencySlotAcquisitionError",
    "concurrency",
    "rate_limit",
]


async def rate_limit(
    names: str | Iterable[str],
    occupy: int = 1,
    timeout_seconds: float | None = None,
    strict: bool = False,  # noqa: FBT001, FBT002 - Prefect's signature
) -> None:
    """Wait until the rate of limits with slot decay allows `occupy` more.

    The coroutine of `leasehold.concurrency.sync.rate_limit`, which says the rest.

    Example:
        >>> async def fetch_all(urls):
        ...     for url in urls:
        ...         await rate_limit("api")
        ...         await fetch(url)
    """
    hold = rate_limit_hold(names, occupy, timeout_seconds)
    if hold is not None:
        async with hold as grant:
            check_missing(grant.request.names, grant.limits, strict=strict)
