"""Who a process is, so that others on the machine can tell for certain when it is gone.

A process id alone is not enough: ids are used again, and mean nothing on another machine, after
a reboot, or in another container. So boot, PID namespace and start time belong to it. Where
anything is unsure, a process counts as alive, and expiry alone decides.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Final, NamedTuple

#: States of a process that has ended, and whose parent has not looked yet.
_ENDED_STATES: Final = frozenset({"Z", "X", "x"})


class Process(NamedTuple):
    """A process, told apart from every other one.

    Attributes:
        boot: this boot of this machine.
        namespace: the PID namespace; "" where the platform has none.
        pid: the process id in that namespace.
        started: when it started, in the platform's own unit.
    """

    boot: str
    namespace: str
    pid: int
    started: str


def this_process() -> Process:
    """Describe the process that calls; cheap, and right after a fork."""
    return _describe_self(os.getpid())


def is_gone(process: Process) -> bool:
    """Say whether a process has certainly ended; False when that cannot be known."""
    here = this_process()
    if (process.boot, process.namespace) != (here.boot, here.namespace):
        return False
    state = _look_at(process.pid)
    return state is None or state[1] in _ENDED_STATES or state[0] != process.started


@functools.lru_cache(maxsize=1)
def _describe_self(pid: int) -> Process:
    state = _look_at(pid)
    return Process(_boot(), _namespace(), pid, state[0] if state else "")


if sys.platform == "linux":

    def _look_at(pid: int) -> tuple[str, str] | None:
        """Read a process's start time and state; None: there is no such process."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The second field is the program's name, in brackets, and may contain anything.
        fields = stat[stat.rindex(b")") + 2 :].split()
        return fields[19].decode(), fields[0].decode()

    def _boot() -> str:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def _namespace() -> str:
        # /proc may be that of another namespace, as in some sandboxes: then ids mean nothing.
        if Path("/proc/self").resolve().name != str(os.getpid()):
            return f"unknown to {os.getpid()}"
        return str(Path("/proc/self/ns/pid").readlink())

else:
    import platform

    import psutil

    def _look_at(pid: int) -> tuple[str, str] | None:
        try:
            process = psutil.Process(pid)
            ended = process.status() == psutil.STATUS_ZOMBIE
            return f"{process.create_time():.2f}", "Z" if ended else "R"
        except psutil.NoSuchProcess:
            return None
        except psutil.AccessDenied:
            return "", "R"

    def _boot() -> str:
        return f"{platform.node()} {psutil.boot_time():.0f}"

    def _namespace() -> str:
        return ""
