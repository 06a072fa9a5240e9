"""Tasks that yield: the run lasts from the first item to the last, and holds its slots meanwhile.

A run that is retried begins anew, and gives its first items again. What the consumer does between
two items happens outside of the run: neither its logger nor its slots are in force there.
"""

from __future__ import annotations

import contextvars
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from leasehold.concurrency.lease import held
from leasehold.context import entered
from leasehold.logging import set_up_console
from leasehold.runs import Attempt

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterable

    from leasehold.runs import TaskRun


def run_generator(run: TaskRun, wait_for: Iterable[Any] = ()) -> Generator[Any, Any, Any]:
    """Run a task that yields, item by item."""
    context = contextvars.copy_context()
    body = _attempts(run, wait_for)
    step, given = body.send, None
    try:
        while True:
            try:
                item = context.run(step, given)
            except StopIteration as stop:
                return stop.value
            try:
                step, given = body.send, (yield item)
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - the body's to deal with
                step, given = body.throw, error
    finally:
        context.run(body.close)


def _attempts(run: TaskRun, wait_for: Iterable[Any]) -> Generator[Any, Any, Any]:
    set_up_console()
    ready = run.prepare(wait_for)
    while ready and not run.ended:
        if run.delay_seconds:
            time.sleep(run.delay_seconds)
        with Attempt(run) as this, this.hold:
            run.started()
            args, kwargs = run.context.arguments
            this.value = yield from run.task.fn(*args, **kwargs)
    return run.state.outcome()


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
        async for item in _attempt_async(run):
            yield item
    run.state.outcome()


async def _attempt_async(run: TaskRun) -> AsyncGenerator[Any, None]:
    outside = held.get()
    try:
        async with run.hold() or nullcontext() as lease:
            inside = (*outside, lease) if lease is not None else outside
            run.started()
            args, kwargs = run.context.arguments
            items = run.task.fn(*args, **kwargs)
            while True:
                with entered(run.context):
                    held.set(inside)
                    try:
                        item = await anext(items)
                    except StopAsyncIteration:
                        break
                    finally:
                        held.set(outside)
                yield item
    except BaseException as error:
        run.raised(error)
        if not isinstance(error, Exception):
            raise
    else:
        run.returned(None)
