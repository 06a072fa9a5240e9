"""Whether a process has ended, told by real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from leasehold.embedded import identity
from leasehold.embedded.identity import Process, is_gone, this_process

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
        import json

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


def test_this_process_is_not_gone() -> None:
    assert not is_gone(this_process())


def test_a_process_describes_itself_as_others_see_it(child: Child) -> None:
    assert child.identity.pid == child.popen.pid
    assert not is_gone(child.identity)
    here = this_process()
    assert (child.identity.boot, child.identity.namespace) == (here.boot, here.namespace)


def test_a_killed_process_is_gone(child: Child) -> None:
    child.send(signal.SIGKILL)
    child.bury()
    assert is_gone(child.identity)


def test_a_zombie_is_gone_although_its_parent_has_not_looked(child: Child) -> None:
    child.send(signal.SIGKILL)
    child.wait_for_death_unseen()
    os.kill(child.popen.pid, 0)  # the system still knows it
    assert is_gone(child.identity)


def test_a_stopped_process_is_not_gone(child: Child) -> None:
    child.send(signal.SIGSTOP)
    os.waitid(os.P_PID, child.popen.pid, os.WSTOPPED | os.WNOWAIT)
    assert not is_gone(child.identity)


def test_a_process_is_gone_when_another_one_has_its_id_by_now(child: Child) -> None:
    earlier = child.identity._replace(started="1")
    assert is_gone(earlier)


@pytest.mark.parametrize(
    "elsewhere",
    [{"boot": "another"}, {"boot": ""}, {"namespace": "pid:[1]"}, {"started": ""}],
    ids=["another machine or boot", "an unknown boot", "another container", "an unknown start"],
)
def test_where_anything_is_unsure_a_process_counts_as_alive(
    child: Child, elsewhere: dict[str, Any]
) -> None:
    child.bury()
    assert is_gone(child.identity)
    assert not is_gone(child.identity._replace(**elsewhere))


def test_a_process_that_proc_hides_from_this_user_is_not_gone(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    this_process()

    def hidden(path: Path) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_bytes", hidden)
    assert not is_gone(child.identity)
    child.bury()
    assert is_gone(child.identity)


def test_without_a_proc_of_its_own_a_process_is_compared_with_no_other(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "readlink", lambda path: Path("/proc/1"))
    names = {identity._namespace(), identity._namespace(), this_process().namespace}
    assert len(names) == 3


def test_a_program_name_full_of_brackets_confuses_nobody(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    program.symlink_to("/bin/sleep")
    popen = subprocess.Popen([str(program), "60"])
    try:
        state = identity._look_at(popen.pid)
        assert state is not None
        assert not is_gone(this_process()._replace(pid=popen.pid, started=state[0]))
    finally:
        popen.kill()
        popen.wait()
