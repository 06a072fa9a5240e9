"""What may be a task: methods, functions that yield, coroutine functions; and where it may run."""

from __future__ import annotations

import asyncio
import logging
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel

from leasehold import current_lease, flow, get_run_logger, task
from leasehold.client import get_client
from leasehold.context import FlowRunContext, TaskRunContext, get_run_context
from leasehold.exceptions import MissingContextError, UnpicklableError
from leasehold.logging import disable_run_logger, get_logger
from leasehold.runtime import deployment, flow_run, task_run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class Loader:
    """Has tasks and flows of all kinds as methods."""

    def __init__(self, table: str) -> None:
        self.table = table

    @task
    def load(self, path: str) -> str:
        """Give what it would load."""
        return f"{path} into {self.table}"

    @task
    async def load_async(self, path: str) -> str:
        """Give the same, later."""
        return f"{path} into {self.table}"

    @task
    def items(self, count: int) -> Iterator[str]:
        """Yield."""
        for number in range(count):
            yield f"{self.table}-{number}"

    @task
    @staticmethod
    def plain(path: str) -> str:
        """Give the path."""
        return path

    @task
    @classmethod
    def of_class(cls, path: str) -> str:
        """Tell the class."""
        return f"{path} of {cls.__name__}"

    @flow
    def run(self, path: str) -> list[str]:
        """Call them all."""
        return [
            self.load(path),
            self.load.submit(path).result(),
            *self.load.map([path]).result(),
            *self.items.submit(1).result(),
            self.plain(path),
            self.of_class(path),
            self.of_class.submit(path).result(),
        ]


@task
def top_level(number: int) -> int:
    return number


@flow
def top_flow() -> int:
    return 1


def test_methods_class_methods_and_static_methods_are_tasks() -> None:
    loader = Loader("orders")
    assert loader.run("a.csv") == [
        *["a.csv into orders"] * 3,
        "orders-0",
        "a.csv",
        *["a.csv of Loader"] * 2,
    ]
    assert asyncio.run(loader.load_async("b.csv")) == "b.csv into orders"
    assert loader.load.fn("c.csv") == "c.csv into orders"
    assert Loader.of_class("d.csv") == "d.csv of Loader"


def test_a_task_that_yields_gives_its_items_one_by_one() -> None:
    seen = []

    @task
    def items() -> Iterator[int]:
        for number in range(3):
            seen.append(number)
            yield number

    stream = items()
    assert next(stream) == 0
    assert seen == [0]
    assert list(stream) == [1, 2]


def test_a_submitted_task_that_yields_gives_a_list() -> None:
    @task
    async def items() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    @flow
    def collect() -> Any:
        return items.submit().result()

    async def direct() -> list[int]:
        return [item async for item in items()]

    assert collect() == [0, 1, 2]
    assert asyncio.run(direct()) == [0, 1, 2]


def test_a_task_that_yields_holds_its_slot_until_its_end_or_its_consumer_leaves() -> None:
    def used() -> int:
        with get_client(sync_client=True) as client:
            return client.read_global_concurrency_limit_by_name("tag:narrow").active_slots

    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("narrow", 1)

    @task(tags=["narrow"])
    def items() -> Iterator[Any]:
        yield current_lease() is not None
        yield "more"

    @flow
    def consume() -> Any:
        stream: Any = items()
        first = next(stream)
        outside = current_lease(), TaskRunContext.get()
        during = used()
        stream.close()
        return first, outside, during

    assert consume() == (True, (None, None), 1)
    assert used() == 0


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_consumer_that_leaves_is_no_failure_of_the_task_that_yields(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    ended = []

    @task(on_completion=[lambda *_: ended.append("completed")])
    def items() -> Iterator[int]:
        yield 1
        yield 2

    @task(on_completion=[lambda *_: ended.append("completed")])
    async def items_async() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def leave() -> None:
        stream: Any = items_async()
        await anext(stream)
        await stream.aclose()

    if kind == "sync":
        for _ in items():
            break
    else:
        asyncio.run(leave())
    assert ended == ["completed"]
    assert [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING] == []


def test_a_task_that_yields_may_fail_and_be_sent_values() -> None:
    @task
    def talks() -> Iterator[Any]:
        answer = yield "question"
        yield answer
        raise ZeroDivisionError("after that")

    stream: Any = talks()
    assert next(stream) == "question"
    assert stream.send("answer") == "answer"
    with pytest.raises(ZeroDivisionError, match="after that"):
        next(stream)


def test_async_tasks_run_on_trio_too() -> None:
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit("narrow", 1)

    @task(tags=["narrow"], timeout_seconds=20)
    async def body(number: int) -> int:
        await trio.lowlevel.checkpoint()
        return number

    assert trio.run(body, 3) == 3


def test_a_task_outside_of_a_flow_is_a_run_as_well() -> None:
    @task
    def body() -> Any:
        run = get_run_context().task_run
        assert run is not None
        return task_run.task_name, flow_run.id, run.run_count

    assert body() == ("body", None, 1)


def test_the_run_context_is_there_only_inside() -> None:
    with pytest.raises(MissingContextError):
        get_run_context()
    with pytest.raises(MissingContextError, match=r"get_logger\(\)"):
        get_run_logger()
    assert FlowRunContext.get() is None
    assert (task_run.id, task_run.tags, task_run.parameters, flow_run.run_count) == (
        None,
        [],
        {},
        0,
    )
    assert deployment.id is None
    with pytest.raises(AttributeError, match="colour"):
        task_run.colour  # noqa: B018 - looking is what fails


def test_the_run_context_names_task_and_flow() -> None:
    @task(task_run_name="inner")
    def body(a: int, b: int = 2) -> Any:
        context = get_run_context()
        assert context.flow_run is not None
        return context.name, context.flow_run.name, task_run.parameters, flow_run.flow_name

    @flow(name="outer flow", flow_run_name="outer")
    def outer() -> Any:
        return body.submit(1).result()

    assert outer() == ("inner", "outer", {"a": 1, "b": 2}, "outer flow")


def test_loggers_of_runs_carry_the_run(caplog: pytest.LogCaptureFixture) -> None:
    @task(task_run_name="load")
    def body() -> Any:
        get_run_logger().warning("rows: %d", 3, extra={"rows": 3})
        return task_run.id

    identity = body()
    (line,) = [one for one in caplog.records if "rows: 3" in one.getMessage()]
    assert (line.name, line.getMessage()) == ("leasehold.task_runs", "rows: 3")
    fields = line.__dict__
    assert (fields["task_run_name"], fields["task_run_id"]) == ("load", identity)
    assert (fields["task_name"], fields["rows"]) == ("body", 3)
    assert get_logger("mine").name == "leasehold.mine"
    assert isinstance(get_logger(), logging.Logger)


def test_the_run_logger_can_be_silenced_for_tests_of_the_function_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @task
    def body() -> int:
        get_run_logger().error("not heard")
        return 1

    with disable_run_logger():
        assert body.fn() == 1
    assert caplog.records == []


def test_tasks_and_flows_pickle_by_name() -> None:
    assert pickle.loads(pickle.dumps(top_level)) is top_level
    assert pickle.loads(pickle.dumps(top_flow)) is top_flow
    loader = pickle.loads(pickle.dumps(Loader("orders").load))
    assert loader.fn("a.csv") == "a.csv into orders"
    with pytest.raises(UnpicklableError, match="top of the module"):
        pickle.dumps(task(lambda: 1))


def test_a_function_written_in_c_may_be_a_task_although_it_does_not_say_what_it_takes() -> None:
    assert task(max)(1, 3, 2) == 3
