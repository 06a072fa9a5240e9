"""A flow's arguments, checked and converted by the annotations of its function."""

from __future__ import annotations

import functools
import reprlib
import typing
from typing import TYPE_CHECKING, Any, Final

from leasehold.exceptions import ParameterTypeError

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable

    import pydantic

    Arguments = tuple[tuple[Any, ...], dict[str, Any]]

#: Shows a value in a message: whole, if it is short.
_short: Final = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def converter(
    owner: str, fn: Callable[..., Any], signature: inspect.Signature
) -> Callable[..., Arguments]:
    """Make what gives arguments back, converted.

    Args:
        owner: whose function it is, for messages; as "Flow 'etl'".
        fn: the function.
        signature: its signature, without `self`.

    Raises:
        ParameterTypeError: an annotation that says nothing at run time; the converter raises the
            same for arguments that the annotations do not allow.
    """
    import pydantic

    @functools.wraps(fn)
    def collect(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    annotations = {name: kind for name, kind in fn.__annotations__.items() if name != "return"}
    collect.__annotations__ = annotations
    collect.__signature__ = signature  # type: ignore[attr-defined] # without `self`
    checks = pydantic.validate_call(config=pydantic.ConfigDict(arbitrary_types_allowed=True))
    try:
        checked = checks(collect)
    except NameError as error:
        raise _unresolved(owner, fn, annotations, error) from None

    def convert(*args: Any, **kwargs: Any) -> Arguments:
        try:
            converted: Arguments = checked(*args, **kwargs)
        except pydantic.ValidationError as error:
            raise _refused(owner, signature, error) from error
        return converted

    return convert


def _unresolved(
    owner: str, fn: Callable[..., Any], annotations: dict[str, Any], error: NameError
) -> ParameterTypeError:
    name = next((one for one in annotations if not _resolves(fn, annotations[one])), None)
    what = "an annotation" if name is None else f"the annotation of {name}, {annotations[name]!r},"
    return ParameterTypeError(
        f"{owner}: {what} says nothing at run time: {error}. Import it outside of TYPE_CHECKING, "
        "and define classes at the top of the file; or leave parameters as they are, with "
        "@flow(validate_parameters=False).",
        parameters=() if name is None else (name,),
    )


def _resolves(fn: Callable[..., Any], annotation: Any) -> bool:
    def stand_in() -> None: ...

    stand_in.__annotations__ = {"parameter": annotation}
    try:
        typing.get_type_hints(stand_in, globalns=getattr(fn, "__globals__", None))
    except NameError:
        return False
    return True


def _refused(
    owner: str, signature: inspect.Signature, error: pydantic.ValidationError
) -> ParameterTypeError:
    names = list(signature.parameters)
    parameters, told = [], []
    for problem in error.errors(include_url=False):
        first, *rest = problem["loc"]
        if isinstance(first, int) and first < len(names):  # by its position
            first = names[first]
        parameters.append(str(first))
        where = ".".join(map(str, [first, *rest]))
        # What is part of something larger, or meant to be a secret, may be one.
        plain = not rest and isinstance(problem["input"], (str, int, float))
        secret = "Secret" in str(getattr(signature.parameters.get(str(first)), "annotation", ""))
        got = f" (got {_short.repr(problem['input'])})" if plain and not secret else ""
        told.append(f"{where}: {problem['msg']}{got}")
    return ParameterTypeError(f"{owner}: {'; '.join(told)}.", parameters=parameters)
