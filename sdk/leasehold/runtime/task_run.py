"""The task run that is under way here, as attributes of this module.

``id``, ``name``, ``task_name``, ``parameters``, ``tags``, ``run_count``; and what only a server's
user interface has, which is empty: ``api_url``, ``ui_url``.
"""

from __future__ import annotations

from typing import Any, Final

from leasehold.context import TaskRunContext

_OUTSIDE: Final[dict[str, Any]] = {
    "id": None,
    "name": None,
    "task_name": None,
    "parameters": {},
    "tags": [],
    "run_count": 0,
    "api_url": None,
    "ui_url": None,
}

__all__ = list(_OUTSIDE)


def __getattr__(name: str) -> Any:
    if name not in _OUTSIDE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    run = TaskRunContext.get()
    if run is None or name in {"api_url", "ui_url"}:
        return _OUTSIDE[name]
    if name == "id":
        return str(run.id)
    if name == "tags":
        return sorted(run.tags)
    return run.task.name if name == "task_name" else getattr(run, name)
