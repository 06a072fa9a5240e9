"""Victims, and the places where their slots are kept."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import pytest

from crash.table import TIME_UNTIL_FREE
from leasehold.client import GlobalConcurrencyLimitCreate, get_client
from places import EMBEDDED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VICTIMS: Final = Path(__file__).with_name("victims")

#: How soon a slot is free again after the process's death (issue "crash-proof").
FREE_SECONDS: Final = 2.0

#: What a busy machine may add to any time that is measured here.
GRACE_SECONDS: Final = 1.0

_serial = itertools.count(1)


@dataclass(frozen=True)
class Limit:
    """A limit of one slot, of a tag or of its own."""

    name: str
    is_tag: bool

    def used(self) -> int:
        """Count the slots in use."""
        with get_client(sync_client=True) as client:
            if self.is_tag:
                return client.read_concurrency_limit_use(self.name).used
            return client.read_global_concurrency_limit_by_name(self.name).active_slots

    def wait(self, used: int, seconds: float) -> float:
        """Wait until so many slots are in use; gives how long that took."""
        began = time.monotonic()
        while (now := self.used()) != used:
            waited = time.monotonic() - began
            assert waited < seconds, f"{now} of {self.name} in use after {waited:.1f} s"
            time.sleep(0.02)
        return time.monotonic() - began

    def wait_until_free(self, seconds: float = FREE_SECONDS + GRACE_SECONDS) -> float:
        """Wait until no slot is in use; gives how long that took."""
        return self.wait(0, seconds)


@pytest.fixture(scope="package", autouse=True)
def _ctrl_c_works() -> Iterator[None]:
    """Let victims have the usual SIGINT; a shell's background jobs inherit that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have limits live where the parameter says; "3.8.8 legacy" is its old tag calls."""
    name, _, dialect = str(request.param).partition(" ")
    if name != EMBEDDED:
        monkeypatch.setenv("PREFECT_API_URL", request.getfixturevalue("server_of")(name).url)
    if dialect:
        monkeypatch.setenv("LEASEHOLD_DIALECT", dialect)
    return str(request.param)


@pytest.fixture
def make_limit() -> Callable[..., Limit]:
    """Make limits at the place of the environment."""

    def make(size: int = 1, *, is_tag: bool = True) -> Limit:
        name = f"crash-{next(_serial)}"
        with get_client(sync_client=True) as client:
            if is_tag:
                client.create_concurrency_limit(name, size)
            else:
                client.create_global_concurrency_limit(
                    GlobalConcurrencyLimitCreate(name=name, limit=size)
                )
        return Limit(name, is_tag)

    return make


class Victim:
    """A program of `victims`, in a session of its own.

    Attributes:
        process: the program.
        told: what it has told so far, a line of JSON each.
        kin: the processes that it had started when `look` was called, by pid.
    """

    def __init__(self, *command: str, **env: str) -> None:
        self.told: list[Any] = []
        self.kin: dict[int, psutil.Process] = {}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "LEASEHOLD_LOGGING_LEVEL": "WARNING", **env},
            start_new_session=True,
        )

    def hear(self, seconds: float = 30.0) -> Any:
        """Wait for the next line that it tells."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], seconds)[0], "it says nothing"
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1].decode()
        self.told.append(json.loads(line))
        self.look()  # while it lives: a guard outlives it for as long as there is no server
        return self.told[-1]

    def close_stdin(self) -> None:
        """Tell a program that reads until the end to go on."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None

    def wait_until_it_handles(self, number: signal.Signals) -> None:
        """Wait until it has a handler for a signal, which the main thread installs in a moment."""
        status = Path(f"/proc/{self.process.pid}/status")

        def handles() -> bool:
            caught = next(line for line in status.read_text().splitlines() if "SigCgt" in line)
            return bool(int(caught.split()[1], 16) >> (number - 1) & 1)

        wait_for(handles)

    def look(self) -> list[psutil.Process]:
        """Note which processes it has started; gives the guards among them."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in psutil.Process(self.process.pid).children(recursive=True):
                self.kin[one.pid] = one
        return [one for one in self.kin.values() if is_guard(one)]

    def end(self, seconds: float = 30.0) -> tuple[int, str]:
        """Wait until it has ended; gives its exit status and what it has complained about."""
        code = self.process.wait(seconds)
        with contextlib.suppress(ProcessLookupError):  # who inherited its pipes would keep us here
            os.killpg(self.process.pid, signal.SIGKILL)
        return code, self.process.communicate(timeout=seconds)[1].decode()

    def wait_until_nothing_is_left(self, seconds: float = 5.0) -> None:
        """Require that what it had started ends."""
        ends_at = time.monotonic() + seconds
        # A zombie is over: its parent has left it to the system, which may take its time.
        while left := [one for one in self.kin.values() if not has_ended(one.pid)]:
            assert time.monotonic() < ends_at, left
            time.sleep(0.02)

    def clean_up(self) -> None:
        """Kill it and what it has started."""
        self.look()
        for one in self.kin.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()


def wait_for(what: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until something is so."""
    ends_at = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    """Say whether a process has ended, also if nobody has looked yet."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def is_guard(process: psutil.Process) -> bool:
    """Say whether a process is a guard."""
    try:
        return any(part.endswith("guard.py") for part in process.cmdline())
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def start() -> Iterator[Callable[..., Victim]]:
    """Start programs of `victims`; whatever is left of them at the end of the test is killed."""
    victims: list[Victim] = []

    def start(program: str, *arguments: str, **env: str) -> Victim:
        victim = Victim(sys.executable, str(VICTIMS / program), *arguments, **env)
        victims.append(victim)
        return victim

    yield start
    for victim in victims:
        victim.clean_up()


@pytest.fixture
def run_script(tmp_path: Path) -> Iterator[Callable[..., Victim]]:
    """Start a short program that is written in the test; see `start`."""
    victims: list[Victim] = []

    def start(script: str, *arguments: str, **env: str) -> Victim:
        path = tmp_path / f"script-{len(victims)}.py"
        path.write_text(PREAMBLE + script)
        victim = Victim(sys.executable, "-W", "error", str(path), *arguments, **env)
        victims.append(victim)
        return victim

    yield start
    for victim in victims:
        victim.clean_up()


#: What each program in a test begins with. `tell` says something, `wait` sleeps for long.
PREAMBLE: Final = """
import atexit, json, multiprocessing, os, signal, sys, threading, time, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
from leasehold import flow, task
from leasehold.concurrency.sync import concurrency

def tell(what):
    os.write(1, json.dumps(what).encode() + b"\\n")

def wait():
    time.sleep(60)
"""


@pytest.fixture
def note_time(request: pytest.FixtureRequest) -> Callable[[str, str, str, float], None]:
    """Put a time into the table that ends the run."""

    def note(place: str, death: str, kind: str, seconds: float) -> None:
        request.node.user_properties.append((TIME_UNTIL_FREE, [place, death, kind, seconds]))

    return note
