"""Futures and states among a task's arguments: found, waited for, replaced by their results."""

from __future__ import annotations

import dataclasses
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final

from leasehold.exceptions import UpstreamFailedError
from leasehold.futures import PrefectFuture, PrefectFutureList
from leasehold.states import State
from leasehold.utilities.annotations import Annotation, allow_failure, opaque, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from leasehold.context import RunContext
    from leasehold.flows import Flow

#: What is certainly not searched: the usual arguments cost one look-up each.
_PLAIN: Final = frozenset({str, bytes, int, float, bool, type(None)})

_COLLECTIONS: Final = (list, tuple, set, frozenset)


def find(value: Any, kinds: tuple[type, ...] = (PrefectFuture,)) -> list[Any]:
    """Find the futures in a value: itself, or inside collections, dataclasses and marks."""
    return list(_walk(value, kinds)) if _may_hold(value) else []


def resolve(value: Any, whose: RunContext | Flow[Any, Any]) -> Any:
    """Replace futures and states in an argument by their results, waiting for futures.

    Args:
        value: the argument.
        whose: the run, or the flow, that it is for; for messages.

    Raises:
        UpstreamFailedError: one of them failed, and `allow_failure` is not around it.
    """
    if not _may_hold(value):
        return value
    return _replace(value, lambda one, allow_failed: _result(one, whose, allow_failed=allow_failed))


def consumed(value: Any) -> Any:
    """Work off what a function gave to be worked off later: its run ends with the last item."""
    return list(value) if isinstance(value, GeneratorType) else value


def settle(value: Any) -> Any:
    """Replace futures in a value by their last states, waiting for them."""
    if not _may_hold(value) or not find(value):
        return value
    return _replace(value, lambda one, _: _state(one))


def _may_hold(value: Any) -> bool:
    return type(value) not in _PLAIN


def _walk(value: Any, kinds: tuple[type, ...]) -> Iterator[Any]:
    if isinstance(value, kinds):
        yield value
    for item in _inside(value):
        if type(item) not in _PLAIN:
            yield from _walk(item, kinds)


def _inside(value: Any) -> Iterable[Any]:
    """Give what may be searched inside a value."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, _COLLECTIONS):
        return value
    if isinstance(value, Annotation):
        return (value.value,) if _is_searched(value) else ()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return ()


def _is_searched(mark: Annotation[Any]) -> bool:
    if isinstance(mark, opaque):  # the mark is for what a future gives, and that is never searched
        return isinstance(mark.value, (PrefectFuture, State, Annotation))
    return not isinstance(mark, quote)


def _replace(value: Any, by: Callable[[Any, bool], Any], *, allow: bool = False) -> Any:
    if isinstance(value, (PrefectFuture, State)):
        return by(value, allow)
    if isinstance(value, Annotation):
        if not _is_searched(value):
            return value.value
        return _replace(value.value, by, allow=allow or isinstance(value, allow_failure))
    if not _may_hold(value) or not any(_walk(value, (PrefectFuture, State, Annotation))):
        return value  # the same object: what holds no future is not copied
    return _rebuilt(value, lambda item: _replace(item, by, allow=allow))


def _rebuilt(value: Any, change: Callable[[Any], Any]) -> Any:
    """Make a collection of the same kind, of changed items."""
    if isinstance(value, dict):
        return _like(value, {key: change(item) for key, item in value.items()})
    if isinstance(value, _COLLECTIONS):
        return _like(value, [change(item) for item in value])
    fields = [field.name for field in dataclasses.fields(value) if field.init]
    return dataclasses.replace(value, **{name: change(getattr(value, name)) for name in fields})


def _like(value: Any, items: Any) -> Any:
    """Make a collection of the same kind; a plain one where a special kind cannot be made."""
    if hasattr(value, "_fields"):  # a named tuple
        return type(value)(*items)
    if isinstance(value, PrefectFutureList):  # which holds no futures any more
        return items
    try:
        return type(value)(items)
    except Exception:  # noqa: BLE001 - somebody else's constructor
        return items


def _state(one: Any) -> State[Any]:
    if isinstance(one, PrefectFuture):
        one.wait()
        return one.state
    state: State[Any] = one
    return state


def _result(one: Any, whose: RunContext | Flow[Any, Any], *, allow_failed: bool) -> Any:
    state = _state(one)
    if state.is_completed():
        return state.data
    if allow_failed:
        return state.outcome(raise_on_failure=False)
    name = one.name if isinstance(one, PrefectFuture) else state.run_name
    what = "its input" if name is None else f"its input {name!r}"
    why = f" ({state.message.rstrip('.')})" if state.message else ""
    raise UpstreamFailedError(
        f"{whose.kind} {whose.name!r}",
        f"{what} is {state.name}{why}.",
        run=whose.name,
        input=name,
    )
