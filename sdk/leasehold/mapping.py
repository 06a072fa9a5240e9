"""`map`: from iterables to the arguments of each call."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from leasehold.exceptions import MappingLengthMismatchError, MappingMissingIterableError
from leasehold.futures import PrefectFuture
from leasehold.states import State
from leasehold.utilities.annotations import Annotation, unmapped

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
        MappingMissingIterableError: nothing to iterate over.
        MappingLengthMismatchError: lists of different lengths.
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
        raise MappingMissingIterableError(
            f"{name}.map() needs at least one list (or other iterable) to map over."
        )
    if len(set(lengths.values())) > 1:
        raise MappingLengthMismatchError(
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
    if isinstance(value, Annotation):
        column = _column(value.value)
        if isinstance(column, list):
            return [value.rewrap(item) for item in column]
        return unmapped(value)
    if isinstance(value, (PrefectFuture, State)):
        if isinstance(value, PrefectFuture):
            value.wait()
            value = value.state
        value = value.outcome()
    if isinstance(value, (str, bytes, io.IOBase)):
        return unmapped(value)
    try:
        items = iter(value)
    except TypeError:
        return unmapped(value)
    return list(items)


def _element(column: Any, index: int) -> Any:
    return column.value if isinstance(column, unmapped) else column[index]
