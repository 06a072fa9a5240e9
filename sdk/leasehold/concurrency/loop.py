"""The keeper's event loop, which forks find at rest; see `forks`.

It rests while it waits for what comes next. So a fork cuts in two neither the keeper's own work nor
that of the libraries it calls: a child finds their locks open, and what they set up is whole.
"""

from __future__ import annotations

import asyncio
import selectors

from leasehold.forks import background


class KeeperLoop(asyncio.SelectorEventLoop):
    """An event loop whose work forks wait for, whatever policy the program has set for loops.

    Example:
        >>> loop = KeeperLoop()
        >>> with background.work():
        ...     loop.run_until_complete(asyncio.sleep(0))
        >>> loop.close()
    """

    def __init__(self) -> None:
        super().__init__(_RestingSelector())


class _RestingSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        with background.rest():
            return super().select(timeout)
