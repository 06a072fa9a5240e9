"""One process of an old fleet. Runs in the environment of an old Prefect, and knows nothing of us.

Run as ``python old_client.py TAG TASKS LOG``; logs when each body begins and ends, as
`scenarios/worker.py` does. The first body goes on until the other fleet has begun, too.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator"
# Prefect is not installed where types are checked, on purpose.

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner


def note(log: int, sign: str) -> None:
    """Append one line: the time, and whether a body begins or ends."""
    os.write(log, f"{time.time()} {sign} prefect\n".encode())


def wait_for_others(path: str, seconds: float = 60) -> None:
    """Wait for a line of somebody else."""
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        if any("prefect" not in line for line in Path(path).read_text().splitlines()):
            return
        time.sleep(0.05)


def main(tag: str, tasks: int, path: str) -> None:
    """Run `tasks` bodies of a second under the tag's limit."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @task(tags=[tag])
    def body(number: int) -> None:
        note(log, "+1")
        time.sleep(1)
        if number == 0:
            wait_for_others(path)
        note(log, "-1")

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def share() -> None:
        for future in body.map(range(tasks)):
            future.result()

    share()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
