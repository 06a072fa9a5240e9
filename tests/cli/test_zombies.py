"""`leasehold doctor`, on zombies made for real."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest

from cli.running import run, run_json
from leasehold.client import get_client
from leasehold.client.dialect import TAG_CALLS
from leasehold.client.http import SyncApi
from leasehold.client.wire import Holder, SlotRequest
from leasehold.concurrency import concurrency
from leasehold.settings import load
from places import EMBEDDED, EVERYWHERE, UNIFIED, assert_all_back, occupy, places, settings_of
from servers import PrefectServer, install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OLD_FLOW = Path(__file__).parent.parent / "dialects" / "old_client.py"

#: What an old client does: it takes a slot by the old call, and works until it is killed.
OLD_CLIENT = """
import sys, time, httpx
url, tag, run = sys.argv[1:]
body = {"names": [tag], "task_run_id": run}
for _ in range(100):
    reply = httpx.post(f"{url}/concurrency_limits/increment", json=body)
    if reply.status_code != 503:
        break
assert reply.status_code == 200, reply.text
print("holding", flush=True)
time.sleep(100)
"""


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    settings = settings_of(request.param, request, tmp_path)
    if settings.api_url is not None:
        monkeypatch.setenv("PREFECT_API_URL", settings.api_url)
    return settings.api_url or EMBEDDED


@pytest.fixture
def tag(place: str) -> Iterator[str]:
    tag = f"doctor ü {uuid.uuid4().hex[:8]}"
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit(tag, 2)
        yield tag
        client.delete_concurrency_limit_by_tag(tag)


def doctor(tag: str, *args: str, code: int = 1) -> list[dict[str, Any]]:
    """Run the doctor on one tag: servers are shared, and other tests may leave things behind."""
    found: list[dict[str, Any]] = run_json(
        "doctor", tag, "--wait", "0.2", "--json", *args, code=code
    )
    return found


def assert_healthy(tag: str) -> None:
    """Require that all forms of a limit agree that it is free, and that its slots can be had."""
    assert doctor(tag, code=0) == []
    shown = run_json("limit", "inspect", tag, "--json")
    assert (shown["used"], shown["active_slots"]) == (0, [])
    with (
        concurrency(f"tag:{tag}", timeout_seconds=10),
        concurrency(f"tag:{tag}", timeout_seconds=10),
    ):
        pass


def kill_an_old_client(url: str, tag: str) -> uuid.UUID:
    """Have an old client take a slot, and kill it."""
    run_id = uuid.uuid4()
    command = [sys.executable, "-c", OLD_CLIENT, url, tag, str(run_id)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"holding\n"
        client.kill()
    return run_id


@pytest.mark.parametrize("place", EVERYWHERE, indirect=True)
def test_limits_at_work_are_healthy(tag: str) -> None:
    with concurrency(f"tag:{tag}"):
        assert doctor(tag, code=0) == []
        assert "Nothing is wrong" in run("doctor", tag).stdout


@pytest.mark.parametrize("place", places("3.8.8", "3.0.11", "3.4.18", "3.4.25"), indirect=True)
def test_a_slot_of_an_old_client_that_was_killed_is_found_and_taken_back(
    place: str, tag: str
) -> None:
    run_id = kill_an_old_client(place, tag)
    (found,) = doctor(tag)
    assert (found["kind"], found["holder"]) == ("stale holder", str(run_id))
    assert (found["suspicion"], found["mended"]) == (False, False)
    assert run_json("limit", "inspect", tag, "--json")["used"] == 1

    told = run("doctor", tag, "--wait", "0", "--fix").stdout
    assert "before: 1 of 2 slots in use, 1 task run listed" in told
    assert "after:  0 of 2 slots in use, 0 task runs listed" in told
    assert_healthy(tag)


@pytest.mark.slow
@pytest.mark.parametrize("place", places("3.8.8", "3.4.25", "3.4.18"), indirect=True)
def test_a_killed_run_of_prefects_is_believed_until_it_is_said_to_have_crashed(
    place: str, tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    log = tmp_path / "log"
    command = [str(install("3.4.18") / "python"), str(OLD_FLOW), tag, "1", str(log)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as client:  # type: ignore[call-overload]
        until(lambda: log.exists() and "+1" in log.read_text())
        until(lambda: holder_of(tag)["state"] == "Running")  # the server hears of it later
        client.kill()
    holder = holder_of(tag)
    assert doctor(tag, code=0) == []

    known = httpx.post(
        f"{place}/task_runs/filter", json={"task_runs": {"id": {"any_": [holder["id"]]}}}
    ).json()
    crashed = {"state": {"type": "CRASHED", "name": "Crashed"}, "force": True}
    httpx.post(f"{place}/flow_runs/{known[0]['flow_run_id']}/set_state", json=crashed)
    (found,) = doctor(tag, "--fix", code=0)
    assert (found["kind"], found["before"]["used"], found["after"]["used"]) == (
        "stale holder",
        1,
        0,
    )
    assert_healthy(tag)


def holder_of(tag: str) -> dict[str, Any]:
    (holder,) = run_json("limit", "inspect", tag, "--json")["holders"]
    return dict(holder)


def until(true: Callable[[], Any], seconds: float = 90) -> None:
    give_up_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up_at, "it did not come true in time"
        time.sleep(0.1)


@pytest.mark.parametrize("place", places(*reversed(UNIFIED)), indirect=True)
def test_what_a_reset_on_the_servers_side_leaves_is_a_suspicion_that_takes_force(
    place: str, tag: str
) -> None:
    with get_client(sync_client=True) as client:
        occupy(client, f"tag:{tag}", uuid.uuid4())
        occupy(client, f"tag:{tag}", uuid.uuid4())
    reset = f"{place}/concurrency_limits/tag/{quote(tag, safe='')}/reset"
    assert httpx.post(reset, json={}).status_code == 200

    (found,) = doctor(tag, "--fix")
    assert (found["kind"], found["slots"]) == ("unlisted slots", 2)
    assert (found["suspicion"], found["mended"]) == (True, False)
    assert "--fix --force" in run("doctor", tag, "--wait", "0", "--fix", code=1).stderr
    (found,) = doctor(tag, "--fix", "--force", code=0)
    assert (found["before"]["used"], found["after"]["used"]) == (2, 0)
    assert_healthy(tag)


@pytest.mark.slow
@pytest.mark.parametrize("version", UNIFIED)
@pytest.mark.server
def test_what_a_restart_of_the_server_leaves_is_found(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = PrefectServer(version).start()
    try:
        monkeypatch.setenv("PREFECT_API_URL", server.url)
        run("limit", "create", "database", "2")
        with get_client(sync_client=True) as client:
            occupy(client, "tag:database", uuid.uuid4(), slots=2)
        server.kill()
        server.start()
        told = run("doctor", "--wait", "0.2", code=1)
        assert "Suspicion: The counter of tag 'database' says 2 slots" in told.stdout
        told = run("doctor", "--wait", "0.2", "--fix", "--force")
        assert "1 found" in told.stdout
        assert_healthy("database")
        assert_all_back("database")  # else the guard would look for a server that is gone
    finally:
        server.stop()


@pytest.mark.parametrize("place", places(*reversed(UNIFIED)), indirect=True)
def test_a_holder_of_several_slots_is_no_zombie_and_mended_only_by_force(tag: str) -> None:
    with concurrency(f"tag:{tag}", occupy=2):
        (found,) = doctor(tag, "--fix")
        assert (found["kind"], found["suspicion"], found["mended"]) == (
            "unlisted slots",
            True,
            False,
        )
        assert run_json("limit", "inspect", tag, "--json")["used"] == 2


@pytest.mark.parametrize("place", EVERYWHERE, indirect=True)
def test_a_limit_of_0_is_explained_and_left_to_people(tag: str) -> None:
    run("limit", "update", tag, "0")
    (found,) = doctor(tag, "--fix")
    assert (found["kind"], found["mended"]) == ("size", False)
    assert f"leasehold limit update {tag!r} N" in found["explanation"]


@pytest.mark.parametrize("place", places("3.8.8", "3.4.25"), indirect=True)
def test_slots_that_are_held_and_not_counted_are_counted_again(tag: str) -> None:
    with concurrency(f"tag:{tag}"):
        run("gcl", "update", f"tag:{tag}", "--active-slots", "0")
        (found,) = doctor(tag, "--fix", code=0)
        assert found["kind"] == "uncounted slots"
        assert (found["before"]["used"], found["after"]["used"]) == (0, 1)
    assert_healthy(tag)


@pytest.mark.parametrize("place", places("3.8.8", "3.0.11"), indirect=True)
def test_a_run_that_the_server_knows_is_judged_by_its_state(place: str, tag: str) -> None:
    flow = httpx.post(f"{place}/flows/", json={"name": "etl"}).json()
    flow_run = httpx.post(
        f"{place}/flow_runs/", json={"flow_id": flow["id"], "state": {"type": "RUNNING"}}
    ).json()
    task_run = httpx.post(
        f"{place}/task_runs/",
        json={
            "flow_run_id": flow_run["id"],
            "name": "load-1",
            "task_key": "load",
            "dynamic_key": "1",
            "state": {"type": "RUNNING", "name": "Running"},
        },
    ).json()
    wanted, holder = SlotRequest((f"tag:{tag}",)), Holder(uuid.UUID(task_run["id"]))
    with SyncApi(load()) as api:
        assert api.send(TAG_CALLS.acquire(wanted, holder)).status == 200
    (shown,) = run_json("limit", "inspect", tag, "--json")["holders"]
    assert (shown["name"], shown["state"], shown["has_ended"]) == ("load-1", "Running", False)
    assert "load-1" in run("limit", "inspect", tag).stdout
    assert doctor(tag, code=0) == []

    crashed = {"state": {"type": "CRASHED", "name": "Crashed"}, "force": True}
    httpx.post(f"{place}/flow_runs/{flow_run['id']}/set_state", json=crashed).raise_for_status()
    (found,) = doctor(tag, "--fix", code=0)
    assert "'load-1'" in found["explanation"]
    assert "in a flow run that is Crashed" in found["explanation"]
    assert_healthy(tag)


def test_force_alone_is_a_wrong_command_line() -> None:
    assert "--force needs --fix" in run("doctor", "--force", code=2).stderr


@pytest.mark.parametrize("place", [EMBEDDED], indirect=True)
def test_a_tag_without_a_limit_is_named(place: str) -> None:
    assert "'nowhere'" in run("doctor", "nowhere", code=1).stderr


@pytest.mark.parametrize("place", [EMBEDDED], indirect=True)
def test_without_limits_there_is_nothing_wrong(place: str) -> None:
    assert run_json("doctor", "--json") == []
    assert "limits looked at: 0" in run("doctor").stdout
