"""The default runner: what waits holds no thread, and costs little."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
import tracemalloc
from typing import Any

import pytest

from leasehold import as_completed, concurrency, flow, runs, tags, task
from leasehold.client import get_client
from leasehold.concurrency.hold import Hold
from leasehold.exceptions import DeadlockError, SettingsError, ZeroLimitError
from leasehold.task_runners import ConcurrentTaskRunner, ThreadPoolTaskRunner
from leasehold.task_runners.base import MOST_ASKED
from scenarios.gauges import wait_until


def make_limit(tag: str, size: int) -> None:
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit(tag, size)


def slots_in_use(tag: str) -> int:
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(f"tag:{tag}").active_slots


def test_with_four_workers_and_fifty_blocked_tasks_an_untagged_one_starts() -> None:
    make_limit("narrow", 1)
    go = threading.Event()

    @task(tags=["narrow"])
    def blocked(_: int) -> None:
        go.wait(30)

    @task
    def plain() -> float:
        return time.monotonic()

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
    def crowded() -> float:
        blocked.map(range(50))
        began = time.monotonic()
        seconds = plain.submit().result(timeout=20) - began
        go.set()
        return seconds

    assert crowded() < 1 + 1


def test_ten_thousand_waiting_tasks_cost_few_threads_and_little_memory() -> None:
    make_limit("fifty", 50)
    go = threading.Event()

    @task(tags=["fifty"])
    def body(number: int) -> int:
        go.wait(30)
        return number

    @flow
    def many() -> tuple[float, int, list[int]]:
        body.submit(-1)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        futures = body.map(range(10_000))
        time.sleep(0.5)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        threads = threading.active_count()
        go.set()
        return (after - before) / 10_000, threads, futures.result()

    size, threads, results = many()
    assert size < 3 * 1024
    assert threads < 50 + 20
    assert results == list(range(10_000))
    assert slots_in_use("fifty") == 0


@pytest.mark.parametrize("workers", [2, None])
@pytest.mark.parametrize("size", [None, 1000])
def test_more_tasks_than_may_ask_at_once_all_run(size: int | None, workers: int | None) -> None:
    """Where it becomes known on the way that the tag has no limit, and where it has one."""
    if size is not None:
        make_limit("wide", size)

    @task(tags=["wide"])
    def body(number: int) -> int:
        return number

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=workers))
    def many() -> list[int]:
        return body.map(range(MOST_ASKED + 50)).result(timeout=50)

    assert many() == list(range(MOST_ASKED + 50))


@pytest.mark.parametrize("size", [None, 1000])
def test_as_many_run_at_once_as_the_limit_allows(size: int | None) -> None:
    if size is not None:
        make_limit("wide", size)
    together = threading.Barrier(MOST_ASKED + 50)

    @task(tags=["wide"])
    def body(_: int) -> None:
        together.wait(40)

    @flow
    def many() -> None:
        body.map(range(together.parties)).result()

    many()


def test_a_submit_that_is_interrupted_leaves_no_run_open() -> None:
    once = pytest.MonkeyPatch()

    def interrupt(_: object) -> None:
        once.undo()
        raise KeyboardInterrupt

    @task(tags=["narrow"])
    def body() -> None:
        raise AssertionError("nobody has its future")

    @flow
    def interrupted() -> None:
        once.setattr(runs.TaskRun, "show", interrupt)
        with pytest.raises(KeyboardInterrupt):
            body.submit()

    interrupted()


@pytest.mark.parametrize("another_joins", ["amid", "after"])
def test_a_run_stays_in_line_when_who_let_it_ask_is_interrupted(another_joins: str) -> None:
    once = pytest.MonkeyPatch()
    make_limit("narrow", 5)
    go, done, joined = threading.Event(), threading.Event(), threading.Event()

    @task(tags=["narrow"])
    def body(number: int) -> int:
        go.wait(20)
        return number

    def interrupt(_: object) -> None:
        once.undo()
        done.set()
        if another_joins == "amid":
            joined.wait(20)
        raise KeyboardInterrupt

    with ThreadPoolTaskRunner(max_workers=1) as runner:
        first = runner.submit(body, {"number": 0})
        wait_until(lambda: first.state.is_running())  # noqa: PLW0108 - each time another one
        second = runner.submit(body, {"number": 1})  # there is no worker for it yet
        once.setattr(Hold, "start", interrupt)
        go.set()
        assert done.wait(20)
        if another_joins == "after":
            second.wait(timeout=20)
        third = runner.submit(body, {"number": 2})
        joined.set()
        assert [run.result(timeout=20) for run in (first, second, third)] == [0, 1, 2]
        wait_until(lambda: not runner.open_futures())
    wait_until(lambda: slots_in_use("narrow") == 0)


def test_thousands_that_cannot_have_slots_fail_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    @task(tags=["wide"])
    def body(_: int) -> None:
        raise AssertionError("it has no slot")

    @flow
    def many() -> list[str]:
        states = body.map(range(3000), return_state=True)
        return sorted({type(state.result(raise_on_failure=False)).__name__ for state in states})

    monkeypatch.setenv("LEASEHOLD_REQUEST_TIMEOUT_SECONDS", "soon")
    assert many() == ["SettingsError"]


def test_the_pause_before_a_retry_is_spent_without_the_slot() -> None:
    make_limit("narrow", 1)
    events: list[str] = []

    @task(tags=["narrow"], retries=1, retry_delay_seconds=2)
    def flaky() -> None:
        events.append("flaky")
        if events.count("flaky") == 1:
            raise OSError("not yet")

    @task(tags=["narrow"])
    def other() -> None:
        events.append("other")

    @flow
    def both() -> None:
        first = flaky.submit()
        while not first.state.is_scheduled():
            time.sleep(0.01)
        other.submit().result()
        first.result()

    both()
    assert events == ["flaky", "other", "flaky"]


def test_many_retries_wait_on_one_thread() -> None:
    tried: set[int] = set()
    threads = []

    @task(retries=1, retry_delay_seconds=1.5)
    def flaky(number: int) -> int:
        if number not in tried:
            tried.add(number)
            raise OSError("not yet")
        return number

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
    def many() -> list[int]:
        futures = flaky.map(range(200))
        while not all(future.state.is_scheduled() for future in futures):
            time.sleep(0.01)
        threads.append(threading.active_count())
        return futures.result()

    assert many() == list(range(200))
    assert threads[0] < 15


def test_slots_are_asked_for_after_the_inputs_are_there() -> None:
    make_limit("narrow", 1)
    used = []
    go = threading.Event()

    @task
    def first() -> int:
        go.wait(20)
        return 1

    @task(tags=["narrow"])
    def second(value: int) -> int:
        return value + 1

    @flow
    def chain() -> int:
        result = second.submit(first.submit())
        time.sleep(0.3)
        used.append(slots_in_use("narrow"))
        go.set()
        return result.result()

    assert chain() == 2
    assert used == [0]


def test_a_run_whose_input_failed_takes_no_slot() -> None:
    make_limit("narrow", 0)  # taking a slot of it would be an error of its own

    @task
    def fails() -> int:
        raise ZeroDivisionError

    @task(tags=["narrow"])
    def needs(value: int) -> int:
        return value

    @flow
    def chain() -> str:
        future = needs.submit(fails.submit())
        future.wait()
        return future.state.name

    assert chain() == "NotReady"


def test_a_limit_of_zero_is_a_clear_error() -> None:
    make_limit("closed", 0)

    @task(tags=["closed"])
    def never() -> None:
        pass

    with pytest.raises(ZeroLimitError, match="'closed'"):
        never()


def test_what_outlives_a_block_does_not_hold_its_slot_any_more() -> None:
    make_limit("narrow", 1)
    events: list[str] = []

    @task(tags=["narrow"])
    async def nested() -> None:
        events.append("nested")

    async def outlive(left: asyncio.Event) -> None:
        await left.wait()
        await nested()

    async def other(left: asyncio.Event) -> None:
        async with concurrency("tag:narrow"):
            left.set()
            await asyncio.sleep(0.5)
            events.append("given back")

    @task
    async def parent() -> None:
        left = asyncio.Event()
        async with concurrency("tag:narrow"):
            outliving = asyncio.create_task(outlive(left))
        await asyncio.gather(other(left), outliving)

    asyncio.run(parent())
    assert events == ["given back", "nested"]


def test_a_nested_call_uses_the_slot_of_its_parent() -> None:
    make_limit("narrow", 1)

    @task(tags=["narrow"])
    def inner() -> int:
        return slots_in_use("narrow")

    @task(tags=["narrow"])
    def outer() -> int:
        return inner()

    @flow
    def nested() -> int:
        return outer.submit().result(timeout=20)

    assert nested() == 1


def deadlock(limit: int, parents: int, *, through: str = "") -> list[Any]:
    """Have parents submit children of their own tag, and wait for them."""
    make_limit("narrow", limit)
    started = threading.Barrier(parents)

    @task(tags=["narrow"])
    def child() -> str:
        return "ran"

    @task
    def between() -> str:
        return child.submit().result()

    @flow
    def subflow() -> str:
        child.submit()
        return "ran"

    @task(tags=["narrow"])
    def parent() -> str:
        started.wait(20)
        if through == "a task":
            return between.submit().result()
        if through == "a flow":
            return subflow()
        if through == "as_completed":
            return next(as_completed([child.submit(), child.submit()])).result()
        return child.submit().result()

    @flow
    def family() -> list[Any]:
        futures = [parent.submit() for _ in range(parents)]
        return [future.result(timeout=30, raise_on_failure=False) for future in futures]

    return family()


@pytest.mark.parametrize("through", ["", "a task", "a flow", "as_completed"])
def test_a_submit_that_could_only_deadlock_raises_and_names_parent_and_tag(through: str) -> None:
    began = time.monotonic()
    (error,) = deadlock(1, 1, through=through)
    assert time.monotonic() - began < 1 + 3
    assert isinstance(error, DeadlockError)
    assert error.tag == "narrow"
    assert "'narrow'" in str(error)
    assert error.parent in str(error)


def test_a_parent_that_waits_for_the_first_of_several_is_stuck_only_when_all_are() -> None:
    make_limit("narrow", 1)

    @task(tags=["narrow"])
    def child() -> str:
        return "never"

    @task
    def free() -> str:
        time.sleep(1.2)
        return "free"

    @task(tags=["narrow"])
    def parent() -> str:
        return next(as_completed([child.submit(), free.submit()])).result()

    @flow
    def family() -> Any:
        return parent.submit().result(timeout=20)

    assert family() == "free"


def nested(runner: ThreadPoolTaskRunner, parents: int, *, wait: bool = True) -> list[Any]:
    """Have parents submit children to the same workers."""
    started = threading.Barrier(min(parents, 2))

    @task
    def child() -> str:
        return "ran"

    @task
    def parent() -> Any:
        started.wait(20)
        future = child.submit()
        return future.result() if wait else future.name

    @flow(task_runner=runner)
    def family() -> list[Any]:
        futures = [parent.submit() for _ in range(parents)]
        return [future.result(timeout=30, raise_on_failure=False) for future in futures]

    return family()


@pytest.mark.parametrize("workers", [1, 2])
def test_parents_that_occupy_all_workers_and_wait_for_more_are_told_within_a_second(
    workers: int,
) -> None:
    began = time.monotonic()
    results = nested(ThreadPoolTaskRunner(workers), workers)
    assert time.monotonic() - began < 1 + 3
    errors = [result for result in results if isinstance(result, DeadlockError)]
    assert 1 <= len(errors) <= workers
    assert all(result == "ran" for result in results if result not in errors)
    assert errors[0].tag is None
    assert "max_workers" in str(errors[0])
    assert errors[0].parent in str(errors[0])


def test_parents_that_leave_a_worker_free_or_do_not_wait_are_left_alone() -> None:
    assert nested(ThreadPoolTaskRunner(3), 2) == ["ran", "ran"]
    assert nested(ThreadPoolTaskRunner(), 6) == ["ran"] * 6
    names = nested(ThreadPoolTaskRunner(2), 2, wait=False)
    assert sorted(names) == ["child-1", "child-2"]


def test_parents_that_hold_all_slots_together_are_noticed_too() -> None:
    results = deadlock(2, 2)
    errors = [result for result in results if isinstance(result, DeadlockError)]
    assert 1 <= len(errors) <= 2
    assert all(result == "ran" for result in results if result not in errors)


def test_async_parents_are_noticed_too() -> None:
    import asyncio

    make_limit("narrow", 1)

    @task(tags=["narrow"])
    async def child() -> str:
        await asyncio.sleep(0)
        return "ran"

    @task(tags=["narrow"])
    async def parent() -> str:
        return await child.submit().result_async()

    @flow
    async def family() -> Any:
        future = parent.submit()
        await future.wait_async()
        return future.result(raise_on_failure=False)

    assert isinstance(asyncio.run(family()), DeadlockError)


def test_a_parent_that_leaves_a_slot_free_is_left_alone() -> None:
    assert deadlock(2, 1) == ["ran"]


def test_a_parent_may_submit_under_its_own_tag_when_it_does_not_wait() -> None:
    make_limit("narrow", 1)

    @task(tags=["narrow"])
    def child() -> str:
        return "ran"

    @task(tags=["narrow"])
    def parent() -> Any:
        return [child.submit()]

    @flow
    def family() -> str:
        (future,) = parent.submit().result(timeout=20)
        return str(future.result(timeout=20))

    assert family() == "ran"


def test_ctrl_c_cancels_what_waits_and_lets_finally_run() -> None:
    make_limit("narrow", 1)
    began, cleaned = threading.Event(), []
    futures: list[Any] = []

    @task(tags=["narrow"])
    def body(_: int) -> None:
        try:
            began.set()
            while True:
                time.sleep(0.01)
        finally:
            cleaned.append("body")

    @flow
    def interrupted() -> None:
        futures.extend(body.map(range(20)))
        began.wait(20)
        try:
            signal.raise_signal(signal.SIGINT)
            futures[0].wait()
        finally:
            cleaned.append("flow")

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - start < 5 + 1
    assert sorted(cleaned) == ["body", "flow"]
    assert {future.state.name for future in futures} == {"Cancelled"}
    assert slots_in_use("narrow") == 0


def test_ctrl_c_cancels_async_tasks_too() -> None:
    import asyncio

    began, cleaned = threading.Event(), []

    @task
    async def body() -> None:
        try:
            began.set()
            await asyncio.sleep(60)
        finally:
            cleaned.append("body")

    @flow
    def interrupted() -> None:
        future = body.submit()
        began.wait(20)
        signal.raise_signal(signal.SIGINT)
        future.wait()

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert cleaned == ["body"]


def test_a_failing_flow_cancels_what_waits_and_waits_for_what_runs() -> None:
    make_limit("narrow", 1)
    began, ran = threading.Event(), []
    futures: list[Any] = []

    @task(tags=["narrow"])
    def body(number: int) -> None:
        began.set()
        time.sleep(0.3)
        ran.append(number)

    @flow
    def failing() -> None:
        futures.extend(body.map(range(5)))
        began.wait(20)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert ran == [0]
    assert [future.state.name for future in futures] == ["Completed", *["Cancelled"] * 4]


def test_tags_of_the_enclosing_block_are_those_at_submission() -> None:
    seen = []

    @task(tags=["own"])
    def body() -> None:
        from leasehold.runtime import task_run

        seen.append(task_run.tags)

    @flow
    def tagged() -> None:
        with tags("outer"), tags("inner"):
            future = body.submit()
        future.wait()
        body.submit().wait()

    tagged()
    assert seen == [["inner", "outer", "own"], ["own"]]


def test_a_body_that_ends_its_thread_harms_no_other() -> None:
    @task
    def leaves() -> None:
        raise SystemExit(3)

    @task
    def stays() -> int:
        return 1

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
    def both() -> tuple[str, int]:
        first = leaves.submit()
        first.wait()
        return first.state.name, stays.submit().result(timeout=20)

    assert both() == ("Crashed", 1)


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_a_pool_has_at_least_one_worker(workers: Any) -> None:
    with pytest.raises(ValueError, match="max_workers must be a whole number above 0"):
        ThreadPoolTaskRunner(workers)


@pytest.mark.parametrize("name", ["TASKS_RUNNER", "TASK_RUNNER"])
def test_the_size_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    variable = f"PREFECT_{name}_THREAD_POOL_MAX_WORKERS"
    monkeypatch.setenv(variable, "3")
    assert ThreadPoolTaskRunner()._max_workers == 3
    monkeypatch.setenv(variable, "0")
    with pytest.raises(SettingsError, match=variable):
        ThreadPoolTaskRunner()


def test_the_older_name_is_the_same_runner() -> None:
    assert ConcurrentTaskRunner is ThreadPoolTaskRunner
