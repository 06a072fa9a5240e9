"""A signal handler may raise at any line: where a block is entered or left, too.

In an event loop it may not: what it raises there breaks the loop itself.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import leasehold
from leasehold import concurrency
from leasehold.client import get_client
from leasehold.concurrency import current_lease, leases
from scenarios.gauges import slots_in_use, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

OURS = str(Path(leasehold.__file__).parent)


class Interrupted(BaseException):
    """What the handler of a signal raises."""


class Interruption:
    """Raises at the n-th line or call of ours in this thread."""

    def __init__(self, number: int) -> None:
        self.happened = False
        self._left = number

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        """Do so, as a function for `sys.settrace`."""
        # What is raised where an object is collected, Python itself keeps from everybody.
        if not frame.f_code.co_filename.startswith(OURS) or "__del__" in _names(frame):
            return None
        if event in {"call", "line"}:
            self._left -= 1
            if not self._left:
                self.happened = True
                sys.settrace(None)
                raise Interrupted
        return self.trace


def _names(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        yield frame.f_code.co_name
        frame = frame.f_back


@contextlib.contextmanager
def interrupted_at(number: int) -> Iterator[Interruption]:
    interruption, before = Interruption(number), sys.gettrace()
    try:
        sys.settrace(interruption.trace)
        yield interruption
    except Interrupted:
        pass
    finally:
        sys.settrace(before)


def in_a_block() -> None:
    with concurrency("tag:wide"):
        pass


decorated = concurrency("tag:wide")(lambda: None)


@pytest.mark.parametrize("work", [in_a_block, decorated], ids=["with", "decorated"])
def test_interrupted_at_any_line_a_block_leaves_no_slot_behind(work: Callable[[], object]) -> None:
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("wide", 1_000_000)
    work()
    for number in itertools.count(1):
        with interrupted_at(number) as interruption:
            work()
        if current_lease() is not None:  # what raised may wait for the collector, as on Python 3.12
            gc.collect()
        assert current_lease() is None
        if not interruption.happened:
            break
    assert number > 50
    wait_until(lambda: not leases())
    wait_until(lambda: not slots_in_use("wide"))
