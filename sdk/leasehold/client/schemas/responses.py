"""What is known of global limits."""

from __future__ import annotations

from leasehold.client.models import GlobalConcurrencyLimitResponse

__all__ = ["GlobalConcurrencyLimitResponse"]
