"""What work on one machine does not load."""

from __future__ import annotations

import subprocess
import sys

from leasehold.client import get_client

PROGRAM = """
import sys
from leasehold import flow, task

@task(tags=["database"])
def load(number):
    return number

@flow
def etl():
    assert load.map(range(20)).result() == list(range(20))

etl()
print(sorted({"httpx", "httpcore", "tenacity", "typer", "rich"} & sys.modules.keys()))
"""


def test_tasks_with_limits_on_the_ledger_need_no_http() -> None:
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("database", 3)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True, timeout=50
    )
    assert done.stdout.strip() == "[]"
