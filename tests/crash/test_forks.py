"""Processes that come of others: fork, multiprocessing, exec."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from crash.conftest import FREE_SECONDS, GRACE_SECONDS
from places import EMBEDDED, NEWEST, places

if TYPE_CHECKING:
    from collections.abc import Callable

    from crash.conftest import Limit, Victim

everywhere = pytest.mark.parametrize("place", places(EMBEDDED, NEWEST, "3.0.11"), indirect=True)
on_both_paths = pytest.mark.parametrize("place", places(EMBEDDED, NEWEST), indirect=True)


@everywhere
def test_a_forked_child_gives_nothing_back_that_is_its_parents(
    place: str, make_limit: Callable[..., Limit], run_script: Callable[..., Victim]
) -> None:
    limit = make_limit()
    victim = run_script(
        """
@task(tags=[sys.argv[1]])
def body():
    for end in (lambda: os._exit(0), sys.exit, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        pid = os.fork()
        if not pid:
            end()
        os.waitpid(pid, 0)
    tell("held")
    sys.stdin.read()
body()
""",
        limit.name,
    )
    assert victim.hear() == "held"
    assert limit.used() == 1
    victim.close_stdin()
    assert victim.end()[0] == 0
    limit.wait_until_free()


@everywhere
def test_a_forked_child_takes_slots_of_its_own_and_they_come_back_when_it_is_killed(
    place: str, make_limit: Callable[..., Limit], run_script: Callable[..., Victim]
) -> None:
    limit = make_limit(2)
    victim = run_script(
        """
@task(tags=[sys.argv[1]])
def body():
    tell(os.getpid())
    wait()

@task(tags=[sys.argv[1]])
def parent():
    if os.fork():
        wait()
    else:
        body()
parent()
""",
        limit.name,
    )
    child = victim.hear()
    assert limit.used() == 2
    os.kill(child, signal.SIGKILL)
    limit.wait(1, FREE_SECONDS + GRACE_SECONDS)


@everywhere
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_killed_process_of_multiprocessing_gives_its_slot_back(
    method: str,
    place: str,
    make_limit: Callable[..., Limit],
    run_script: Callable[..., Victim],
) -> None:
    limit = make_limit(2)
    victim = run_script(
        f"""
def body():
    tell(os.getpid())
    wait()

def hold():
    task(tags=[sys.argv[1]])(body)()

def parent():
    child = multiprocessing.get_context({method!r}).Process(target=hold)
    child.start()
    child.join()
    tell(child.exitcode)

if __name__ == "__main__":
    task(tags=[sys.argv[1]])(parent)()
""",
        limit.name,
    )
    child = victim.hear()
    assert limit.used() == 2
    os.kill(child, signal.SIGKILL)
    assert victim.hear() == -signal.SIGKILL
    limit.wait_until_free()
    assert victim.end()[0] == 0


@pytest.mark.server(NEWEST)
@pytest.mark.parametrize("place", [NEWEST], indirect=True)
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("way", ["hold()", "threading.Thread(target=hold, args=(1,)).start()"])
def test_a_process_of_multiprocessing_that_ends_gives_all_back_without_a_guard(
    way: str,
    method: str,
    place: str,
    make_limit: Callable[..., Limit],
    run_script: Callable[..., Victim],
) -> None:
    limit = make_limit()
    victim = run_script(
        f"""
def hold(seconds=0):
    with concurrency("tag:" + sys.argv[1]):
        time.sleep(seconds)

def child():
    {way}

if __name__ == "__main__":
    process = multiprocessing.get_context({method!r}).Process(target=child)
    process.start()
    process.join()
    tell(process.exitcode)
    wait()
""",
        limit.name,
        LEASEHOLD_GUARD="0",
    )
    assert victim.hear() == 0
    assert limit.used() == 0


@everywhere
def test_children_forked_while_threads_wait_for_slots_do_not_hang(
    place: str, make_limit: Callable[..., Limit], run_script: Callable[..., Victim]
) -> None:
    limit, other = make_limit(), make_limit(50)
    victim = run_script(
        """
@task(tags=[sys.argv[1]])
def narrow():
    time.sleep(0.01)

@task(tags=[sys.argv[2]])
def wide():
    pass

over = False
def work():
    while not over:
        narrow()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for _ in range(10):
    pid = os.fork()
    if not pid:
        wide()
        sys.exit(0)  # the exit of a child whose parent is at work, hooks included
    tell(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
over = True
for thread in threads:
    thread.join()
""",
        limit.name,
        other.name,
    )
    assert [victim.hear() for _ in range(10)] == [0] * 10
    assert victim.end() == (0, "")
    limit.wait_until_free()
    other.wait_until_free()


@on_both_paths
def test_children_forked_while_threads_enter_their_first_block_take_slots_of_their_own(
    place: str, make_limit: Callable[..., Limit], run_script: Callable[..., Victim]
) -> None:
    limit = make_limit(100, is_tag=False)
    victim = run_script(
        """
def enter():
    with concurrency(sys.argv[1], strict=True):
        pass

threads = [threading.Thread(target=enter) for _ in range(8)]
for thread in threads:
    thread.start()
children = []
for number in range(50):
    pid = os.fork()
    if not pid:
        enter()
        os._exit(0)
    children.append(pid)
    if number >= 8:  # so many at once are enough for the machine
        tell(os.waitstatus_to_exitcode(os.waitpid(children.pop(0), 0)[1]))
for pid in children:
    tell(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
for thread in threads:
    thread.join()
""",
        limit.name,
    )
    assert [victim.hear() for _ in range(50)] == [0] * 50
    assert victim.end() == (0, "")
    limit.wait_until_free()


@on_both_paths
@pytest.mark.parametrize("kind", ["block", "async block", "flow"])
def test_forks_wait_for_all_imports_on_the_way_to_the_first_slot(
    kind: str, place: str, make_limit: Callable[..., Limit], run_script: Callable[..., Victim]
) -> None:
    limit = make_limit(is_tag=kind == "flow")
    victim = run_script(
        f"""
import asyncio
from leasehold import forks

class Watcher:
    def find_spec(self, name, path=None, target=None):
        if not forks._importing._is_owned():
            seen.append(name)

def block():
    with concurrency(sys.argv[1], strict=True):
        pass

def async_block():
    async def main():
        async with concurrency(sys.argv[1], strict=True):
            pass
    asyncio.run(main())

@task(tags=[sys.argv[1]])
def body():
    pass

@flow
def a_flow():
    body.submit().result()

seen = []
sys.meta_path.insert(0, Watcher())
{"a_flow" if kind == "flow" else kind.replace(" ", "_")}()
tell(seen)
""",
        limit.name,
        PREFECT_API_URL=os.environ.get("PREFECT_API_URL", "").replace("127.0.0.1", "localhost"),
    )
    assert victim.hear() == []


@on_both_paths
@pytest.mark.parametrize("whose", ["main", "keeper's own"])
def test_a_fork_leaves_no_lock_shut_that_the_keepers_thread_has_taken(
    whose: str, place: str, make_limit: Callable[..., Limit], run_script: Callable[..., Victim]
) -> None:
    limit = make_limit(2, is_tag=False)
    victim = run_script(
        f"""
from leasehold.concurrency import on_event

def enter():
    with concurrency(sys.argv[1], strict=True):
        pass

def fork():
    pid = os.fork()
    if not pid:
        enter()
        with library:
            os._exit(0)
    forked.append(pid)

def use(event):
    with library:  # such as libraries have, while they set themselves up
        at_work.set()
        time.sleep(0.3)
    if {whose == "keeper's own"} and not forked:
        fork()

forked, library, at_work = [], threading.Lock(), threading.Event()
on_event(use)
thread = threading.Thread(target=enter)
thread.start()
at_work.wait()
if {whose == "main"}:
    fork()
thread.join()
while not forked:
    time.sleep(0.01)
tell(os.waitstatus_to_exitcode(os.waitpid(forked[0], 0)[1]))
""",
        limit.name,
    )
    assert victim.hear() == 0
    assert victim.end() == (0, "")
    limit.wait_until_free()


#: The main thread forks while the keeper is at work, and gets a signal as it waits for that.
_SIGNALLED = """
from leasehold.concurrency import on_event

def enter():
    with concurrency("tag:" + sys.argv[1], strict=True):
        pass

def use(event):
    if not at_work.is_set():
        at_work.set()
        time.sleep(1)

def fork_and_wait():
    pid = os.fork()
    if not pid:
        enter()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

class Stop(Exception):
    pass

def stop(*_):
    raise Stop

at_work = threading.Event()
on_event(use)
thread = threading.Thread(target=enter, daemon=True)
thread.start()
at_work.wait()
"""


@on_both_paths
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "Stop"])
def test_a_signal_handler_that_raises_as_a_fork_waits_raises_after_it(
    error: str, place: str, make_limit: Callable[..., Limit], run_script: Callable[..., Victim]
) -> None:
    limit = make_limit(3)
    victim = run_script(
        _SIGNALLED
        + f"""
if {error == "Stop"}:
    signal.signal(signal.SIGINT, stop)
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    pid = os.fork()
    if not pid:
        enter()
        os._exit(0)
    while True:
        time.sleep(0.01)
except {error}:
    tell(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
thread.join()
enter()
tell("again")
""",
        limit.name,
    )
    assert victim.hear() == 0
    assert victim.hear() == "again"
    assert victim.end() == (0, "")
    limit.wait_until_free()


@on_both_paths
def test_a_signal_handler_may_fork_as_a_fork_waits(
    place: str, make_limit: Callable[..., Limit], run_script: Callable[..., Victim]
) -> None:
    limit = make_limit(3)
    victim = run_script(
        _SIGNALLED
        + """
codes = []
signal.signal(signal.SIGUSR1, lambda *_: codes.append(fork_and_wait()))
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
codes.append(fork_and_wait())
thread.join()
enter()
later = threading.Thread(target=lambda: codes.append(fork_and_wait()))
later.start()
later.join()
tell(codes)
""",
        limit.name,
    )
    assert victim.hear(8) == [0, 0, 0]  # a fork that is kept out gives up after 10 s
    assert victim.end() == (0, "")
    limit.wait_until_free()


@on_both_paths
def test_sigterm_as_a_fork_waits_gives_back_what_is_held(
    place: str, make_limit: Callable[..., Limit], run_script: Callable[..., Victim]
) -> None:
    limit = make_limit(3)
    victim = run_script(
        _SIGNALLED
        + """
thread.join()
with concurrency("tag:" + sys.argv[1], strict=True):
    at_work.clear()
    threading.Thread(target=enter, daemon=True).start()  # told that the process is ending
    at_work.wait()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    fork_and_wait()
    wait()
""",
        limit.name,
        LEASEHOLD_GUARD="0",
    )
    assert victim.end()[0] == -signal.SIGTERM
    limit.wait_until_free()


@pytest.mark.parametrize("place", places(EMBEDDED), indirect=True)
@pytest.mark.parametrize("after_seconds", [0.02, 0.1, 0.2])
def test_a_signal_handler_may_fork_on_the_way_to_the_first_slot(
    after_seconds: float,
    place: str,
    make_limit: Callable[..., Limit],
    run_script: Callable[..., Victim],
) -> None:
    limit = make_limit()
    victim = run_script(
        f"""
def fork(*_):
    pid = os.fork()
    if not pid:
        os._exit(0)
    tell(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

signal.signal(signal.SIGALRM, fork)
signal.setitimer(signal.ITIMER_REAL, {after_seconds})
with concurrency("tag:" + sys.argv[1], strict=True):
    time.sleep(0.3)
tell("entered")
""",
        limit.name,
    )
    assert victim.hear() == 0
    assert victim.hear(8) == "entered"  # a fork that is kept out gives up after 10 s
    assert victim.end() == (0, "")
    limit.wait_until_free()


@pytest.mark.parametrize("whose", ["of its own", "of another thread that hangs"])
def test_a_fork_amid_an_import_goes_on_and_so_does_its_child(
    whose: str, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(
        f"""
from leasehold import forks
forks._PATIENCE_SECONDS = 0.2

def hang():
    with forks.put_off():
        importing.set()
        wait()

def use():
    with forks.put_off():
        tell("used")

importing = threading.Event()
if {whose == "of its own"}:
    with forks.put_off():
        pid = os.fork()
else:
    threading.Thread(target=hang, daemon=True).start()
    importing.wait()
    pid = os.fork()
if pid:
    tell(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
else:
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
os._exit(0)
""",
    )
    assert [victim.hear(), victim.hear()] == ["used", 0]
    assert victim.end() == (0, "")


@everywhere
def test_a_program_that_replaces_itself_loses_its_slot_and_can_take_another(
    place: str, make_limit: Callable[..., Limit], run_script: Callable[..., Victim]
) -> None:
    limit = make_limit()
    victim = run_script(
        """
if len(sys.argv) > 2:
    tell("replaced")
    sys.stdin.read()
    @task(tags=[sys.argv[1]])
    def again():
        tell("held again")
        wait()
    again()

@task(tags=[sys.argv[1]])
def body():
    tell("held")
    os.execv(sys.executable, [sys.executable, *sys.argv, "replaced"])
body()
""",
        limit.name,
    )
    assert [victim.hear(), victim.hear()] == ["held", "replaced"]
    limit.wait_until_free()
    victim.close_stdin()
    assert victim.hear() == "held again"
    assert limit.used() == 1
    assert len(victim.look()) == (place != EMBEDDED)
    victim.process.kill()
    victim.process.wait(10)
    limit.wait_until_free()


@everywhere
def test_a_parent_that_is_killed_while_its_child_lives_on_gives_its_own_slot_back(
    place: str, make_limit: Callable[..., Limit], run_script: Callable[..., Victim]
) -> None:
    limit = make_limit(2)
    victim = run_script(
        """
@task(tags=[sys.argv[1]])
def child():
    tell(os.getpid())
    wait()

@task(tags=[sys.argv[1]])
def parent():
    if not os.fork():
        child()
    wait()
parent()
""",
        limit.name,
    )
    pid = victim.hear()
    assert limit.used() == 2
    victim.process.kill()
    victim.process.wait(10)
    limit.wait(1, FREE_SECONDS + GRACE_SECONDS)
    assert psutil.pid_exists(pid)
    os.kill(pid, signal.SIGTERM)
    limit.wait_until_free()


def test_runs_of_a_forked_child_have_ids_of_their_own() -> None:
    program = """
import os
from leasehold import flow, task
from leasehold.runtime import task_run

@task
def body():
    return task_run.id

@flow
def a_flow():
    return body()

before = a_flow()
child = os.fork()
os.write(1, f"{a_flow()}\\n".encode())
if child:
    os.waitpid(child, 0)
"""
    env = {**os.environ, "LEASEHOLD_LOGGING_LEVEL": "WARNING"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, timeout=50, check=True
    )
    assert len(set(done.stdout.split())) == 2
