"""Old Prefect clients and ours, at once, under one limit of a new server."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from leasehold.client import get_client
from places import assert_all_back
from servers import PrefectServer, install

if TYPE_CHECKING:
    from collections.abc import Iterator

OLD_CLIENT = Path(__file__).with_name("old_client.py")
OUR_CLIENT = Path(__file__).parent.parent / "scenarios" / "worker.py"
LIMIT, OLD_TASKS, OUR_TASKS = 3, 6, 60


@pytest.fixture(scope="module", params=["3.4.25", "3.8.8"])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """Start a server that has old clients ask again after a second instead of half a minute."""
    often = {
        "PREFECT_TASK_RUN_TAG_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
        "PREFECT_SERVER_TASKS_TAG_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
    }
    server = PrefectServer(request.param, env=often).start()
    yield server.url
    server.stop()


def start(
    python: Path | str, script: Path, tag: str, tasks: int, log: Path
) -> subprocess.Popen[bytes]:
    command = [str(python), str(script), tag, str(tasks), str(log)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_until(log: Path, word: str, seconds: float = 90) -> None:
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        if log.exists() and word in log.read_text():
            return
        time.sleep(0.05)
    pytest.fail(f"no {word!r} within {seconds} s")


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("old_version", ["3.0.11", "3.4.18"])
def test_old_clients_and_ours_share_a_limit_exactly(
    server: str, old_version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag, log = f"shared with {old_version}", tmp_path / "log"
    monkeypatch.setenv("PREFECT_API_URL", server)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "ERROR")
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit(tag, LIMIT)

    fleet = [start(install(old_version) / "python", OLD_CLIENT, tag, OLD_TASKS, log)]
    wait_until(log, "+1 prefect")
    fleet += [start(sys.executable, OUR_CLIENT, tag, OUR_TASKS, log) for _ in range(2)]
    for one in fleet:
        output, _ = one.communicate(timeout=200)
        assert one.returncode == 0, output.decode()

    running, peak, mixed = {"prefect": 0, "ours": 0}, 0, 0
    lines = sorted(line.split() for line in log.read_text().splitlines())
    for _, sign, *whose in lines:
        running[whose[0] if whose else "ours"] += int(sign)
        peak = max(peak, sum(running.values()))
        mixed += all(running.values())
    assert sum(sign == "+1" for _, sign, *_ in lines) == OLD_TASKS + 2 * OUR_TASKS
    assert mixed, "they never ran side by side"
    assert peak == LIMIT
    assert_all_back(tag)
