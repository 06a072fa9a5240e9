"""The fixtures for users' own tests."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from leasehold import concurrency, current_lease, flow, get_client, task
from leasehold.concurrency.sync import rate_limit
from leasehold.exceptions import (
    AcquireConcurrencySlotTimeoutError,
    LeaseLostError,
    LimitNotFoundError,
    ServerTooOldError,
)
from leasehold.testing import ManualClock

if TYPE_CHECKING:
    import respx

    from leasehold.testing import FakeServer


@task(tags=["database"])
def load(number: int) -> int:
    return number


@flow
def etl() -> Any:
    return load.map(range(5)).result()


def paths(server: FakeServer) -> list[str]:
    return [request.path.rpartition("/")[2] for request in server.requests]


def test_flows_talk_to_the_fake_server(leasehold_server: FakeServer) -> None:
    leasehold_server.limit("database", 2)
    assert etl() == [0, 1, 2, 3, 4]
    assert "increment-with-lease" in paths(leasehold_server)
    assert leasehold_server.limits == {"tag:database": 2}
    assert leasehold_server.used("database") == 0


def test_it_knows_who_holds_what(leasehold_server: FakeServer) -> None:
    leasehold_server.global_limit("gpu", 2)
    with concurrency("gpu"):
        assert leasehold_server.used("gpu") == 1
        assert len(leasehold_server.holders("gpu")) == 1
    assert leasehold_server.holders("gpu") == []
    with pytest.raises(LimitNotFoundError, match="'cpu'"):
        leasehold_server.used("cpu")


def test_clients_talk_to_it_too(leasehold_server: FakeServer) -> None:
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("database", 4)
    assert leasehold_server.limits == {"tag:database": 4}


def test_it_fails_when_it_is_told_to(leasehold_server: FakeServer) -> None:
    leasehold_server.limit("database", 1)
    leasehold_server.fail_next(503, times=2, path="increment-with-lease")
    assert load(1) == 1
    acquires = [one for one in leasehold_server.requests if "increment-with" in one.path]
    assert [one.status for one in acquires] == [503, 503, 200]
    assert acquires[0].body["names"] == ["tag:database"]


def test_leases_expire_when_it_is_told_to(leasehold_server: FakeServer) -> None:
    leasehold_server.global_limit("gpu", 1)
    with concurrency("gpu", on_lease_lost="ignore") as lease:
        leasehold_server.expire()
        assert lease.lost
        assert leasehold_server.used("gpu") == 0


def test_work_that_is_to_be_cancelled_hears_at_once_that_its_lease_expired(
    leasehold_server: FakeServer,
) -> None:
    leasehold_server.limit("database", 1)

    @task(tags=["database"], on_lease_lost="cancel")
    def checks() -> None:
        leasehold_server.expire()
        lease = current_lease()
        assert lease is not None
        lease.check()
        pytest.fail("the check should have raised")

    @task(tags=["database"], on_lease_lost="cancel")
    async def awaits() -> None:
        leasehold_server.expire()
        await asyncio.sleep(15)

    began = time.monotonic()
    with pytest.raises(LeaseLostError, match="does not know its lease any more"):
        checks()
    with pytest.raises(LeaseLostError):
        asyncio.run(awaits())
    with pytest.raises(LeaseLostError):
        flow(lambda: awaits.submit().result())()
    assert time.monotonic() - began < 5
    assert leasehold_server.used("database") == 0


def test_work_that_is_to_go_on_has_its_slot_again_soon_after_its_lease_expired(
    leasehold_server: FakeServer,
) -> None:
    leasehold_server.limit("database", 1)

    @task(tags=["database"])
    def stubborn() -> tuple[list[str], list[str]]:
        before = leasehold_server.holders("database")
        leasehold_server.expire()
        lease = current_lease()
        assert lease is not None
        while lease.lost:
            time.sleep(0.01)
        return before, leasehold_server.holders("database")

    began = time.monotonic()
    before, after = stubborn()
    assert time.monotonic() - began < 5
    assert len(before) == len(after) == 1


def test_leases_expire_when_its_clock_is_moved(
    leasehold_server: FakeServer, manual_clock: ManualClock
) -> None:
    leasehold_server.limit("database", 1)

    @task(tags=["database"])
    def slow() -> tuple[int, int]:
        before = leasehold_server.used("database")
        manual_clock.advance(61)
        return before, leasehold_server.used("database")

    assert slow() == (1, 0)


def test_slots_decay_with_its_clock(
    leasehold_server: FakeServer, manual_clock: ManualClock
) -> None:
    leasehold_server.global_limit("requests", 1, slot_decay_per_second=1 / 3600)
    rate_limit("requests")
    with pytest.raises(AcquireConcurrencySlotTimeoutError):
        rate_limit("requests", timeout_seconds=0)
    manual_clock.advance(3601)
    rate_limit("requests", timeout_seconds=5)


def test_it_behaves_as_an_old_server(leasehold_server: FakeServer) -> None:
    leasehold_server.as_version("2.20.3")
    with pytest.raises(ServerTooOldError, match=r"2\.20\.3"):
        load(1)


@pytest.mark.parametrize("version", ["3.0.11", "3.4.18"])
def test_old_servers_have_no_leases_for_tags(leasehold_server: FakeServer, version: str) -> None:
    leasehold_server.as_version(version)
    leasehold_server.limit("database", 1)
    body = {"names": ["tag:database"], "slots": 1, "lease_duration": 60}
    with httpx.Client(transport=leasehold_server, base_url="http://leasehold.test/api") as client:
        reply = client.post("/v2/concurrency_limits/increment-with-lease", json=body)
        old = client.post(
            "/concurrency_limits/increment",
            json={"names": ["database"], "task_run_id": "0f6ba5cf-8d1b-4ba8-8f2a-5ea0ba4ad3a4"},
        )
    if version == "3.0.11":
        assert reply.status_code == 405
    else:
        assert reply.json()["limits"] == []
    assert [limit["limit"] for limit in old.json()] == [1]
    assert leasehold_server.used("database") == 1


def test_the_router_answers_until_a_route_is_mocked(leasehold_router: respx.MockRouter) -> None:
    server: FakeServer = leasehold_router.server  # type: ignore[attr-defined] # as documented
    server.limit("database", 1)
    assert load(1) == 1
    assert leasehold_router["acquire"].call_count == 1
    assert server.used("database") == 0  # given back, not handed over to the next
    leasehold_router["acquire"].mock(return_value=httpx.Response(401))
    with pytest.raises(Exception, match="HTTP 401"):
        load(1)


def test_the_router_says_what_to_install_where_respx_is_missing(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("import sys\nsys.modules['respx'] = None\n")
    (tmp_path / "test_it.py").write_text("def test_it(leasehold_router): ...\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:respx"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert 'pip install "leasehold[testing]"' in done.stdout
    assert "1 error" in done.stdout
    assert "plugin.py" not in done.stdout  # no traceback


def test_a_lost_lease_can_be_tried_out(leasehold_router: respx.MockRouter) -> None:
    server: FakeServer = leasehold_router.server  # type: ignore[attr-defined] # as documented
    server.limit("database", 1)

    @task(tags=["database"], on_lease_lost="cancel")
    def careful() -> None:
        lease = current_lease()
        assert lease is not None
        lease.declare_lost("the test says so")
        lease.check()

    with pytest.raises(LeaseLostError, match="the test says so"):
        careful()


def test_a_clock_does_not_go_back() -> None:
    clock = ManualClock(start=5)
    clock.advance(2)
    assert clock() == 7
    with pytest.raises(ValueError, match="-1"):
        clock.advance(-1)


def test_the_example_runs_where_only_the_package_is_installed(tmp_path: Path) -> None:
    """The example file is run as a user would run it: no conftest, no settings of ours."""
    example = Path(__file__).parents[2] / "examples" / "your_own_tests.py"
    copy = tmp_path / "test_flows.py"
    copy.write_text(example.read_text())
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(copy)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_nothing_heavy_is_imported_before_a_fixture_is_used() -> None:
    code = (
        "import sys, pytest, leasehold.testing.plugin; "
        "print(sorted({'httpx', 'pydantic', 'respx', 'anyio'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout.strip() == "[]"


def test_time_stands_still_for_the_fake(
    leasehold_server: FakeServer, manual_clock: ManualClock
) -> None:
    before = manual_clock()
    time.sleep(0.01)
    assert manual_clock() == before
    assert leasehold_server.limits == {}
