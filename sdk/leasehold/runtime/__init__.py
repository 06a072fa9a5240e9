"""What is running here, as attributes: `flow_run.name`, `task_run.parameters`, and so on.

Outside of runs they are None, or empty.

Example:
    >>> from leasehold.runtime import flow_run
    >>> flow_run.name is None
    True
"""

from __future__ import annotations

from leasehold.runtime import deployment, flow_run, task_run

__all__ = ["deployment", "flow_run", "task_run"]
