"""Names that a shell may complete: those of the limits there are.

A shell waits for the answer at each press of a key, so a server that is slow or away completes
nothing.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from leasehold.exceptions import LeaseholdError

_PATIENCE_SECONDS = 1.0


def tags(incomplete: str) -> list[str]:
    """Complete a tag that has a limit."""
    return [tag for tag in _names(tags=True) if tag.startswith(incomplete)]


def names(incomplete: str) -> list[str]:
    """Complete the name of a global limit."""
    return [name for name in _names(tags=False) if name.startswith(incomplete)]


def _names(*, tags: bool) -> list[str]:
    from leasehold.client.clients import get_client
    from leasehold.settings import load

    logging.getLogger("leasehold").setLevel(logging.CRITICAL)  # a shell shows what is printed
    try:
        settings = replace(load(), unreachable_seconds=_PATIENCE_SECONDS)
        with get_client(sync_client=True, settings=settings) as client:
            if tags:
                return [one.tag for one in client.read_concurrency_limits(None, 0)]
            return [one.name for one in client.read_global_concurrency_limits(None)]
    except LeaseholdError:
        return []
