"""Whether a process has ended, told by real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from leasehold.embedded import identity
from leasehold.embedded.identity import Process, lives, this_process

if TYPE_CHECKING:
    from collections.abc import Iterator

TELL = (
    "import json, sys; from leasehold.embedded.identity import this_process;"
    "print(json.dumps(this_process()), flush=True); sys.stdin.read()"
)


class Child:
    """A running process that has said who it is."""

    def __init__(self) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", TELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.popen.stdout is not None
        self.identity = Process(*json.loads(self.popen.stdout.readline()))

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.popen.send_signal(number)

    def wait_for_death_unseen(self) -> None:
        """Wait until it has ended, but leave it a zombie."""
        os.waitid(os.P_PID, self.popen.pid, os.WEXITED | os.WNOWAIT)

    def bury(self) -> None:
        """End it, and have the system forget it."""
        with contextlib.suppress(ProcessLookupError):
            self.popen.kill()
        self.popen.communicate()


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.bury()


def test_this_process_lives() -> None:
    assert lives(this_process()) is True


def test_a_process_describes_itself_as_others_see_it(child: Child) -> None:
    assert child.identity.pid == child.popen.pid
    assert lives(child.identity) is True
    here = this_process()
    assert (child.identity.boot, child.identity.namespace) == (here.boot, here.namespace)


def test_a_killed_process_is_gone(child: Child) -> None:
    child.send(signal.SIGKILL)
    child.bury()
    assert lives(child.identity) is False


def test_a_zombie_is_gone_although_its_parent_has_not_looked(child: Child) -> None:
    child.send(signal.SIGKILL)
    child.wait_for_death_unseen()
    os.kill(child.popen.pid, 0)  # the system still knows it
    assert lives(child.identity) is False


def test_a_stopped_process_lives(child: Child) -> None:
    child.send(signal.SIGSTOP)
    os.waitid(os.P_PID, child.popen.pid, os.WSTOPPED | os.WNOWAIT)
    assert lives(child.identity) is True


def test_a_process_is_gone_when_another_one_has_its_id_by_now(child: Child) -> None:
    earlier = child.identity._replace(started="1")
    assert lives(earlier) is False


def test_a_program_that_has_replaced_itself_is_gone() -> None:
    again = f"import os, sys; os.execv(sys.executable, [sys.executable, '-c', {TELL!r}])"
    popen = subprocess.Popen(
        [sys.executable, "-c", TELL.replace("sys.stdin.read()", "sys.stdin.readline();") + again],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert popen.stdin is not None
    assert popen.stdout is not None
    before = Process(*json.loads(popen.stdout.readline()))
    assert lives(before) is True
    popen.stdin.write("\n")
    popen.stdin.flush()
    after = Process(*json.loads(popen.stdout.readline()))
    assert after.pid == before.pid
    assert lives(before) is False
    assert lives(after) is True
    popen.communicate()
    assert lives(after) is False


@pytest.mark.parametrize("stack", ["", " 0"], ids=["not noted", "hidden"])
def test_whether_a_program_has_replaced_itself_is_not_guessed(child: Child, stack: str) -> None:
    start = child.identity.started.split()[0]
    assert lives(child.identity._replace(started=start + stack)) is None


@pytest.mark.parametrize(
    "elsewhere",
    [{"boot": "another"}, {"boot": ""}, {"namespace": "pid:[1]"}, {"started": ""}],
    ids=["another machine or boot", "an unknown boot", "another container", "an unknown start"],
)
def test_where_anything_is_unsure_nothing_is_said(child: Child, elsewhere: dict[str, Any]) -> None:
    assert lives(child.identity._replace(**elsewhere)) is None
    child.bury()
    assert lives(child.identity) is False
    assert lives(child.identity._replace(**elsewhere)) is None


def test_of_a_process_that_proc_hides_from_this_user_only_its_end_is_known(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    this_process()

    def hidden(path: Path) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_bytes", hidden)
    assert lives(child.identity) is None
    child.bury()
    assert lives(child.identity) is False


def test_without_a_proc_of_its_own_a_process_is_compared_with_no_other(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "readlink", lambda path: Path("/proc/1"))
    names = {identity._namespace(), identity._namespace(), this_process().namespace}
    assert len(names) == 3


def test_a_program_name_full_of_brackets_confuses_nobody(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    program.symlink_to("/bin/cat")
    popen = subprocess.Popen([str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        # An answer shows that the exec is over: amid it, the start of the stack still changes.
        assert popen.stdin is not None
        assert popen.stdout is not None
        popen.stdin.write(b"here\n")
        popen.stdin.flush()
        assert popen.stdout.readline() == b"here\n"
        state = identity._look_at(popen.pid)
        assert state is not None
        assert lives(this_process()._replace(pid=popen.pid, started=state[0])) is True
    finally:
        popen.kill()
        popen.communicate()
