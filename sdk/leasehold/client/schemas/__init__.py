"""What clients and hooks get and give, where Prefect has it."""

from __future__ import annotations

from leasehold.client.schemas.objects import FlowRun, State, StateType, TaskRun

__all__ = ["FlowRun", "State", "StateType", "TaskRun"]
