"""Noticing that a task waits for one that can never start.

A task that holds a slot may submit others and wait for them. If these need slots of the same tag,
and all of them are held by tasks that wait like this, nobody can ever go on. So a task that waits
looks now and then whether that is the case, and raises an error that says so: its slot becomes
free, and the others may go on.

Only slots of this process are looked at: if another process holds one, it may still come free.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from leasehold.concurrency.lease import held
from leasehold.context import TaskRunContext
from leasehold.exceptions import DeadlockError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from leasehold.concurrency.lease import Lease
    from leasehold.futures import PrefectFuture

#: How often a task that waits looks. It must see the same twice, so that the error comes within
#: a second, but not while a slot is just passing from one to the next.
LOOK_SECONDS: Final = 0.25


@dataclass(eq=False, slots=True)
class _Wait:
    """A task run that waits for others, and the slots that it keeps meanwhile."""

    run: TaskRunContext
    leases: tuple[Lease, ...]
    futures: Sequence[PrefectFuture[Any]]
    suspected: DeadlockError | None = None


_lock = threading.Lock()
_waits: dict[TaskRunContext, _Wait] = {}


@contextlib.contextmanager
def watched(futures: Sequence[PrefectFuture[Any]]) -> Iterator[Callable[[], None] | None]:
    """Note who waits here for the time of the block; gives a function that raises when it is stuck.

    None where no task waits, but a flow: flows hold no slots.
    """
    run = TaskRunContext.get()
    if run is None:
        yield None
        return
    wait = _Wait(run, held.get(), futures)
    with _lock:
        _waits[run] = wait
    try:
        yield lambda: _look(wait)
    finally:
        with _lock:
            _waits.pop(run, None)


def _look(wait: _Wait) -> None:
    with _lock:
        found = _find(wait)
    if found is not None and wait.suspected is not None:
        raise found
    wait.suspected = found


def _find(wait: _Wait) -> DeadlockError | None:
    for name, child in _needed(wait.futures, set()):
        stuck = {
            lease
            for other in _waits.values()
            if any(name == needed for needed, _ in _needed(other.futures, set()))
            for lease in other.leases
            if name in lease.limits
        }
        used = sum(lease.request.slots for lease in stuck)
        if stuck and used >= max(lease.limits[name] for lease in stuck):
            return _error(wait.run.name, child, name.removeprefix("tag:"), used)
    return None


def _needed(futures: Iterable[PrefectFuture[Any]], seen: set[int]) -> Iterator[tuple[str, str]]:
    """Give the limits whose slots must be had before `futures` can end, and for whom."""
    for future in futures:
        run = future.run
        if run is None or id(run) in seen:
            continue
        seen.add(id(run))
        for name in run.wants:
            yield name, run.context.name
        further = _waits.get(run.context)
        if further is not None:
            yield from _needed(further.futures, seen)


def _error(parent: str, child: str, tag: str, slots: int) -> DeadlockError:
    held_by = "its only slot is" if slots == 1 else f"all its {slots} slots are"
    return DeadlockError(
        f"Task run {parent!r} waits for {child!r}, which can never start: it needs a slot of tag "
        f"{tag!r}, and {held_by} held by task runs that wait like this one. Call the inner task "
        "directly instead of submitting it (it then uses the slot of the outer one), submit it "
        "from the flow, or give it another tag.",
        parent=parent,
        child=child,
        tag=tag,
    )
