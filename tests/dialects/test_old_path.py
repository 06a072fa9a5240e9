"""The old tag calls keep what the new path promises, wherever they can."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from leasehold import flow, task
from leasehold.client import get_client
from leasehold.client.dialect import TAG_CALLS
from leasehold.client.http import SyncApi
from leasehold.client.wire import Holder, SlotRequest
from leasehold.concurrency import concurrency
from leasehold.exceptions import AcquireConcurrencySlotTimeoutError, ZeroLimitError
from leasehold.settings import load
from leasehold.task_runners import ThreadPoolTaskRunner
from scenarios.gauges import Gauge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Servers tell old clients to come back after this long (PROTOCOL.md, "Legacy path").
SHORTEST_ADVICE_SECONDS = 10


@contextlib.contextmanager
def held_by_another(tag: str) -> Iterator[None]:
    """Hold a slot as another process does."""
    wanted, holder = SlotRequest((f"tag:{tag}",)), Holder(uuid.uuid4())
    undo = TAG_CALLS.undo(wanted, holder)
    assert undo is not None
    with SyncApi(load()) as api:
        assert api.send(TAG_CALLS.acquire(wanted, holder)).status == 200
        try:
            yield
        finally:
            assert api.send(undo).status == 200


def used(tag: str) -> int:
    with get_client(sync_client=True) as client:
        return client.read_concurrency_limit_use(tag).used


def test_no_more_tasks_run_than_the_limit_says(limit: Callable[[int], str]) -> None:
    tag, gauge = limit(3), Gauge()

    @task(tags=[tag])
    def body(_: int) -> None:
        gauge.work()

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=16))
    def many() -> None:
        body.map(range(20)).result()

    many()
    assert (gauge.runs, gauge.peak) == (20, 3)


def test_a_freed_slot_wakes_the_next_task_at_once_and_in_order(limit: Callable[[int], str]) -> None:
    tag, order = limit(1), []

    @task(tags=[tag])
    def body(number: int) -> None:
        order.append(number)

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
    def queue() -> None:
        body.map(range(20)).result()

    started = time.monotonic()
    queue()
    assert order == list(range(20))
    assert time.monotonic() - started < SHORTEST_ADVICE_SECONDS


def test_a_slot_that_another_process_frees_is_had_long_before_the_server_advises(
    limit: Callable[[int], str],
) -> None:
    tag = limit(1)
    freed_at = 0.0

    def free_later(hold: contextlib.ExitStack) -> None:
        nonlocal freed_at
        time.sleep(1.5)
        freed_at = time.monotonic()
        hold.close()

    with contextlib.ExitStack() as hold:
        hold.enter_context(held_by_another(tag))
        freeing = threading.Thread(target=free_later, args=[hold])
        freeing.start()
        with concurrency(f"tag:{tag}"):
            waited = time.monotonic() - freed_at
        freeing.join()
    assert 0 <= waited < SHORTEST_ADVICE_SECONDS / 2


def test_a_wait_ends_when_its_time_is_over(limit: Callable[[int], str]) -> None:
    tag = limit(1)
    started = time.monotonic()
    with (
        held_by_another(tag),
        pytest.raises(AcquireConcurrencySlotTimeoutError, match=tag),
        concurrency(f"tag:{tag}", timeout_seconds=1),
    ):
        pytest.fail("there is no slot")
    assert time.monotonic() - started < SHORTEST_ADVICE_SECONDS / 2


def test_a_cancelled_wait_leaves_nothing_behind(limit: Callable[[int], str]) -> None:
    tag = limit(1)

    async def wait_for_a_slot() -> None:
        async with concurrency(f"tag:{tag}"):
            pytest.fail("there is no slot")

    async def scenario() -> None:
        for pause in (0.0, 0.01, 0.2):
            waiting = asyncio.create_task(wait_for_a_slot())
            await asyncio.sleep(pause)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting

    with held_by_another(tag):
        asyncio.run(scenario())
        assert used(tag) == 1
    with concurrency(f"tag:{tag}", timeout_seconds=5):
        assert used(tag) == 1


def test_a_task_that_fails_gives_its_slot_back(limit: Callable[[int], str]) -> None:
    tag = limit(1)

    @task(tags=[tag])
    def body() -> None:
        raise ZeroDivisionError

    @flow
    def fails() -> None:
        body()

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            fails()


def test_giving_a_slot_back_twice_takes_nobody_elses(limit: Callable[[int], str]) -> None:
    tag = limit(2)
    wanted, holder = SlotRequest((f"tag:{tag}",)), Holder(uuid.uuid4())
    undo = TAG_CALLS.undo(wanted, holder)
    assert undo is not None
    with SyncApi(load()) as api, held_by_another(tag):
        assert api.send(TAG_CALLS.acquire(wanted, holder)).status == 200
        assert used(tag) == 2
        for _ in range(3):
            assert api.send(undo).status == 200
        assert used(tag) == 1


def test_a_limit_of_0_is_an_error_that_names_the_tag(limit: Callable[[int], str]) -> None:
    tag = limit(0)

    @task(tags=[tag])
    def body() -> None:
        pytest.fail("it must not run")

    @flow
    def never() -> None:
        body()

    with pytest.raises(ZeroLimitError, match=tag) as caught:
        never()
    assert caught.value.names == (f"tag:{tag}",)


@pytest.mark.parametrize(("guard", "safe"), [("false", False), ("true", True)])
def test_a_slot_is_safe_from_crashes_only_under_the_guard(
    limit: Callable[[int], str], *, guard: str, safe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASEHOLD_GUARD", guard)
    tag = limit(1)
    with concurrency(f"tag:{tag}") as lease:
        deadline = time.monotonic() + 10
        while lease.crash_safe is not safe and time.monotonic() < deadline:
            time.sleep(0.05)  # the guard starts beside the work
        assert lease.crash_safe is safe
        assert lease.id is None
        assert not lease.lost


def test_who_holds_a_slot_can_be_seen(limit: Callable[[int], str]) -> None:
    tag = limit(1)
    with (
        concurrency(f"tag:{tag}"),
        get_client(sync_client=True) as client,
    ):
        (holder,) = client.read_concurrency_limit_holders(tag)
    assert holder.is_ours
    assert holder.expires is False
    assert holder.since is not None
