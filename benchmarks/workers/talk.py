"""How a worker talks to the driver: a word on stdout, a line on stdin, a line of JSON."""

from __future__ import annotations

import json
import resource
import sys
from argparse import ArgumentParser
from pathlib import Path

READY = "ready"


def parser(sdk: str = "leasehold") -> ArgumentParser:
    """Make a parser with what the driver tells every worker."""
    made = ArgumentParser()
    made.add_argument("--sdk", default=sdk, help="leasehold or prefect")
    made.add_argument("--limit", default="", help="the limit to use; made by the driver")
    return made


def ready() -> None:
    """Say that all is prepared, and wait until the others are, too."""
    print(READY, flush=True)
    sys.stdin.readline()


def report(**figures: float) -> None:
    """Hand over what was measured."""
    print(json.dumps(figures), flush=True)


def resident_bytes() -> int:
    """Say how much memory this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def peak_bytes() -> int:
    """Say how much memory this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
