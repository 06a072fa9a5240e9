"""How many changes may be under way at one server at a time.

SQLite servers answer 503 when two changes overlap (PROTOCOL.md: 32 of 132), PostgreSQL servers do
not. So changes start one at a time; a long run without a 503 allows one more, a 503 halves them
and makes the next run longer. Releases go before acquires: they free what others wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FIRST_RUN: Final = 32
LONGEST_RUN: Final = 4096
WIDEST: Final = 8

RELEASE, ACQUIRE = 0, 1


class Lane:
    """Lets changes through; for one event loop.

    Example:
        >>> async def give_back(lane, send):
        ...     async with lane.turn(RELEASE):
        ...         reply = await send()
        ...     lane.answered(busy=reply.status == 503)
    """

    def __init__(self) -> None:
        self.width = 1
        self._under_way = 0
        self._good = 0
        self._run = FIRST_RUN
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._serial = itertools.count()

    @contextlib.asynccontextmanager
    async def turn(self, priority: int) -> AsyncIterator[None]:
        """Wait for a turn, and keep it for the time of the block."""
        if self._under_way >= self.width or self._waiting:
            gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (priority, next(self._serial), gate))
            try:
                await gate  # whoever opens it has counted us in already
            except asyncio.CancelledError:
                if gate.done() and not gate.cancelled():
                    self._leave()
                raise
        else:
            self._under_way += 1
        try:
            yield
        finally:
            self._leave()

    def answered(self, *, busy: bool) -> None:
        """Learn from a reply."""
        if busy:
            self.width = max(1, self.width // 2)
            self._run = min(self._run * 4, LONGEST_RUN)
            self._good = 0
            return
        self._good += 1
        if self._good >= self._run and self.width < WIDEST:
            self.width += 1
            self._good = 0

    def _leave(self) -> None:
        self._under_way -= 1
        while self._waiting and self._under_way < self.width:
            gate = heapq.heappop(self._waiting)[2]
            if not gate.done():
                self._under_way += 1
                gate.set_result(None)
