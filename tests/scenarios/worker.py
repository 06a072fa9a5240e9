"""One process of several that share a limit: logs when each body begins and ends.

Run as ``python worker.py TAG TASKS LOG``. Lines are appended in one write each, so that processes
do not mix them up.
"""

from __future__ import annotations

import os
import sys
import time

from leasehold import flow, task
from leasehold.task_runners import ThreadPoolTaskRunner


def note(log: int, sign: str) -> None:
    """Append one line: the time, and whether a body begins or ends."""
    os.write(log, f"{time.time()} {sign}\n".encode())


def main(tag: str, tasks: int, path: str) -> None:
    """Run `tasks` bodies of 50 ms under the tag's limit."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @task(tags=[tag])
    def body(_: int) -> None:
        note(log, "+1")
        time.sleep(0.05)
        note(log, "-1")

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
    def share() -> None:
        body.map(range(tasks)).result()

    share()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
