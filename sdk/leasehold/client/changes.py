"""Who has to know that limits were changed in this process. Imports next to nothing.

What remembers limits ("this tag has none") registers here, so that a program that makes a limit
and runs a task right after finds it enforced.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_observers: list[Callable[[Sequence[str]], None]] = []


def on_change(observer: Callable[[Sequence[str]], None]) -> None:
    """Have `observer` called after each change of limits in this process.

    Args:
        observer: gets the names of the global limits that changed, or may have changed; a tag's is
            `tag:<tag>`. Called in the thread that made the change; it must be quick and must not
            raise.
    """
    _observers.append(observer)


@contextlib.contextmanager
def changing(*names: str) -> Iterator[None]:
    """Tell the observers afterwards; also of a failure, which may have changed the limit too."""
    try:
        yield
    finally:
        for observer in tuple(_observers):
            observer(names)
