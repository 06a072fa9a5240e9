"""The wire: what goes to a server, what comes back, and the administration of limits.

Example:
    >>> from leasehold.client import get_client
    >>> with get_client(sync_client=True) as client:
    ...     client.create_concurrency_limit("database", 3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leasehold.client.clients import AsyncClient as AsyncClient
    from leasehold.client.clients import SyncClient as SyncClient
    from leasehold.client.clients import get_client as get_client
    from leasehold.client.doctor import Finding as Finding
    from leasehold.client.doctor import Look as Look
    from leasehold.client.doctor import findings as findings
    from leasehold.client.models import ConcurrencyLimit as ConcurrencyLimit
    from leasehold.client.models import ConcurrencyLimitUse as ConcurrencyLimitUse
    from leasehold.client.models import GlobalConcurrencyLimitCreate as GlobalConcurrencyLimitCreate
    from leasehold.client.models import (
        GlobalConcurrencyLimitResponse as GlobalConcurrencyLimitResponse,
    )
    from leasehold.client.models import GlobalConcurrencyLimitUpdate as GlobalConcurrencyLimitUpdate
    from leasehold.client.models import RunHolder as RunHolder

#: Loaded when first used: a task needs the wire, but not the administration.
_EXPORTS = {
    "AsyncClient": "clients",
    "ConcurrencyLimit": "models",
    "ConcurrencyLimitUse": "models",
    "Finding": "doctor",
    "GlobalConcurrencyLimitCreate": "models",
    "GlobalConcurrencyLimitResponse": "models",
    "GlobalConcurrencyLimitUpdate": "models",
    "Look": "doctor",
    "RunHolder": "models",
    "SyncClient": "clients",
    "findings": "doctor",
    "get_client": "clients",
}

__all__ = [
    "AsyncClient",
    "ConcurrencyLimit",
    "ConcurrencyLimitUse",
    "Finding",
    "GlobalConcurrencyLimitCreate",
    "GlobalConcurrencyLimitResponse",
    "GlobalConcurrencyLimitUpdate",
    "Look",
    "RunHolder",
    "SyncClient",
    "findings",
    "get_client",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
