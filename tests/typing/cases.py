"""What type checkers see of tasks and flows. Checked by mypy and pyright; never run.

Each `type: ignore` and `pyright: ignore` is an error that must be found: both are told to complain
about needless ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import assert_type

from leasehold import as_completed, concurrency, flow, task, unmapped, wait
from leasehold.futures import PrefectFuture, PrefectFutureList
from leasehold.states import State
from leasehold.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

if TYPE_CHECKING:
    from collections.abc import Iterator


@task
def bare(path: str, rows: int = 1) -> int:
    return len(path) * rows


@task(
    name="load", tags=["database"], retries=2, retry_delay_seconds=[1, 10], on_lease_lost="cancel"
)
def load(path: str) -> bytes:
    return path.encode()


@task
async def fetch(url: str) -> bytes:
    return url.encode()


@task
def items(count: int) -> Iterator[int]:
    yield from range(count)


def untyped() -> Any:
    return 1


untyped_task = task(untyped)
untyped_flow = flow(untyped)


@flow(task_runner=ThreadPoolTaskRunner(max_workers=4), retries=1, log_prints=True)
def etl(paths: list[str]) -> int:
    return len(paths)


@flow(task_runner=ProcessPoolTaskRunner)
async def crawl(urls: list[str]) -> list[bytes]:
    return [await fetch(url) for url in urls]


def calls() -> None:
    assert_type(bare("a", rows=2), int)
    assert_type(load("a"), bytes)
    assert_type(list(items(3)), list[int])
    assert_type(etl(["a"]), int)
    assert_type(bare("a", return_state=True), State[int])
    assert_type(etl(["a"], return_state=True), State[int])
    assert_type(untyped_task(return_state=True), State[Any])
    assert_type(untyped_flow(return_state=True), State[Any])
    bare(1)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    bare()  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    etl("a")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]


async def awaited() -> None:
    assert_type(await fetch("u"), bytes)
    assert_type(await fetch("u", return_state=True), State[bytes])
    assert_type(await crawl(["u"]), list[bytes])
    assert_type(await crawl(["u"], return_state=True), State[list[bytes]])
    await fetch(1)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]


def submitted() -> None:
    future = load.submit("a")
    assert_type(future, PrefectFuture[bytes])
    assert_type(future.result(timeout=1), bytes)
    assert_type(load.submit(future, wait_for=[future], return_state=True), State[bytes])
    assert_type(fetch.submit("u"), PrefectFuture[bytes])
    futures = load.map(["a", "b"], table=unmapped("orders"))
    assert_type(futures, PrefectFutureList[bytes])
    assert_type(futures.result(), list[bytes])
    assert_type(fetch.map(["u"]).result(), list[bytes])
    assert_type(load.map(["a"], return_state=True), list[State[bytes]])
    for ended in as_completed(futures):
        assert_type(ended, PrefectFuture[bytes])
    done, not_done = wait(futures, timeout=1)
    assert_type(done | not_done, set[PrefectFuture[bytes]])
    assert_type(wait(futures).done, set[PrefectFuture[bytes]])
    assert_type(wait(futures).not_done.pop().result(), bytes)
    of_different_types = [load.submit("a"), bare.submit("a")]
    wait(of_different_types)
    as_completed(of_different_types)


def options() -> None:
    assert_type(bare.with_options(name="other")("a"), int)
    assert_type(load.fn("a"), bytes)
    task(retries="many")(load.fn)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    task(cache_policy=None)(load.fn)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]


async def blocks() -> None:
    assert_type(await fetch.fn("u"), bytes)
    with concurrency("database", occupy=2) as lease:
        assert_type(lease.remaining(), float)
    async with concurrency(["a", "b"], timeout_seconds=1):
        pass
