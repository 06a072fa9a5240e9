"""`map`: from iterables to the arguments of each call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leasehold.annotations import Annotation, allow_failure, unmapped
from leasehold.exceptions import ParameterBindError
from leasehold.futures import PrefectFuture
from leasehold.states import State

if TYPE_CHECKING:
    from collections.abc import Iterator


def spread(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Give the arguments of each call.

    Args:
        name: the task's, for messages.
        args: what `map` was called with.
        kwargs: likewise.

    Raises:
        ParameterBindError: nothing to iterate over, or different lengths.
    """
    columns = [_column(value) for value in args]
    named = {key: _column(value) for key, value in kwargs.items()}
    titles = [*map(str, range(1, len(args) + 1)), *kwargs]
    lengths = {
        title: len(column)
        for title, column in zip(titles, [*columns, *named.values()], strict=True)
        if isinstance(column, list)
    }
    if not lengths:
        raise ParameterBindError(
            f"{name}.map() needs at least one list (or other iterable) to map over."
        )
    if len(set(lengths.values())) > 1:
        raise ParameterBindError(
            f"{name}.map() needs lists of the same length; it got {lengths}. Mark what is "
            "the same for every call with unmapped(...)."
        )
    for index in range(next(iter(lengths.values()))):
        yield (
            tuple([_element(column, index) for column in columns]),
            {key: _element(column, index) for key, column in named.items()},
        )


def _column(value: Any) -> Any:
    """Give a list to map over, or a mark around what is the same for every call."""
    if isinstance(value, unmapped):
        return value
    if isinstance(value, allow_failure):
        column = _column(value.value)
        if isinstance(column, list):
            return [allow_failure(item) for item in column]
        return unmapped(value)
    if isinstance(value, (PrefectFuture, State)):
        if isinstance(value, PrefectFuture):
            value.wait()
            value = value.state
        value = value.outcome()
    if isinstance(value, (str, bytes, dict, Annotation)) or not hasattr(value, "__iter__"):
        return unmapped(value)
    return list(value)


def _element(column: Any, index: int) -> Any:
    return column.value if isinstance(column, unmapped) else column[index]
