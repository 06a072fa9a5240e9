"""Lines before the turnstile: who will ask for slots when others have theirs, and is to be counted.

A task runner lets only so many of its tasks ask at once; to a user all of them wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from leasehold.client.wire import SlotRequest

#: Each says how many stand in its line for the same slots.
lengths: list[Callable[[SlotRequest], int]] = []


def length(request: SlotRequest) -> int:
    """Say how many stand in all the lines for the same slots."""
    return sum(line(request) for line in tuple(lengths))
