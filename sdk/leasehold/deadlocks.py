"""Noticing that a task waits for one that can never start.

A task that holds a slot may submit others and wait for them. If these need slots of the same tag,
and all of them are held by tasks that wait like this, nobody can ever go on. It is the same with
the workers of a task runner, which bodies occupy while they wait. So a task that waits looks now
and then whether that is the case, and raises an error that says so: what it held becomes free, and
the others may go on.

Only slots of this process are looked at: if another process holds one, it may still come free.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from leasehold.concurrency.lease import holding
from leasehold.context import TaskRunContext
from leasehold.exceptions import DeadlockError
from leasehold.forks import awaited_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from leasehold.concurrency.lease import Lease
    from leasehold.futures import PrefectFuture
    from leasehold.task_runners.base import TaskRunner

    _What: TypeAlias = str | TaskRunner
    _Need: TypeAlias = tuple[_What, str]

#: How often a task that waits looks. It must see the same twice, so that the error comes within
#: a second, but not while a slot is just passing from one to the next.
LOOK_SECONDS: Final = 0.25


#: The runner whose worker runs the code here.
working_for: ContextVar[TaskRunner | None] = ContextVar("leasehold_working_for", default=None)


@dataclass(eq=False, slots=True)
class _Wait:
    """A task run that waits for others, and the slots and the worker that it keeps meanwhile."""

    run: TaskRunContext
    leases: tuple[Lease, ...]
    worker_of: TaskRunner | None
    futures: Sequence[PrefectFuture[Any]]
    one_is_enough: bool
    suspected: DeadlockError | None = None


_lock = awaited_lock()
_waits: dict[TaskRunContext, _Wait] = {}


@contextlib.contextmanager
def watched(
    futures: Sequence[PrefectFuture[Any]], *, one_is_enough: bool = False
) -> Iterator[Callable[[], None] | None]:
    """Note who waits here for the time of the block; gives a function that raises when it is stuck.

    None where no task waits, but a flow: flows hold no slots.

    Args:
        futures: what is waited for.
        one_is_enough: the wait is over when one of them has ended, so that it is stuck only when
            all of them are.
    """
    run = TaskRunContext.get()
    if run is None:
        yield None
        return
    wait = _Wait(run, holding(), working_for.get(), futures, one_is_enough)
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
    look = _Look()
    found = [look.stuck(wait.run.name, needs) for needs in _needs(wait, set())]
    if wait.one_is_enough and None in found:
        return None
    return next((error for error in found if error is not None), None)


class _Look:
    """One look at all who wait, and at what they wait for."""

    def __init__(self) -> None:
        self._needed = {
            wait: {what for what, _ in _needs_in_all(wait, set())} for wait in _waits.values()
        }
        self._kept: dict[_What, int] = {}

    def stuck(self, parent: str, needs: Iterable[_Need]) -> DeadlockError | None:
        """Say why what needs all this can never start; None when it may."""
        for what, child in needs:
            if what not in self._kept:
                self._kept[what] = self._count(what)
            if kept := self._kept[what]:
                return _error(parent, child, what, kept)
        return None

    def _count(self, what: _What) -> int:
        """Count slots or workers that are kept for nothing; 0 when these are not all there are."""
        waits = [wait for wait, needed in self._needed.items() if what in needed]
        if not isinstance(what, str):
            kept = sum(wait.worker_of is what for wait in waits)
            return kept if kept >= what.size else 0
        leases = {lease for wait in waits for lease in wait.leases if what in lease.limits}
        kept = sum(lease.request.slots for lease in leases)
        return kept if leases and kept >= max(lease.limits[what] for lease in leases) else 0


def _needs(wait: _Wait, seen: set[int]) -> list[list[_Need]]:
    """Give, for each future, what must be had before it can end, and for whom."""
    return [list(_needs_of(future, seen)) for future in wait.futures]


def _needs_in_all(wait: _Wait, seen: set[int]) -> list[_Need]:
    """Give what must be had before a wait can end, and for whom."""
    needs = _needs(wait, seen)
    if wait.one_is_enough and not all(needs):
        return []
    return [need for needs_of_one in needs for need in needs_of_one]


def _needs_of(future: PrefectFuture[Any], seen: set[int]) -> Iterator[_Need]:
    run = future.run
    if run is None or id(run) in seen:
        return
    seen.add(id(run))
    for name in run.wants:
        yield name, run.context.name
    if run.runner is not None and run.runner.is_bounded and not run.state.is_running():
        yield run.runner, run.context.name
    further = _waits.get(run.context)
    if further is not None:
        yield from _needs_in_all(further, seen)


def _error(parent: str, child: str, what: _What, kept: int) -> DeadlockError:
    if isinstance(what, str):
        tag = what.removeprefix("tag:")
        of = f"a slot of tag {tag!r}, and {_all_of(kept, 'slot')}"
        help_ = "give it another tag"
    else:
        tag = None
        of = f"a worker of the task runner, and {_all_of(kept, 'worker')}"
        help_ = "give the runner more workers (max_workers)"
    return DeadlockError(
        f"Task run {parent!r} waits for {child!r}, which can never start: it needs {of} held by "
        "task runs that wait like this one. Call the inner task directly instead of submitting it "
        f"(it then uses what the outer one has), submit it from the flow, or {help_}.",
        parent=parent,
        child=child,
        tag=tag,
    )


def _all_of(count: int, what: str) -> str:
    return f"its only {what} is" if count == 1 else f"all its {count} {what}s are"
