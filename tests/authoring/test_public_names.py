"""What `leasehold` exports, and that importing it loads next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import leasehold


def test_the_exported_names_are_these() -> None:
    assert leasehold.__all__ == [
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
    assert all(hasattr(leasehold, name) for name in leasehold.__all__)


def test_importing_the_package_and_its_decorators_loads_no_heavy_library() -> None:
    code = (
        "import sys, leasehold; from leasehold import flow, task; "
        "flow(task(lambda: 1).fn)(); "
        "heavy = {'httpx', 'pydantic', 'anyio', 'tenacity', 'typer', 'rich', 'asyncio'}; "
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout.strip() == "[]"


def test_a_slot_on_a_server_loads_no_library_that_it_does_not_need(prefect_server_url: str) -> None:
    code = (
        "import sys; from leasehold import flow, task; "
        "assert flow(lambda: task(lambda: 1, tags=['unlimited']).submit().result())() == 1; "
        "heavy = {'pydantic', 'tenacity', 'typer', 'rich'}; "
        "print('httpx' in sys.modules, sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
        env={**os.environ, "PREFECT_API_URL": prefect_server_url},
    )
    assert done.stdout.strip() == "True []"
