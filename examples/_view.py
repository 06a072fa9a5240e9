"""A view of tagged tasks while they run: how many wait, and how the tag's slots are used.

On a terminal it is a picture that is redrawn, with the log above it; elsewhere a line each second.
"""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from _scaffold import slots_in_use
from leasehold import wait
from leasehold.client import get_client
from leasehold.exceptions import LeaseholdError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from leasehold.client import SyncClient
    from leasehold.futures import PrefectFuture

#: How often the picture is redrawn.
FRAME_SECONDS: Final = 0.2

#: How often a line is printed where there is no terminal.
LINE_SECONDS: Final = 1.0

#: A longer bar of slots would not fit into a line.
_WIDEST_BAR: Final = 20

#: More running tasks than this are counted, not named.
_MOST_NAMED: Final = 4


@dataclass(frozen=True)
class Moment:
    """What is seen at one moment.

    Attributes:
        seconds: since the tasks were submitted.
        running: names of the tasks whose bodies run.
        waiting: how many tasks wait.
        done: how many have ended.
        used: slots of the tag in use, by whatever process; None: the server did not say.
        size: the tag's limit.
    """

    seconds: float
    running: Sequence[str]
    waiting: int
    done: int
    used: int | None
    size: int


def watch(futures: Sequence[PrefectFuture[Any]], *, tag: str, size: int) -> None:
    """Wait until all tasks have ended, and show how they get on.

    Args:
        futures: of the tasks.
        tag: whose slots they take.
        size: the tag's limit.
    """
    console = Console()
    began = time.monotonic()
    on_terminal = sys.stdout.isatty() and not console.is_dumb_terminal
    with get_client(sync_client=True) as client, _display(console, on_terminal) as live:
        while True:
            # Slots first: a task that ends in between makes the picture old, not wrong.
            used = _slots_in_use(client, tag)
            moment = _look(futures, used, size, time.monotonic() - began)
            if moment.done == len(futures):
                moment = replace(moment, used=slots_in_use(client, f"tag:{tag}"))
            if live:
                live.update(_picture(moment, tag), refresh=True)
            else:
                print(_line(moment, tag), flush=True)
            if moment.done == len(futures):
                return
            wait(futures, timeout=FRAME_SECONDS if live else LINE_SECONDS)


def _display(
    console: Console,
    on_terminal: bool,  # noqa: FBT001 - a private helper with one caller
) -> AbstractContextManager[Live | None]:
    if not on_terminal:
        return nullcontext()
    # Log lines go to stderr: on the same terminal they belong above the picture, not into it.
    return Live(console=console, auto_refresh=False, redirect_stderr=sys.stderr.isatty())


def _slots_in_use(client: SyncClient, tag: str) -> int | None:
    try:
        return client.read_global_concurrency_limit_by_name(f"tag:{tag}").active_slots
    except LeaseholdError:
        return None


def _look(
    futures: Sequence[PrefectFuture[Any]], used: int | None, size: int, seconds: float
) -> Moment:
    states = [(future.name, future.state) for future in futures]
    running = [name for name, state in states if state.is_running()]
    done = sum(state.is_final() for _, state in states)
    return Moment(seconds, running, len(states) - len(running) - done, done, used, size)


def _picture(moment: Moment, tag: str) -> RenderableType:
    total = len(moment.running) + moment.waiting + moment.done
    table = Table.grid(padding=(0, 2))
    table.add_row(
        f"slots of tag {tag!r}",
        _bar(moment.used or 0, moment.size, "cyan"),
        f"{_shown(moment.used)} of {moment.size} in use",
    )
    table.add_row(
        "tasks done",
        _bar(moment.done, total, "green"),
        f"{moment.done} of {total} after {moment.seconds:.1f} s",
    )
    rest = f"{moment.waiting} wait, {len(moment.running)} run{_named(moment.running)}"
    return Padding(Group(table, Text(rest)), (1, 0, 0, 2))


def _bar(part: int, whole: int, colour: str) -> ProgressBar:
    return ProgressBar(
        total=whole, completed=part, width=30, complete_style=colour, finished_style=colour
    )


def _line(moment: Moment, tag: str) -> str:
    bar = ""
    if moment.used is not None and moment.size <= _WIDEST_BAR:
        bar = f"[{'#' * moment.used:.<{moment.size}}] "
    return (
        f"{moment.seconds:5.1f} s  {tag} {bar}{_shown(moment.used)} of {moment.size} slots in use  "
        f"{len(moment.running)} running, {moment.waiting} waiting, {moment.done} done"
    )


def _shown(used: int | None) -> str:
    return "?" if used is None else str(used)


def _named(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > _MOST_NAMED else ""
    return f": {', '.join(names[:_MOST_NAMED])}{more}"
