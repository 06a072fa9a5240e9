"""Tasks and flows that yield: the run lasts from the first item to the last.

A task holds its slots meanwhile. A run that is retried begins anew, and gives its first items
again. What the consumer does between two items happens outside of the run: neither its logger nor
its slots are in force there, and a time limit does not count it.
"""

from __future__ import annotations

import contextvars
import inspect
import time
from contextlib import aclosing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from leasehold import interrupts
from leasehold.concurrency.lease import held
from leasehold.context import entered
from leasehold.logging import set_up_console
from leasehold.runs import Attempt

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
    from contextlib import AbstractContextManager

    from leasehold.concurrency.lease import Lease
    from leasehold.runs import TaskRun


def _driven(
    items: Generator[Any, Any, Any],
    call: Callable[..., Any],
    close: Callable[[Callable[[], Any]], Any],
) -> Generator[Any, Any, Any]:
    """Do what `yield from` does, with `call` around every step and `close` around the end."""
    step, given = items.send, None
    try:
        while True:
            try:
                item = call(step, given)
            except StopIteration as stop:
                return stop.value
            try:
                step, given = items.send, (yield item)
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - the body's to deal with
                step, given = items.throw, error
    finally:
        close(items.close)


def apart(body: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Run what yields in a context of its own, which the consumer between two items is not in."""
    context = contextvars.copy_context()
    return (yield from _driven(body, context.run, context.run))


def limited(
    items: Generator[Any, Any, Any], seconds: float | None, who: str
) -> Generator[Any, Any, Any]:
    """Give the items of what may take only so long for all of them.

    Args:
        items: what yields.
        seconds: the most it may take, in seconds; None: no end.
        who: what messages call it.

    Raises:
        RunTimeoutError: it took longer.
    """
    if seconds is None:
        return items
    return _driven(items, interrupts.Budget(seconds, who).call, lambda close: close())


def run_generator(run: TaskRun, wait_for: Iterable[Any] = ()) -> Generator[Any, Any, Any]:
    """Run a task that yields, item by item."""
    return apart(_attempts(run, wait_for))


def _attempts(run: TaskRun, wait_for: Iterable[Any]) -> Generator[Any, Any, Any]:
    set_up_console()
    ready = run.prepare(wait_for)
    while ready and not run.ended:
        if run.delay_seconds:
            time.sleep(run.delay_seconds)
        with Attempt(run) as this, this.hold:
            run.started()
            args, kwargs = run.context.arguments
            items = run.task.fn(*args, **kwargs)
            this.value = yield from limited(items, run.task.timeout_seconds, run.context.name)
    return run.state.outcome()


async def stepwise(
    items: AsyncGenerator[Any, None],
    inside: Callable[[], AbstractContextManager[Any]],
    budget: interrupts.Budget,
) -> AsyncGenerator[Any, None]:
    """Give the items of what yields; `inside` is entered for each of its steps alone.

    An async generator has no context of its own: it runs in that of its consumer.
    """
    try:
        while True:
            with inside():
                try:
                    item = await budget.call_async(anext, items)
                except StopAsyncIteration:
                    return
            yield item
    finally:
        with inside():
            await items.aclose()


async def run_async_generator(
    run: TaskRun, wait_for: Iterable[Any] = ()
) -> AsyncGenerator[Any, None]:
    """Run an async task that yields, item by item."""
    set_up_console()
    ready = run.prepare(wait_for)
    while ready and not run.ended:
        if run.delay_seconds:
            import anyio

            await anyio.sleep(run.delay_seconds)
        async with aclosing(_attempt_async(run)) as items:
            async for item in items:
                yield item
    run.state.outcome()


async def _attempt_async(run: TaskRun) -> AsyncGenerator[Any, None]:
    outside = held.get()
    try:
        async with run.hold() or nullcontext() as lease:
            inside = (*outside, lease) if lease is not None else outside
            run.started()
            args, kwargs = run.context.arguments
            budget = interrupts.Budget(run.task.timeout_seconds, run.context.name)
            body = run.task.fn(*args, **kwargs)
            async with aclosing(
                stepwise(body, lambda: _inside(run, inside, outside), budget)
            ) as items:
                async for item in items:
                    yield item
    except BaseException as error:
        run.raised(error)
        if not isinstance(error, Exception):
            raise
    else:
        run.returned(None)


@contextmanager
def _inside(run: TaskRun, inside: tuple[Lease, ...], outside: tuple[Lease, ...]) -> Iterator[None]:
    with entered(run.context):
        held.set(inside)
        try:
            yield
        finally:
            held.set(outside)


def collected(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that yields give a list of its items, for where nobody consumes them."""
    if inspect.isasyncgenfunction(function):

        async def collect_async(*args: Any, **kwargs: Any) -> list[Any]:
            return [item async for item in function(*args, **kwargs)]

        return collect_async

    def collect(*args: Any, **kwargs: Any) -> list[Any]:
        return list(function(*args, **kwargs))

    return collect
