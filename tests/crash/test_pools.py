"""Workers of a process pool: slots live as long as they do, whatever becomes of the parent."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from crash.conftest import GRACE_SECONDS, has_ended, wait_for
from places import EMBEDDED, NEWEST, places
from proxy import Fault, Proxy, Seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from crash.conftest import Limit, Victim

everywhere = pytest.mark.parametrize("place", places(EMBEDDED, NEWEST, "3.0.11"), indirect=True)

#: A body that holds the interpreter's lock: no other thread of its process does anything.
HOLDING = """
import ctypes
from leasehold.task_runners import ProcessPoolTaskRunner

@task(tags=[sys.argv[1]])
def body():
    tell(os.getpid())
    ctypes.PyDLL(None).usleep(60_000_000)
"""


@everywhere
@pytest.mark.parametrize("worker_is", ["running", "stopped"])
def test_a_body_that_holds_the_interpreter_has_ended_when_the_slot_of_its_killed_parent_is_free(
    worker_is: str, place: str, make_limit: Callable[..., Limit], run_script: Callable[..., Victim]
) -> None:
    limit = make_limit()
    victim = run_script(
        HOLDING
        + """
@flow(task_runner=ProcessPoolTaskRunner(1))
def parent():
    body.submit().result()

if __name__ == "__main__":
    parent()
""",
        limit.name,
    )
    worker = victim.hear()
    assert limit.used() == 1
    if worker_is == "stopped":
        os.kill(worker, signal.SIGSTOP)
    victim.process.kill()
    victim.process.wait(10)
    limit.wait_until_free()
    wait_for(lambda: has_ended(worker), GRACE_SECONDS)  # killed it is; dying takes a moment


def test_a_signal_ends_the_bodies_in_workers_before_it_gives_their_slots_back(
    prefect_server_url: str,
    monkeypatch: pytest.MonkeyPatch,
    make_limit: Callable[..., Limit],
    run_script: Callable[..., Victim],
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server_url)
    limit, ended = make_limit(), []
    with Proxy(prefect_server_url) as proxy:
        victim = run_script(
            HOLDING
            + """
@flow(task_runner=ProcessPoolTaskRunner(2))
def parent():
    futures = [body.submit(), body.submit()]
    for future in futures:
        future.result()

if __name__ == "__main__":
    parent()
""",
            limit.name,
            PREFECT_API_URL=proxy.url,
        )
        worker = victim.hear()
        victim.wait_until_it_handles(signal.SIGTERM)

        def look(seen: Seen) -> Fault:
            if "decrement" in seen.path:
                ended.append(has_ended(worker))
            return Fault.NONE

        proxy.plan = look
        victim.process.send_signal(signal.SIGTERM)
        code, complaints = victim.end()
    assert code == -signal.SIGTERM
    assert "killed" not in complaints
    assert ended == [True]
    limit.wait_until_free()
    assert len(victim.told) == 1  # nor has the other body begun


@everywhere
def test_a_body_that_another_body_submitted_ends_with_its_grandparent(
    place: str, make_limit: Callable[..., Limit], run_script: Callable[..., Victim]
) -> None:
    limit = make_limit()
    victim = run_script(
        HOLDING
        + """
@task
def parent():
    tell(os.getpid())
    body.submit().result()

@flow(task_runner=ProcessPoolTaskRunner(1))
def grandparent():
    parent.submit().result()

if __name__ == "__main__":
    grandparent()
""",
        limit.name,
    )
    workers = [victim.hear(), victim.hear()]
    assert limit.used() == 1
    victim.process.kill()
    victim.process.wait(10)
    limit.wait_until_free()
    wait_for(lambda: all(map(has_ended, workers)), GRACE_SECONDS)
