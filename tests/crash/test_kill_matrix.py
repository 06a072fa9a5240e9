"""Whatever kills a process, its slot is free within two seconds, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any, Final

import psutil
import pytest

from crash.conftest import wait_for
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


QUICK: Final = ("SIGTERM", "os._exit", "killed worker", "killed parent", "killed group")


def cases() -> list[Any]:
    """List the matrix; a part that shows each kind, and the most different deaths, is quick."""
    found = []
    for place in (NEWEST, EMBEDDED, "3.0.11"):
        for death in DEATHS:
            for kind in KINDS:
                quick = place == NEWEST and (
                    death == "SIGKILL" or (kind == "sync task" and death in QUICK)
                )
                marks = [] if place == EMBEDDED else [pytest.mark.server(place)]
                marks += [] if quick else [pytest.mark.slow]
                name = f"{place}-{death}-{kind}".replace(" ", "_")
                found.append(pytest.param(place, death, kind, marks=marks, id=name))
    return found


@pytest.mark.parametrize(("place", "death", "kind"), cases(), indirect=["place"])
def test_the_slot_is_free_soon_after_death_and_nothing_is_left_behind(
    place: str,
    death: str,
    kind: str,
    start: Callable[..., Victim],
    make_limit: Callable[..., Limit],
    note_time: Callable[[str, str, str, float], None],
    tmp_path: Path,
) -> None:
    limit, go, tmp = make_limit(is_tag=kind != "block"), tmp_path / "go", tmp_path / "tmp"
    tmp.mkdir()
    victim = start("holder.py", kind, death, limit.name, str(go), TMPDIR=str(tmp))
    pids = victim.hear()
    assert limit.used() == 1
    wait_for(lambda: len(victim.look()) == (place != EMBEDDED))

    if death == "killed worker":
        os.kill(pids["holder"], signal.SIGKILL)
        wait_for_the_end_of(pids["holder"])
    else:
        if death in SIGNALS:
            os.kill(pids["main"], signal.Signals[death])
        elif death == "killed parent":
            os.kill(pids["main"], signal.SIGKILL)
        elif death == "killed group":
            os.killpg(pids["main"], signal.SIGKILL)
        else:
            go.touch()
        victim.process.wait(20)
    note_time(place, death, kind, limit.wait_until_free())

    heir = victim.kin.pop(pids["heir"], None)
    if heir is not None and kind != "process pool task":
        assert heir.is_running()
        heir.kill()
    code, _ = victim.end()
    assert code == expected_status(death, kind)
    victim.wait_until_nothing_is_left()
    assert list(tmp.iterdir()) == []


def wait_for_the_end_of(pid: int) -> None:
    """Wait for the death of a process that may be somebody else's child."""
    ends_at = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < ends_at
        time.sleep(0.005)


def expected_status(death: str, kind: str) -> int:
    """Say with which status the process ends: as it would without any of this."""
    if death in {"killed parent", "killed group"}:
        return -signal.SIGKILL
    if death in SIGNALS:
        return -signal.Signals[death]
    if death == "os._exit" and kind != "process pool task":
        return 7
    return 3 if death == "sys.exit in a thread" else 1
