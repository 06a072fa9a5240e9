"""The deployment of the flow run that is under way here. There are none: all is empty."""

from __future__ import annotations

from typing import Any

id: str | None = None  # noqa: A001 - Prefect's name
name: str | None = None
version: str | None = None
flow_run_id: str | None = None
parameters: dict[str, Any] = {}
