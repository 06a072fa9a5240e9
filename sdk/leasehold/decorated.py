"""What `Task` and `Flow` have in common: they stand for a function, also as a method."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, cast

from leasehold import options
from leasehold.exceptions import ParameterBindError, UnpicklableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self


class Decorated:
    """A function with options around it.

    Args:
        fn: the function; also what `staticmethod` or `classmethod` made of one.
        kind: "Task" or "Flow", as messages call it.
        name: what messages call it; None: the function's name.

    Attributes:
        fn: the function itself, to be called without any of this.
        name: what messages call it.
        signature: the function's.
        isasync: whether it must be awaited.
        isgenerator: whether it yields.
    """

    def __init__(self, fn: Any, *, kind: str, name: str | None, description: str | None) -> None:
        self._binds = "object"
        if isinstance(fn, (classmethod, staticmethod)):
            self._binds = "class" if isinstance(fn, classmethod) else "nothing"
            fn = fn.__func__
        if not callable(fn) or isinstance(fn, type):
            raise TypeError(f"@{kind.lower()} is for functions; got {fn!r}.")
        functools.update_wrapper(cast("Any", self), fn)
        self.fn: Callable[..., Any] = fn
        self.name: str = name or str(getattr(fn, "__name__", type(fn).__name__))
        self.description = description or inspect.getdoc(fn)
        self.owner = f"{kind} {self.name!r}"
        self.signature = inspect.signature(fn)
        options.check_signature(self.owner, self.signature)
        self.isgenerator = inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn)
        self.isasync = inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)
        self._is_bound = False

    def check_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Check that the function takes such arguments.

        Raises:
            ParameterBindError: too many, too few, or one that it does not know.
        """
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ParameterBindError(f"{self.owner}: {error}. It takes {self.signature}.") from None

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Give arguments, defaults included, by the parameters' names."""
        arguments = self.signature.bind(*args, **kwargs)
        arguments.apply_defaults()
        return dict(arguments.arguments)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Make methods work: what is looked up on an object is bound to it."""
        if self._binds == "nothing" or self._is_bound:
            return self
        target = owner if self._binds == "class" else instance
        if target is None:
            return self
        bound = self._copy()
        bound.__dict__.update(
            fn=self.fn.__get__(target, owner),
            signature=self._signature_of_method,
            _is_bound=True,
        )
        return bound

    @functools.cached_property
    def _signature_of_method(self) -> inspect.Signature:
        _, *parameters = self.signature.parameters.values()
        return self.signature.replace(parameters=parameters)

    def _copy(self) -> Self:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __getattr__(self, name: str) -> Any:
        raise options.unsupported_method(f"<{type(self).__name__}>", name)

    def __reduce__(self) -> tuple[Any, ...]:
        # Functions pickle by name, and so does what stands in their place.
        if self._is_bound:
            return getattr, (self.fn.__self__, self.fn.__name__)  # type: ignore[attr-defined]
        module, qualname = self.fn.__module__, self.fn.__qualname__
        if _look_up(module, qualname) is not self:
            raise UnpicklableError(
                f"{self.owner} cannot be pickled: it is not {qualname} at the top of the module "
                f"{module}, where another process could import it. Define it there.",
                task=self.name,
            )
        return _look_up, (module, qualname)

    def __repr__(self) -> str:
        return f"<{self.owner}>"


def _look_up(module: str, qualname: str) -> Any:
    from importlib import import_module

    found: Any = sys.modules.get(module) or import_module(module)
    for name in qualname.split("."):
        # In a class, what stands there is wanted, not what a look-up would bind to it.
        found = vars(found).get(name) if isinstance(found, type) else getattr(found, name, None)
    return found
