"""Tag concurrency limits for Prefect-style flows, held by leases.

Example:
    >>> from leasehold import flow, task
    >>> @task(tags=["database"])
    ... def load(path):
    ...     ...
    >>> @flow
    ... def etl(paths):
    ...     load.map(paths).wait()

``leasehold limit create database 3`` makes the limit; from then on no more than three `load` run
at once, in however many processes. See the README for the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leasehold.client import get_client as get_client
    from leasehold.concurrency.hold import concurrency as concurrency
    from leasehold.concurrency.hold import current_lease as current_lease
    from leasehold.context import tags as tags
    from leasehold.flows import Flow as Flow
    from leasehold.flows import flow as flow
    from leasehold.futures import as_completed as as_completed
    from leasehold.futures import wait as wait
    from leasehold.logging import get_run_logger as get_run_logger
    from leasehold.states import State as State
    from leasehold.tasks import Task as Task
    from leasehold.tasks import exponential_backoff as exponential_backoff
    from leasehold.tasks import task as task
    from leasehold.utilities.annotations import allow_failure as allow_failure
    from leasehold.utilities.annotations import unmapped as unmapped

__version__ = "0.1.0"

#: Where each public name lives. They are loaded when they are first used, so that importing this
#: package stays cheap (DESIGN.md, "Dependencies").
_EXPORTS = {
    "Flow": "flows",
    "State": "states",
    "Task": "tasks",
    "allow_failure": "utilities.annotations",
    "as_completed": "futures",
    "concurrency": "concurrency",
    "current_lease": "concurrency",
    "exponential_backoff": "tasks",
    "flow": "flows",
    "get_client": "client",
    "get_run_logger": "logging",
    "tags": "context",
    "task": "tasks",
    "unmapped": "utilities.annotations",
    "wait": "futures",
}

__all__ = [
    "Flow",
    "State",
    "Task",
    "allow_failure",
    "as_completed",
    "concurrency",
    "current_lease",
    "exponential_backoff",
    "flow",
    "get_client",
    "get_run_logger",
    "tags",
    "task",
    "unmapped",
    "wait",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from leasehold.forks import put_off

    with put_off():
        module = import_module(f"{__name__}.{_EXPORTS[name]}")
    # The package `concurrency` is its own context manager: see there.
    value = module if name == "concurrency" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
