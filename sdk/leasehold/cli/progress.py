"""A line per tag, on a terminal: how many tasks run, wait and are done, and the slots."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Final

from leasehold import runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.text import Text

    from leasehold.runs import TaskRun

_FRAMES_PER_SECOND: Final = 5


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Show progress for the time of the block; nothing where there is no terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.live import Live

    progress = Progress()
    runs.observers.append(progress.note)
    try:
        with Live(
            get_renderable=progress.text,
            console=Console(stderr=True),
            refresh_per_second=_FRAMES_PER_SECOND,
        ):
            yield
    finally:
        runs.observers.remove(progress.note)


class Progress:
    """Counts task runs by tag."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: dict[TaskRun, str] = {}
        self._done: Counter[str] = Counter()

    def note(self, run: TaskRun) -> None:
        """Take in that a run was submitted, or entered a state."""
        if not run.context.tags:
            return
        with self._lock:
            if run.ended:
                self._stages.pop(run, None)
                self._done.update(run.context.tags)
            else:
                self._stages[run] = "running" if run.state.is_running() else "waiting"

    def lines(self) -> list[str]:
        """Say how it stands: one line for each tag."""
        with self._lock:
            counts = Counter(
                (tag, stage) for run, stage in self._stages.items() for tag in run.context.tags
            )
            done = Counter(self._done)
        slots = _slots()
        tags = sorted({tag for tag, _ in counts} | done.keys())
        return [
            f"{tag}: {slots.get(tag, '')}{counts[tag, 'running']} running, "
            f"{counts[tag, 'waiting']} waiting, {done[tag]} done"
            for tag in tags
        ]

    def text(self) -> Text:
        """Give the lines to rich."""
        from rich.text import Text

        return Text("\n".join(self.lines()))


def _slots() -> dict[str, str]:
    """Say how many slots this process holds of each tag, and how many there are."""
    if "leasehold.concurrency.process" not in sys.modules:  # no task has needed a slot yet
        return {}
    from leasehold.concurrency.process import leases  # waits where another thread imports it

    held: Counter[str] = Counter()
    sizes: dict[str, int] = {}
    for lease in leases():
        for name, size in lease.limits.items():
            held[name] += lease.request.slots
            sizes[name] = size
    return {
        name.removeprefix("tag:"): f"{held[name]} of {size} slots, " for name, size in sizes.items()
    }
