"""The administration of limits, under the names that Prefect has for it."""

from __future__ import annotations

from leasehold.client.clients import AsyncClient as PrefectClient
from leasehold.client.clients import SyncClient as SyncPrefectClient
from leasehold.client.clients import get_client

__all__ = ["PrefectClient", "SyncPrefectClient", "get_client"]
