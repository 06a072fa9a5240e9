"""What hooks get, for annotations; and the limits of tags."""

from __future__ import annotations

from leasehold.client.models import ConcurrencyLimit
from leasehold.context import FlowRunContext as FlowRun
from leasehold.context import TaskRunContext as TaskRun
from leasehold.states import State, StateType

__all__ = ["ConcurrencyLimit", "FlowRun", "State", "StateType", "TaskRun"]
