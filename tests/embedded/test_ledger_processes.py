"""Several real processes on one ledger: killed, stopped, forked, and all at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from leasehold.embedded.identity import this_process
from leasehold.embedded.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: What every script below begins with; `sys.argv[1]` is the ledger's file.
PREAMBLE = """
import json, os, sys, threading, time
from pathlib import Path
from leasehold.embedded.identity import this_process
from leasehold.embedded.ledger import Ledger

ledger = Ledger(Path(sys.argv[1]))

def take():
    return ledger.acquire(["a"], 1, seconds=3600, process=this_process()).lease_id

def tell(what):
    print(json.dumps(what), flush=True)
"""

HOLD = "tell(take()); time.sleep(600)"


class Scripts:
    """Starts scripts on a ledger, and ends them all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.running: list[subprocess.Popen[str]] = []

    def start(self, script: str) -> subprocess.Popen[str]:
        """Run a script in a process of its own."""
        popen = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PREAMBLE + script, str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(popen)
        return popen

    def hear(self, popen: subprocess.Popen[str]) -> Any:
        """Wait for the next thing that a script tells."""
        assert popen.stdout is not None
        line = popen.stdout.readline()
        assert line, popen.communicate()[1]
        return json.loads(line)

    def end(self, popen: subprocess.Popen[str], say: str = "") -> list[Any]:
        """Say something to a script, and wait until it has ended well; give what it told."""
        out, err = popen.communicate(say, timeout=50)
        assert popen.returncode == 0, err
        return [json.loads(line) for line in out.splitlines()]

    def kill(self) -> None:
        """End all scripts."""
        for popen in self.running:
            with contextlib.suppress(ProcessLookupError):
                popen.kill()
            popen.communicate()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.create("a", 1)
    yield ledger
    ledger.close()


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[Scripts]:
    scripts = Scripts(tmp_path / "ledger.db")
    yield scripts
    scripts.kill()


def take(ledger: Ledger) -> str | None:
    return ledger.acquire(["a"], 1, seconds=3600, process=this_process()).lease_id


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_the_slot_of_a_killed_process_comes_back_at_once(
    ledger: Ledger, scripts: Scripts, how: signal.Signals
) -> None:
    holder = scripts.start(HOLD)
    assert scripts.hear(holder)
    assert take(ledger) is None
    holder.send_signal(how)
    holder.wait()
    assert take(ledger)


def test_the_slot_comes_back_even_while_the_dead_process_is_a_zombie(
    ledger: Ledger, scripts: Scripts
) -> None:
    holder = scripts.start(HOLD)
    assert scripts.hear(holder)
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    assert take(ledger)


def test_a_stopped_process_keeps_its_slot_beyond_the_end_of_its_lease(
    ledger: Ledger, scripts: Scripts
) -> None:
    holder = scripts.start(
        """
lease = ledger.acquire(["a"], 1, seconds=0.1, process=this_process()).lease_id
tell(lease)
sys.stdin.readline()
tell(ledger.renew(lease, 60))
"""
    )
    assert scripts.hear(holder)
    holder.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WNOWAIT)
    time.sleep(0.2)
    assert take(ledger) is None
    holder.send_signal(signal.SIGCONT)
    assert scripts.end(holder, "\n") == [True]
    assert take(ledger)


def test_a_process_killed_in_a_transaction_leaves_no_trace_and_no_lock(
    ledger: Ledger, scripts: Scripts
) -> None:
    victim = scripts.start(
        """
with ledger._file.writing() as db:
    db.execute("UPDATE limits SET used = 99")
    tell(None)
    time.sleep(600)
"""
    )
    scripts.hear(victim)
    victim.kill()
    victim.wait()
    assert take(ledger)


def test_processes_that_meet_at_a_missing_file_make_one_ledger(
    tmp_path: Path, scripts: Scripts
) -> None:
    start = time.time() + 1
    makers = [
        scripts.start(
            f"""
while time.time() < {start}: pass
assert ledger.create("made by {number}", 1)
"""
        )
        for number in range(6)
    ]
    for maker in makers:
        scripts.end(maker)
    with contextlib.closing(Ledger(scripts.path)) as ledger:
        assert len(ledger.list_limits(200, 0)) == 6
    assert [one.name for one in tmp_path.glob("ledger.db.*")] == []


def test_the_limit_holds_among_processes_that_all_ask_at_once(
    ledger: Ledger, scripts: Scripts
) -> None:
    ledger.update("a", limit=2)
    askers = [
        scripts.start(
            """
done = 0
while done < 60:
    lease = take()
    if lease is not None:
        began = time.monotonic()
        time.sleep(0.001)
        tell([began, time.monotonic()])
        ledger.release(lease)
        done += 1
"""
        )
        for _ in range(4)
    ]
    spans = [span for asker in askers for span in scripts.end(asker)]
    assert len(spans) == 240
    assert peak(spans) == 2
    limit = ledger.read("a")
    assert limit is not None
    assert limit.used == 0


def peak(spans: list[list[float]]) -> int:
    """Count how many were there at once, at most."""
    steps = sorted([(end, -1) for _, end in spans] + [(start, 1) for start, _ in spans])
    now = most = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most


def test_a_forked_child_shares_the_ledger_but_not_the_connection(
    ledger: Ledger, scripts: Scripts
) -> None:
    forker = scripts.start(
        """
lease = take()
child = os.fork()
if child == 0:
    # The parent's slot is the parent's, whatever becomes of the child.
    tell([take(), this_process().pid == os.getpid()])
    os._exit(0)
os.waitpid(child, 0)
tell(ledger.renew(lease, 60))
ledger.release(lease)
"""
    )
    assert scripts.end(forker) == [[None, True], True]
    assert take(ledger)


def test_a_child_forked_in_the_midst_of_transactions_is_not_stuck(
    ledger: Ledger, scripts: Scripts
) -> None:
    ledger.update("a", limit=100)
    forker = scripts.start(
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # to fork beside a thread is the point

def work():
    while not over:
        ledger.release(take())

over = False
thread = threading.Thread(target=work)
thread.start()
for _ in range(40):
    child = os.fork()
    if child == 0:
        ledger.release(take())
        os._exit(0)
    give_up_at = time.monotonic() + 20
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > give_up_at:
            os.kill(child, 9)
            break
        time.sleep(0.001)
    tell(os.waitstatus_to_exitcode(status) if ended else "stuck")
over = True
thread.join()
"""
    )
    assert scripts.end(forker) == [0] * 40
    limit = ledger.read("a")
    assert limit is not None
    assert limit.used == 0


def test_a_childs_death_does_not_end_the_parents_lease(ledger: Ledger, scripts: Scripts) -> None:
    forker = scripts.start(
        """
lease = take()
child = os.fork()
if child == 0:
    os.kill(os.getpid(), 9)
os.waitpid(child, 0)
tell("child is dead")
time.sleep(600)
"""
    )
    scripts.hear(forker)
    assert take(ledger) is None


def test_a_fork_amid_a_transaction_leaves_it_to_the_parent(
    ledger: Ledger, scripts: Scripts
) -> None:
    """As by a signal handler, or where the garbage is collected."""
    forking = scripts.start(
        """
from leasehold.embedded.file import LedgerBusyError

pid = None
try:
    with ledger._file.writing() as db:
        db.execute("UPDATE limits SET denied = denied + 1")
        pid = os.fork()
except LedgerBusyError:
    os._exit(7)  # the child
tell(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
with ledger._file.writing() as db:
    tell(db.execute("SELECT denied FROM limits").fetchone()[0])
"""
    )
    assert scripts.hear(forking) == 7
    assert scripts.hear(forking) == 1
