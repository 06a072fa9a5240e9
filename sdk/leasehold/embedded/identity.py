"""Who a process is, so that others on the machine can tell for certain whether it lives.

A process id alone is not enough: ids are used again, and mean nothing on another machine, after
a reboot, or in another container. So boot, PID namespace and start time belong to it. Where
anything is unsure, nothing is said, and expiry alone decides.

A program that replaces itself (exec) keeps all these, and nothing of what it held. On Linux its
stack is laid out anew then, at a random place; elsewhere, or where that is switched off, nobody can
tell, and its slots come back when the process ends.
"""

from __future__ import annotations

import functools
import os
import sys
import uuid
from pathlib import Path
from typing import Final, NamedTuple

#: States of a process that has ended, and whose parent has not looked yet.
_ENDED_STATES: Final = frozenset({"Z", "X", "x"})


class Process(NamedTuple):
    """A process, told apart from every other one.

    Attributes:
        boot: this boot of this machine; "" where the platform does not tell.
        namespace: the PID namespace; "" where the platform has none.
        pid: the process id in that namespace.
        started: when it started, in the platform's own unit; "" where that cannot be known. On
            Linux also where its program's stack is; 0 where that cannot be known.
    """

    boot: str
    namespace: str
    pid: int
    started: str


def this_process() -> Process:
    """Describe the process that calls; cheap, and right after a fork."""
    return _describe_self(os.getpid())


def name_of(pid: int) -> str:
    """Name a process of this namespace: alike for all who ask, also after it has called exec."""
    state = _look_at(pid)
    return f"{_namespace()} {pid} {state[0].partition(' ')[0] if state else ''}"


def lives(process: Process) -> bool | None:
    """Say whether a process certainly lives, or certainly has ended; None: that is not known.

    One that stands still, because it was stopped or the machine slept, lives.
    """
    here = this_process()
    if not (process.boot and process.started):
        return None
    if (process.boot, process.namespace) != (here.boot, here.namespace):
        return None
    if process == here:
        return True
    state = _look_at(process.pid)
    if state is None:
        return False
    started, ended = state
    if ended:
        return False
    return _same(started, process.started) if started else None


def _same(seen: str, known: str) -> bool | None:
    """Compare two starts; None: same process, but it cannot be known whether same program."""
    if seen == known:
        return True
    (when, _, stack), (known_when, _, known_stack) = seen.partition(" "), known.partition(" ")
    if when != known_when or (int(stack or 0) and int(known_stack or 0)):
        return False
    return None


@functools.lru_cache(maxsize=1)
def _describe_self(pid: int) -> Process:
    state = _look_at(pid)
    return Process(_boot(), _namespace(), pid, state[0] if state else "")


if sys.platform == "linux":

    def _look_at(pid: int) -> tuple[str, bool] | None:
        """Read when a process started, and whether it has ended; None: there is no such process."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            # Where /proc hides the processes of other users, missing there is not gone.
            return ("", False) if _answers_signals(pid) else None
        # The second field is the program's name, in brackets, and may contain anything.
        fields = stat[stat.rindex(b")") + 2 :].split()
        state, started, stack = (fields[index].decode() for index in (0, 19, 25))
        return f"{started} {stack}", state in _ENDED_STATES

    def _answers_signals(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    def _boot() -> str:
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:  # no /proc, or a sandbox's own
            return ""

    def _namespace() -> str:
        try:
            own = Path("/proc/self").readlink()
            namespace = str(Path("/proc/self/ns/pid").readlink())
        except OSError:
            own, namespace = Path(), ""
        # /proc may be that of another namespace, as in some sandboxes: then ids mean nothing, and
        # this process must not be compared with any other one.
        return namespace if own.name == str(os.getpid()) else f"unknown {uuid.uuid4()}"

else:
    import platform

    import psutil

    def _look_at(pid: int) -> tuple[str, bool] | None:
        try:
            process = psutil.Process(pid)
            return f"{process.create_time():.2f}", process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        except psutil.AccessDenied:
            return "", False

    def _boot() -> str:
        return f"{platform.node()} {psutil.boot_time():.0f}"

    def _namespace() -> str:
        return ""
