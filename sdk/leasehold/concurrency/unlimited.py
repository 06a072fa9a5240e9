"""Which limits are known not to exist: a task whose tags have none costs a look into a dictionary.

Light, since every tagged task looks here before it imports anything that can wait for slots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leasehold.client.changes import on_change
from leasehold.concurrency.lease import read_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: With so many entries, those that are not believed any more are dropped.
_MANY: Final = 1024


class Unlimited:
    """Remembers, for a while each, that none of some limits exists.

    Args:
        clock: see `lease.read_clock`.
    """

    def __init__(self, clock: Callable[[], float] = read_clock) -> None:
        self._clock = clock
        self._until: dict[tuple[str, ...], float] = {}

    def note(self, names: tuple[str, ...], seconds: float) -> None:
        """Take in that the server knows none of these limits; believed for so long."""
        now = self._clock()
        if len(self._until) >= _MANY:  # as where each run has a tag of its own
            for known in [one for one, until in list(self._until.items()) if until <= now]:
                self._until.pop(known, None)
        self._until[names] = now + seconds

    def knows(self, names: tuple[str, ...]) -> bool:
        """Whether the server said a moment ago that none of these limits exists."""
        until = self._until.get(names)
        return until is not None and until > self._clock()

    def forget(self, names: Sequence[str] = ()) -> None:
        """Drop what is believed of these limits; of all without names."""
        for known in list(self._until):
            if not names or not set(names).isdisjoint(known):
                self._until.pop(known, None)


#: What this process knows.
known: Final = Unlimited()

# Somebody in this process may have made a limit of that name.
on_change(known.forget)
