"""Two processes share one limit.

The script starts itself twice. Each of the two runs a flow of its own, whose task has the tag
`database`; neither knows of the other. Together they never run more than the limit allows.

    python examples/two_processes.py --tasks 12 --seconds 0.5 --limit 2
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import subprocess
import sys
import time
from typing import Final

from _scaffold import run, slots_in_use, summarize, tag_limit
from leasehold import flow, task, unmapped
from leasehold.client import get_client

NAMES: Final = ("A", "B")

#: When a body began and when it ended. The clock is the machine's: all processes read the same.
Span = tuple[float, float]


@task(tags=["database"])
def load(number: int, seconds: float) -> Span:
    """Pretend to load something; gives when this was."""
    del number
    began = time.monotonic()
    time.sleep(seconds)
    return began, time.monotonic()


@flow
def load_all(tasks: int, seconds: float) -> list[Span]:
    """Load everything, under the limit that the tag has."""
    spans: list[Span] = load.map(range(tasks), unmapped(seconds)).result()
    return spans


def work(tasks: int, seconds: float) -> int:
    """Be one of the two: tell the other end of the pipe when each task ran."""
    try:
        print(json.dumps(load_all(tasks, seconds)))
    except KeyboardInterrupt:
        return 130
    return 0


def run_both(tasks: int, seconds: float) -> list[list[Span]]:
    """Have two processes run the flow; gives what each tells of its tasks."""
    command = [sys.executable, __file__, "--work", f"--tasks={tasks}", f"--seconds={seconds}"]
    # In sessions of their own, so that Ctrl-C reaches each of them once, from us.
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)  # noqa: S603 - it runs this script
        for _ in NAMES
    ]
    try:
        told = [process.communicate()[0] for process in both]
    except BaseException:
        for process in both:
            process.send_signal(signal.SIGINT)
        for process in both:
            process.wait()
        raise
    for name, process in zip(NAMES, both, strict=True):
        if process.returncode:
            raise SystemExit(f"Process {name} failed with exit code {process.returncode}.")
    return [[(begin, end) for begin, end in json.loads(spans)] for spans in told]


def most_at_once(spans: list[Span]) -> int:
    """Compute how many spans overlap at most."""
    steps = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most


def draw(spans: list[Span], began: float, ended: float, columns: int = 60) -> str:
    """Draw how many tasks a process ran, from left to right in time."""
    width = (ended - began) / columns
    moments = [began + width * (column + 0.5) for column in range(columns)]
    counts = [sum(begin <= moment < end for begin, end in spans) for moment in moments]
    return "".join(str(count) if count else "." for count in counts)


def main() -> int:
    """Run the flow in two processes, or be one of the two."""
    parser = argparse.ArgumentParser(description="Share a tag's limit between two processes.")
    parser.add_argument("--tasks", type=int, default=12, help="of each process (default: 12)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of one task (default: 0.5)")
    parser.add_argument("--limit", type=int, default=2, help="of tag database (default: 2)")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.tasks, options.seconds)

    with tag_limit("database", options.limit) as limit:
        told = run_both(options.tasks, options.seconds)
        with get_client(sync_client=True) as client:
            left, kept_at = slots_in_use(client, "tag:database"), client.address

    every = sorted(span for spans in told for span in spans)
    began, ended = every[0][0], max(end for _, end in every)
    peak = most_at_once(every)
    ideal = math.ceil(len(every) / limit) * options.seconds
    print("\nHow many tasks each process ran, from left to right in time:")
    for name, spans in zip(NAMES, told, strict=True):
        print(f"  {name}  {draw(spans, began, ended)}")
    summarize(
        limit=f"{limit} for tag 'database'",
        peak_in_use=f"{peak}, both processes together",
        tasks_done=", ".join(
            f"{len(spans)} in process {name}" for name, spans in zip(NAMES, told, strict=True)
        ),
        time=f"{ended - began:.1f} s",
        ideal_time=f"{ideal:.1f} s",
        slots_in_use_at_the_end=left,
        limits_are_kept_at=kept_at,
    )
    return 0 if peak <= limit else 1


if __name__ == "__main__":
    run(main)
