"""Marks on arguments of `submit` and `map` that say how to treat them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class Annotation(Generic[T]):
    """A mark on a value; marks may be put around each other."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def unwrap(self) -> T:
        """Give the value itself."""
        return self.value

    def rewrap(self, value: T) -> Self:
        """Put the same mark on another value."""
        return type(self)(value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


class unmapped(Annotation[T]):  # noqa: N801 - the name flow authors know
    """Mark an argument of `map` that is the same for every call.

    Example:
        >>> load.map(paths, table=unmapped("orders"))   # doctest: +SKIP
    """

    __slots__ = ()


class opaque(Annotation[T]):  # noqa: N801 - the name flow authors know
    """Mark a future whose large result has no futures inside: it is not searched for any.

    Example:
        >>> total.submit(opaque(load.submit("a.csv")))          # doctest: +SKIP
    """

    __slots__ = ()


class allow_failure(Annotation[T]):  # noqa: N801 - the name flow authors know
    """Mark an input that may have failed: the task starts, and gets the exception instead.

    Example:
        >>> report.submit(allow_failure(load.submit("a.csv")))      # doctest: +SKIP
    """

    __slots__ = ()


class quote(Annotation[T]):  # noqa: N801 - the name flow authors know
    """Mark a large argument that has no futures inside: it is not searched for any.

    Example:
        >>> total.submit(quote(a_million_numbers))      # doctest: +SKIP
    """

    __slots__ = ()

    def unquote(self) -> T:
        """Give the value itself."""
        return self.unwrap()
