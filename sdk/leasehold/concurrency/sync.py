"""``leasehold.concurrency.sync``: the import path that flow authors know."""

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


def rate_limit(
    names: str | Iterable[str],
    occupy: int = 1,
    timeout_seconds: float | None = None,
    strict: bool = False,  # noqa: FBT001, FBT002 - Prefect's signature
) -> None:
    """Wait until the rate of limits with slot decay allows `occupy` more.

    Example:
        >>> for url in urls:                            # doctest: +SKIP
        ...     rate_limit("api")
        ...     fetch(url)

    Args:
        names: the limits, one or several, all with slot decay.
        occupy: slots to use up on each.
        timeout_seconds: the most to wait, in seconds; None: no end.
        strict: raise when a limit does not exist, instead of a warning.

    Raises:
        AcquireConcurrencySlotTimeoutError: not within `timeout_seconds`.
        NotARateLimitError: a limit without slot decay.
        ConcurrencySlotAcquisitionError: a limit that does not exist and `strict`, or that is
            smaller than `occupy`.
    """
    hold = rate_limit_hold(names, occupy, timeout_seconds)
    if hold is not None:
        with hold as grant:
            check_missing(grant.request.names, grant.limits, strict=strict)
