"""The flow run that is under way here, as attributes of this module.

``id``, ``name``, ``flow_name``, ``flow_version``, ``parameters``, ``tags``, ``run_count``,
``scheduled_start_time``, ``parent_flow_run_id``, ``root_flow_run_id``; and what only a deployment
has, which is empty: ``parent_deployment_id``, ``job_variables``, ``api_url``, ``ui_url``. In a
worker process ``parameters`` are empty, too: they have not travelled.
"""

from __future__ import annotations

from typing import Any, Final

from leasehold.context import FlowRunContext

_OUTSIDE: Final[dict[str, Any]] = {
    "id": None,
    "name": None,
    "flow_name": None,
    "flow_version": None,
    "parameters": {},
    "tags": [],
    "run_count": 0,
    "scheduled_start_time": None,
    "parent_flow_run_id": None,
    "root_flow_run_id": None,
    "parent_deployment_id": None,
    "job_variables": {},
    "api_url": None,
    "ui_url": None,
}

__all__ = list(_OUTSIDE)


def __getattr__(name: str) -> Any:
    if name not in _OUTSIDE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    run = FlowRunContext.get()
    if run is None:
        return _OUTSIDE[name]
    if name in {"name", "parameters", "run_count"}:
        return getattr(run, name)
    made = {"id": str(run.id), "tags": sorted(run.tags), "scheduled_start_time": run.start_time}
    if name in made:
        return made[name]
    if name.endswith("flow_run_id"):
        return _related(run, name)
    return getattr(run.flow, name.removeprefix("flow_"), None) or _OUTSIDE[name]


def _related(run: FlowRunContext, name: str) -> str | None:
    parents = []
    above = run.parent
    while above is not None:
        if isinstance(above, FlowRunContext):
            parents.append(str(above.id))
        above = above.parent
    if name == "parent_flow_run_id":
        return parents[0] if parents else None
    return parents[-1] if parents else str(run.id)
