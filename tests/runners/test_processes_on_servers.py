"""The essentials of ProcessPoolTaskRunner where limits live on a real server."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from typing import TYPE_CHECKING, Any

import pytest

from leasehold import flow, tags
from leasehold.client import get_client
from leasehold.task_runners import ProcessPoolTaskRunner
from places import NEWEST, assert_all_back, places
from runners import bodies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_serial = itertools.count(1)


@pytest.fixture(params=places(NEWEST, "3.0.11"))
def tag(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Make a tag with a limit of 1 on a server; its slot must be back at the end."""
    server = request.getfixturevalue("server_of")(request.param)
    monkeypatch.setenv("PREFECT_API_URL", server.url)
    name = f"processes-{next(_serial)}"
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit(name, 1)
    yield name
    assert_all_back(name)
    assert multiprocessing.active_children() == []


def in_processes(body: Any) -> Any:
    return flow(name="in-processes", task_runner=ProcessPoolTaskRunner(2))(body)()


def test_a_limit_holds_for_bodies_in_processes_and_the_body_knows_its_lease(
    tag: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    def body() -> list[Any]:
        with tags(tag):
            return bodies.holds.map([str(log)] * 6, seconds=0.05).result()

    held = in_processes(body)
    running = peak = 0
    for line in sorted(log.read_text().splitlines()):
        running += int(line.split()[1])
        peak = max(peak, running)
    assert peak == 1
    assert all(limits == [f"tag:{tag}"] for _, limits in held)


def test_a_killed_worker_gives_its_slot_back(tag: str) -> None:
    def body() -> float:
        with tags(tag):
            dying = bodies.dies.submit("kill")
            dying.wait()
            began = time.monotonic()
            bodies.pid_of_worker.submit().result()
        return time.monotonic() - began

    assert in_processes(body) < 2 + 8  # a new process starts, too


def test_what_a_body_submits_takes_a_slot_by_itself(tag: str) -> None:
    def body() -> Any:
        inner = bodies.narrow.with_options(tags=[tag])
        return bodies.submits_to.submit(inner).result()

    assert in_processes(body) == "ran"
