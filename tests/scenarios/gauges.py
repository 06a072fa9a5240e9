"""What scenarios measure: slots in use at the server, and bodies that run at once."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leasehold.client import get_client

if TYPE_CHECKING:
    from collections.abc import Callable


def slots_in_use(tag: str) -> int:
    """Ask the server how many slots of a tag are taken."""
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(f"tag:{tag}").active_slots


def wait_until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something is so, or fail."""
    ends_at = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends_at, "it did not come to pass"
        time.sleep(0.02)


@dataclass
class Gauge:
    """Counts how many bodies run at once.

    Attributes:
        peak: the most that ever did.
        runs: how many did in all.
    """

    now: int = 0
    peak: int = 0
    runs: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.runs += 1
            self.peak = max(self.peak, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1

    def work(self, seconds: float = 0.05) -> None:
        """Be counted for some time."""
        with self:
            time.sleep(seconds)
