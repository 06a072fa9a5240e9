"""`concurrency()` on both places where limits live."""

from __future__ import annotations

from scenarios.conftest import backend, gauge, limit

__all__ = ["backend", "gauge", "limit"]
