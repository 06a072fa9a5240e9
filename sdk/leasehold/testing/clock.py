"""A clock that stands still until somebody moves it."""

from __future__ import annotations

import time


class ManualClock:
    """Gives the time in seconds, as `time.time` does.

    Example:
        >>> clock = ManualClock(start=100)
        >>> clock.advance(60)
        >>> clock()
        160.0

    Args:
        start: the first time it gives; None: now.
    """

    def __init__(self, start: float | None = None) -> None:
        self._now = float(time.time() if start is None else start)

    def __call__(self) -> float:
        """Give the time, in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move it on.

        Raises:
            ValueError: `seconds` is below 0.
        """
        if seconds < 0:
            raise ValueError(f"A clock does not go back: {seconds!r} seconds.")
        self._now += seconds
