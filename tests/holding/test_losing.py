"""What becomes of work whose lease is lost, by each of the three policies."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from leasehold import concurrency, current_lease, flow, task
from leasehold.client.http import SyncApi
from leasehold.concurrency import events, leases, on_event, process
from leasehold.exceptions import LeaseLostError
from leasehold.settings import load
from scenarios.gauges import slots_in_use, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from leasehold.concurrency.acquisition import OnLeaseLost
    from leasehold.concurrency.lease import Lease


def lose(lease: Lease) -> None:
    """Have the server forget a lease, and the keeper find out now."""
    release = lease.grant.release
    assert release is not None
    with SyncApi(load()) as api:
        while api.send(release).status == 503:
            time.sleep(0.1)
    running = process.running_keeper()
    assert running is not None
    care = running._tender._cares[lease]
    running._loop.call_soon_threadsafe(running._tender._start, care)


@pytest.fixture
def seen() -> Iterator[list[events.Event]]:
    """Collect what happens to slots."""
    seen: list[events.Event] = []
    stop = on_event(seen.append)
    yield seen
    stop()


def names(seen: list[events.Event]) -> list[str]:
    return [type(event).__name__ for event in seen]


def test_by_default_work_goes_on_and_gets_a_new_slot(
    limit: Callable[[int], str], seen: list[events.Event], caplog: pytest.LogCaptureFixture
) -> None:
    tag = limit(1)
    with caplog.at_level(logging.WARNING), concurrency(f"tag:{tag}") as lease:
        first = lease.id
        lose(lease)
        wait_until(lambda: lease.id != first)
        assert not lease.lost
        lease.check()
        assert lease.remaining() > 0
        assert slots_in_use(tag) == 1
    wait_until(lambda: slots_in_use(tag) == 0)
    wait_until(lambda: names(seen)[-1] == "Released")
    assert [name for name in names(seen) if name != "Renewed"] == [
        *("Acquired", "Lost", "Regained", "Released"),
    ]
    assert len(caplog.records) == 1


def test_a_block_that_is_to_be_cancelled_learns_it_by_check_and_at_its_end(
    limit: Callable[[int], str],
) -> None:
    tag = limit(1)
    checked: list[LeaseLostError] = []

    def work() -> None:
        with concurrency(f"tag:{tag}", on_lease_lost="cancel") as lease:
            lose(lease)
            wait_until(lambda: lease.lost)
            assert lease.remaining() == 0
            try:
                lease.check()
            except LeaseLostError as error:
                checked.append(error)

    with pytest.raises(LeaseLostError, match="not held any more") as at_its_end:
        work()
    assert len(checked) == 1
    assert at_its_end.value.names == (f"tag:{tag}",)
    assert at_its_end.value.renewed_seconds_ago >= 0
    wait_until(lambda: slots_in_use(tag) == 0)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_an_async_block_that_is_to_be_cancelled_is(loop: str, limit: Callable[[int], str]) -> None:
    tag = limit(1)
    cut_off = False

    async def main() -> None:
        nonlocal cut_off
        async with concurrency(f"tag:{tag}", on_lease_lost="cancel") as lease:
            await anyio.to_thread.run_sync(lose, lease)
            try:
                await anyio.sleep(30)
            except BaseException:
                cut_off = True
                raise

    started = time.monotonic()
    with pytest.raises(LeaseLostError):
        anyio.run(main, backend=loop)
    assert cut_off
    assert time.monotonic() - started < 10
    wait_until(lambda: slots_in_use(tag) == 0)


def test_a_loss_never_hides_the_error_of_the_body(limit: Callable[[int], str]) -> None:
    tag = limit(1)

    def work() -> None:
        with concurrency(f"tag:{tag}", on_lease_lost="cancel") as lease:
            lose(lease)
            wait_until(lambda: lease.lost)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_work_may_not_care(limit: Callable[[int], str], seen: list[events.Event]) -> None:
    tag = limit(1)
    with concurrency(f"tag:{tag}", on_lease_lost="ignore") as lease:
        lose(lease)
        wait_until(lambda: lease.lost)
        time.sleep(0.5)
        assert lease.lost
        assert slots_in_use(tag) == 0
    assert "Regained" not in names(seen)


@pytest.mark.parametrize("policy", ["regain", "ignore", "cancel"])
def test_each_task_has_its_policy(policy: OnLeaseLost, limit: Callable[[int], str]) -> None:
    tag = limit(1)

    @task(tags=[tag], on_lease_lost=policy)
    def work() -> bool:
        lease = current_lease()
        assert lease is not None
        first = lease.id
        lose(lease)
        wait_until(lambda: lease.id != first if policy == "regain" else lease.lost)
        return True

    @flow
    def run() -> bool:
        return work.submit().result()

    if policy == "cancel":
        with pytest.raises(LeaseLostError):
            run()
    else:
        assert run()
    wait_until(lambda: slots_in_use(tag) == 0)


def test_an_async_task_is_cancelled_when_it_is_to_be(limit: Callable[[int], str]) -> None:
    tag = limit(1)

    @task(tags=[tag], on_lease_lost="cancel")
    async def work() -> None:
        lease = current_lease()
        assert lease is not None
        await anyio.to_thread.run_sync(lose, lease)
        await anyio.sleep(30)

    @flow
    def run() -> None:
        work.submit().result()

    started = time.monotonic()
    with pytest.raises(LeaseLostError):
        run()
    assert time.monotonic() - started < 15
    wait_until(lambda: slots_in_use(tag) == 0)


def test_the_leases_of_the_process_are_listed(limit: Callable[[int], str]) -> None:
    tag = limit(2)
    held = threading.Barrier(3)
    done = threading.Event()

    def hold() -> None:
        with concurrency(f"tag:{tag}"):
            held.wait(20)
            done.wait(20)

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
    held.wait(20)
    try:
        listed = leases()
        assert [dict(lease.limits) for lease in listed] == [{f"tag:{tag}": 2}] * 2
        assert all(lease.age() >= 0 for lease in listed)
        assert all(0 < lease.remaining() < 300 for lease in listed)
        assert all(lease.last_error is None for lease in listed)
        assert len({lease.holder_id for lease in listed}) == 2
    finally:
        done.set()
        for thread in threads:
            thread.join(20)
    wait_until(lambda: leases() == [])


def test_a_hook_that_fails_changes_nothing(
    limit: Callable[[int], str], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: events.Event) -> None:
        raise ZeroDivisionError

    stop = on_event(fail)
    try:
        with concurrency(f"tag:{limit(1)}"):
            pass
        wait_until(lambda: "A hook for events of slots failed" in caplog.text)
    finally:
        stop()


def test_events_are_frozen_and_tell_times(
    limit: Callable[[int], str], seen: list[events.Event]
) -> None:
    name = f"tag:{limit(1)}"
    with concurrency(name):
        time.sleep(0.1)
    wait_until(lambda: len(seen) == 2)
    acquired, released = seen
    assert isinstance(acquired, events.Acquired)
    assert isinstance(released, events.Released)
    assert acquired.limits == (name,)
    assert acquired.holder_id == released.holder_id
    assert acquired.waited_seconds >= 0
    assert acquired.round_trip_seconds is not None
    assert released.held_seconds >= 0.1
    with pytest.raises(AttributeError):
        acquired.who = "somebody else"  # type: ignore[misc]
