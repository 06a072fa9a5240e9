"""How errors travel from a worker to its parent.

Pickle calls an exception's constructor anew with what is in `args`, and many constructors want
something else. Here an exception travels as what it is: its class, its `args` and its attributes.
If not all of that can travel, attributes stay behind, and arguments go as their text. An exception
whose class cannot be imported arrives as a `LeaseholdError`, in words.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from leasehold.exceptions import LeaseholdError

if TYPE_CHECKING:
    from typing_extensions import Self

#: What the classes of a script are prefixed with in a worker.
_SCRIPT: Final = "__mp_main__."


class RemoteError(Exception):
    """The traceback of an error in another process, as the cause of the error here."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


@dataclass(frozen=True, slots=True)
class Failure:
    """An error, ready to travel.

    Attributes:
        content: the exception, pickled; empty: it cannot travel.
        words: what it says.
        why: the reason why it cannot travel.
        text: its traceback.
    """

    content: bytes
    words: str
    why: str
    text: str

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Pack an error, in the worker."""
        content, why = b"", ""
        try:
            content = _pickled(error)
        except Exception:  # noqa: BLE001 - pickling runs anybody's code
            try:
                content = _pickled(_Lightened(error))
            except Exception as reason:  # noqa: BLE001 - likewise
                why = str(reason).replace(_SCRIPT, "")
        words = "".join(traceback.format_exception_only(error)).strip()
        text = "".join(traceback.format_exception(error))
        return cls(content, words.replace(_SCRIPT, ""), why, text.replace(_SCRIPT, ""))

    def error(self, name: str) -> BaseException:
        """Unpack the error of a run, in the parent."""
        error: BaseException | None = None
        why = self.why
        if self.content:
            try:
                error = pickle.loads(self.content)  # noqa: S301 - our own child's
            except Exception as reason:  # noqa: BLE001 - unpickling runs anybody's code
                why = str(reason)
        if error is None:
            error = LeaseholdError(
                f"{name} failed in its process with {self.words} (The exception itself cannot "
                f"leave that process: {why}. Define its class at the top of a module.)"
            )
        error.__cause__ = RemoteError(self.text)
        return error


class _Pickler(pickle.Pickler):
    """Takes exceptions apart that do not say how they want to be."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, BaseException):
            return NotImplemented
        kind = type(value)
        says_how = (
            kind.__reduce__ is not _builtin_below(kind).__reduce__
            or kind.__reduce_ex__ is not object.__reduce_ex__
            or kind in copyreg.dispatch_table
        )
        if says_how:
            return NotImplemented
        args, state = _parts(value)
        return _new, (kind, args), state


class _Lightened:
    """Becomes an exception when it is unpickled: one without what cannot travel."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        args, state = _parts(self._error)
        args = tuple(arg if _travels(arg) else str(arg) for arg in args)
        state = {name: value for name, value in state.items() if _travels(value)}
        return _rebuilt, (type(self._error), args, state)


def _pickled(value: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file).dump(value)
    pickle.loads(file.getvalue())  # noqa: S301 - what we have just written
    return file.getvalue()


def _travels(value: Any) -> bool:
    try:
        _pickled(value)
    except Exception:  # noqa: BLE001 - pickling runs anybody's code
        return False
    return True


def _builtin_below(kind: type) -> type[BaseException]:
    """Find the exception of Python's own that a class is built on."""
    while kind.__module__ != "builtins":
        assert kind.__base__ is not None
        kind = kind.__base__
    assert issubclass(kind, BaseException)
    return kind


def _parts(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Take an exception apart: the arguments and the attributes."""
    # The one of Python's own knows of arguments that are not in `args`, as OSError's file name.
    parts: Any = _builtin_below(type(error)).__reduce__(error)
    return parts[1], dict(parts[2] or {}) if len(parts) > 2 else {}  # noqa: PLR2004 - pickle's


def _new(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    builtin = _builtin_below(kind)
    error = builtin.__new__(kind, *args)
    builtin.__init__(error, *args)
    return error


def _rebuilt(
    kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
) -> BaseException:
    error = _new(kind, args)
    error.__setstate__(state)
    return error
