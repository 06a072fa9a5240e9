"""Functions of the flow's author that are called when a run enters a state.

A hook gets the task or flow, the run, and the state. One that raises is told of, and changes
nothing. An async hook runs in an event loop of its own.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from leasehold.exceptions import OptionError
from leasehold.logging import logger_about

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from leasehold.context import RunContext
    from leasehold.states import State


def checked(owner: str, option: str, hooks: Iterable[Callable[..., Any]] | None) -> list[Any]:
    """Check that hooks can be called.

    Raises:
        OptionError: one cannot, or a lone function was given where a list is wanted.
    """
    if callable(hooks):
        raise OptionError(
            f"{owner}: {option} must be a list of functions: write {option}=[{_name(hooks)}].",
            option=option,
            value=hooks,
        )
    every = list(hooks or ())
    for hook in every:
        if not callable(hook):
            raise OptionError(
                f"{owner}: {option} must hold functions; got {hook!r}.", option=option, value=hook
            )
    return every


def call(hooks: Iterable[Any], subject: Any, run: RunContext, state: State[Any]) -> None:
    """Call hooks one after the other."""
    for hook in hooks:
        _call_one(hook, subject, run, state)


def _call_one(hook: Any, subject: Any, run: RunContext, state: State[Any]) -> None:
    try:
        finish(hook(subject, run, state))
    except Exception as error:  # noqa: BLE001 - hooks are anybody's code
        logger_about(run).warning(
            "The hook %s failed; the run goes on.", _name(hook), exc_info=error
        )


def finish(value: Any) -> Any:
    """Wait for what a function gave, if that must be awaited."""
    if not inspect.isawaitable(value):
        return value
    import asyncio
    import concurrent.futures

    async def finished() -> Any:
        return await value

    if asyncio._get_running_loop() is None:  # noqa: SLF001 - public in asyncio's documentation
        return asyncio.run(finished())
    with concurrent.futures.ThreadPoolExecutor(1, "leasehold-hook") as pool:
        return pool.submit(asyncio.run, finished()).result()


def _name(hook: Any) -> str:
    return getattr(hook, "__qualname__", None) or repr(hook)
