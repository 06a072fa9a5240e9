"""What is wanted of global limits."""

from __future__ import annotations

from leasehold.client.models import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate

__all__ = ["GlobalConcurrencyLimitCreate", "GlobalConcurrencyLimitUpdate"]
