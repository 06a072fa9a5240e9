"""Whatever kills a process, its slot is free within two seconds, and nothing is left behind."""

from __future__ import annotations

import functools
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from crash.conftest import FREE_SECONDS, GRACE_SECONDS, has_ended, wait_for
from places import EMBEDDED, NEWEST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crash.conftest import Limit, Victim

KINDS: Final = ("sync task", "async task", "process pool task", "block")

SIGNALS: Final = ("SIGKILL", "SIGSEGV", "SIGABRT", "SIGTERM", "SIGHUP", "SIGINT")

DEATHS: Final = (
    *SIGNALS,
    "os._exit",
    "exception",
    "sys.exit in a thread",
    "MemoryError",
    "killed worker",
    "killed parent",
    "killed group",
)


QUICK: Final = ("SIGKILL", "SIGTERM", "os._exit", "killed worker", "killed parent", "killed group")


def rows() -> list[Any]:
    """List the matrix by rows; those that show the most different deaths are quick."""
    found = []
    for place in (NEWEST, EMBEDDED, "3.0.11"):
        for death in DEATHS:
            marks = [] if place == EMBEDDED else [pytest.mark.server(place)]
            marks += [] if place == NEWEST and death in QUICK else [pytest.mark.slow]
            name = f"{place}-{death}".replace(" ", "_")
            found.append(pytest.param(place, death, marks=marks, id=name))
    return found


#: A program that dies in good order may need this long for it, on a busy machine.
DEATH_SECONDS: Final = 20.0


@dataclass
class Cell:
    """One way to hold a slot, and how its holder dies."""

    kind: str
    death: str
    victim: Victim
    limit: Limit
    go: Path
    pids: dict[str, Any]

    def has_guards(self, number: int) -> bool:
        """Say whether so many guards are there."""
        return len(self.victim.look()) == number

    def die(self) -> None:
        """Have the holder die."""
        main = self.pids["main"]
        if self.death == "killed worker":
            os.kill(self.pids["holder"], signal.SIGKILL)
        elif self.death in SIGNALS:
            os.kill(main, signal.Signals[self.death])
        elif self.death == "killed parent":
            os.kill(main, signal.SIGKILL)
        elif self.death == "killed group":
            os.killpg(main, signal.SIGKILL)
        else:
            self.go.touch()

    def has_died(self) -> bool:
        """Say whether the holder is dead."""
        if self.death == "killed worker":
            return has_ended(self.pids["holder"])  # it may be somebody else's child
        return self.victim.process.poll() is not None

    def require_that_nothing_is_left(self) -> None:
        """Require the usual status, and the end of all that it had started."""
        heir = self.victim.kin.pop(self.pids["heir"], None)
        if heir is not None and self.kind != "process pool task":
            assert heir.is_running()
            heir.kill()
        code, _ = self.victim.end()
        assert code == expected_status(self.death, self.kind), self.kind
        self.victim.wait_until_nothing_is_left()


@pytest.mark.parametrize(("place", "death"), rows(), indirect=["place"])
def test_the_slot_is_free_soon_after_death_and_nothing_is_left_behind(
    place: str,
    death: str,
    start: Callable[..., Victim],
    make_limit: Callable[..., Limit],
    note_time: Callable[[str, str, str, float], None],
    tmp_path: Path,
) -> None:
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    cells = []
    for number, kind in enumerate(KINDS):
        limit, go = make_limit(is_tag=kind != "block"), tmp_path / f"go-{number}"
        victim = start("holder.py", kind, death, limit.name, str(go), TMPDIR=str(tmp))
        cells.append(Cell(kind, death, victim, limit, go, {}))
    for cell in cells:
        cell.pids = cell.victim.hear()
        assert cell.limit.used() == 1
        wait_for(functools.partial(cell.has_guards, int(place != EMBEDDED)))
    for cell in cells:  # all at the same time, because most of the time is spent waiting
        cell.die()
    times = times_until_free(cells)
    for kind in KINDS:
        note_time(place, death, kind, times[kind])
    for cell in cells:
        cell.require_that_nothing_is_left()
    assert list(tmp.iterdir()) == []


def times_until_free(cells: list[Cell]) -> dict[str, float]:
    """Measure how long after the death of each its slot is free."""
    ends_at = time.monotonic() + DEATH_SECONDS
    died_at: dict[str, float] = {}
    times: dict[str, float] = {}
    waiting = list(cells)
    while waiting:
        for cell in tuple(waiting):
            for each in waiting:  # before every question, so that no death is noted late
                if each.kind not in died_at and each.has_died():
                    died_at[each.kind] = time.monotonic()
            if cell.kind in died_at and not cell.limit.used():
                waiting.remove(cell)
                times[cell.kind] = time.monotonic() - died_at[cell.kind]
            now = time.monotonic()
            for each in waiting:
                assert now < died_at.get(each.kind, now) + FREE_SECONDS + GRACE_SECONDS, each.kind
        assert time.monotonic() < ends_at, [cell.kind for cell in waiting]
        time.sleep(0.01)
    return times


def expected_status(death: str, kind: str) -> int:
    """Say with which status the process ends: as it would without any of this."""
    if death in {"killed parent", "killed group"}:
        return -signal.SIGKILL
    if death in SIGNALS:
        return -signal.Signals[death]
    if death == "os._exit" and kind != "process pool task":
        return 7
    return 3 if death == "sys.exit in a thread" else 1
