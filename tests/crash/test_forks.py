"""Processes that come of others: fork, multiprocessing, exec."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

from crash.conftest import FREE_SECONDS, GRACE_SECONDS
from places import EMBEDDED, NEWEST, places

if TYPE_CHECKING:
    from collections.abc import Callable

    from crash.conftest import Limit, Victim

everywhere = pytest.mark.parametrize("place", places(EMBEDDED, NEWEST, "3.0.11"), indirect=True)
on_servers = pytest.mark.parametrize("place", places(NEWEST, "3.0.11"), indirect=True)


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
wide()  # what is imported on demand is there from now on: Python cannot fork amid an import
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


@on_servers
def test_a_program_that_replaces_itself_loses_its_slot_and_can_take_another(
    place: str, make_limit: Callable[..., Limit], run_script: Callable[..., Victim]
) -> None:
    # Not on the ledger: it knows processes, and this one goes on. There the lease has to expire.
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
    assert len(victim.look()) == 1
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
