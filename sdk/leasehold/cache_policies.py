"""Whether results are kept for the next run. They never are: `NO_CACHE` alone is offered."""

from __future__ import annotations

from typing import Final


class CachePolicy:
    """What decides whether a task runs again for the same inputs."""

    def __repr__(self) -> str:
        return "NO_CACHE"


#: Run every time: what happens here anyway.
NO_CACHE: Final = CachePolicy()

#: The same.
NONE: Final = NO_CACHE
