"""What `Task` and `Flow` have in common: the function they stand for, also as a method; options.

An option that is not given may be set for all tasks, or all flows, by a variable of Prefect's.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, ClassVar, cast

from leasehold import options, printing, sources
from leasehold.exceptions import OptionError, ParameterBindError, UnpicklableError
from leasehold.hooks import checked as check_hooks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from typing_extensions import Self

    from leasehold.options import RetryDelay


class Decorated:
    """A function with options around it.

    Args:
        fn: the function; also what `staticmethod` or `classmethod` made of one.
        name: what messages call it; None: the function's name.
        description: for people; None: the docstring.
        version: for people.
        retries: how often a run that raised starts again; None: the variable, or never.
        retry_delay_seconds: the pauses before that, in seconds; None: the variable, or none.
        retry_jitter_factor: the share by which a pause varies at random.
        timeout_seconds: the most that an attempt may take, in seconds.
        log_prints: whether `print` writes to the log; None: as the run around it does.
        hooks: functions to be called, by the option that takes them.

    Attributes:
        kind: "Task" or "Flow", as messages call it.
        OPTIONS: what the decorator knows.
        fn: the function itself, to be called without any of this.
        name: what messages call it.
        signature: the function's.
        isasync: whether it must be awaited.
        isgenerator: whether it yields.
        delays: gives the pause after so many failures.
        logs_prints: whether `print` writes to the log where there is no run around it.
    """

    kind: ClassVar[str]
    OPTIONS: ClassVar[tuple[str, ...]]

    on_completion_hooks: list[Any]
    on_failure_hooks: list[Any]
    on_running_hooks: list[Any]

    def __init__(
        self,
        fn: Any,
        *,
        name: str | None,
        description: str | None,
        version: str | None,
        retries: int | None,
        retry_delay_seconds: RetryDelay | None,
        retry_jitter_factor: float | None,
        timeout_seconds: float | None,
        log_prints: bool | None,
        hooks: Mapping[str, Iterable[Callable[..., Any]] | None],
    ) -> None:
        self._stand_for(fn, name)
        options.check_text(self.owner, "description", description)
        options.check_text(self.owner, "version", version)
        self.description = description or inspect.getdoc(self.fn)
        self.version = version
        self._set_retries(retries, retry_delay_seconds, retry_jitter_factor)
        self.timeout_seconds = options.check_seconds(self.owner, "timeout_seconds", timeout_seconds)
        self._set_prints(log_prints=log_prints)
        for option, given in hooks.items():
            setattr(self, f"{option}_hooks", check_hooks(self.owner, option, given))

    def _stand_for(self, fn: Any, name: str | None) -> None:
        self._binds = "object"
        if isinstance(fn, (classmethod, staticmethod)):
            self._binds = "class" if isinstance(fn, classmethod) else "nothing"
            fn = fn.__func__
        if not callable(fn) or isinstance(fn, type):
            raise TypeError(f"@{self.kind.lower()} is for functions; got {fn!r}.")
        functools.update_wrapper(cast("Any", self), fn)
        self.fn: Callable[..., Any] = fn
        default = str(getattr(fn, "__name__", type(fn).__name__))
        options.check_text(f"{self.kind} {default!r}", "name", name)
        self.name: str = name or default
        self.owner = f"{self.kind} {self.name!r}"
        self.signature = _signature(fn)
        options.check_signature(self.owner, self.signature)
        self.isgenerator = inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn)
        self.isasync = inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)
        self._is_bound = False

    def _set_retries(
        self, retries: int | None, delay: RetryDelay | None, jitter: float | None
    ) -> None:
        if retries is None and (found := self._look_up("DEFAULT_RETRIES")):
            retries = found.whole_number(0)
        if delay is None and (found := self._look_up("DEFAULT_RETRY_DELAY_SECONDS")):
            delay = found.seconds()
        self.retries = options.check_retries(self.owner, retries)
        self.retry_delay_seconds = delay
        self.retry_jitter_factor = jitter
        self.delays = options.read_delays(self.owner, delay, self.retries, jitter)

    def _look_up(self, setting: str) -> sources.Found | None:
        kind = self.kind.upper()
        return sources.look_up(f"PREFECT_{kind}S_{setting}", f"PREFECT_{kind}_{setting}")

    def _set_prints(self, *, log_prints: bool | None) -> None:
        if log_prints is not None:
            options.check_truth(self.owner, "log_prints", log_prints)
        found = sources.look_up("PREFECT_LOGGING_LOG_PRINTS")
        self.log_prints = log_prints
        self.logs_prints = found is not None and found.truth()
        if log_prints or self.logs_prints:
            printing.watch_prints()

    def with_options(self, **changes: Any) -> Self:
        """Make a copy with some options changed; they are those of the decorator.

        Example:
            >>> slow_load = load.with_options(tags=["database", "slow"])    # doctest: +SKIP
        """
        known = options.only_supported(f"@{self.kind.lower()}", changes, self.OPTIONS)
        return type(self)(self.fn, **{**self._options(), **known})

    def _options(self) -> dict[str, Any]:
        hooks = [name for name in self.OPTIONS if hasattr(self, f"{name}_hooks")]
        same = {name: getattr(self, name) for name in self.OPTIONS if name not in hooks}
        return {**same, **{name: list(getattr(self, f"{name}_hooks")) for name in hooks}}

    def on_completion(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Have `hook` called when a run has ended well; to be used as a decorator."""
        return self._add_hook("on_completion", hook)

    def on_failure(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Have `hook` called when a run has failed for good; to be used as a decorator."""
        return self._add_hook("on_failure", hook)

    def on_running(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Have `hook` called when an attempt begins; to be used as a decorator."""
        return self._add_hook("on_running", hook)

    def _add_hook(self, option: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        getattr(self, f"{option}_hooks").extend(check_hooks(self.owner, option, [hook]))
        return hook

    def check_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Check that the function takes such arguments.

        Raises:
            ParameterBindError: too many, too few, or one that it does not know.
        """
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ParameterBindError(f"{self.owner}: {error}. It takes {self.signature}.") from None

    def refuse_state(self, *, return_state: bool) -> None:
        """Refuse `return_state` where items are yielded.

        Raises:
            OptionError: it was asked for.
        """
        if return_state:
            raise OptionError(
                f"{self.owner} yields, so that a call gives its items: there is no state before "
                "they have been consumed. Leave return_state out, or return a list.",
                option="return_state",
                value=return_state,
            )

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Give arguments, defaults included, by the parameters' names."""
        arguments = self.signature.bind(*args, **kwargs)
        arguments.apply_defaults()
        return dict(arguments.arguments)

    def unbound(self, parameters: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments for parameters that are given by name.

        Raises:
            ParameterBindError: one that the function does not take.
        """
        known = self.signature.parameters
        for name in parameters:
            if name not in known:
                raise ParameterBindError(
                    f"{self.owner}: got an unexpected argument {name!r}. It takes {self.signature}."
                )
        given = {name: parameters[name] for name in known if name in parameters}
        bound = inspect.BoundArguments(self.signature, given)
        return bound.args, bound.kwargs

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
        bound.__dict__.pop("_converter", None)  # which is for the other signature
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
        owner = self.__dict__.get("owner", type(self).__name__)  # not there while it is copied
        raise options.unsupported_method(owner, name)

    def __reduce__(self) -> tuple[Any, ...]:
        # Functions pickle by name, and so does what stands in their place.
        if self._is_bound:
            return getattr, (self.fn.__self__, self.fn.__name__)  # type: ignore[attr-defined]
        module, qualname = self.fn.__module__, self.fn.__qualname__
        found = _look_up(module, qualname)
        if isinstance(found, type(self)) and found is not self and found.fn is self.fn:
            return _changed, (found, self._changes_from(found))
        if found is not self:
            raise UnpicklableError(
                f"{self.owner} cannot be pickled: it is not {qualname} at the top of the module "
                f"{module}, where another process could import it. Define it there.",
                task=self.name,
            )
        return _look_up, (module, qualname)

    def _changes_from(self, other: Self) -> dict[str, Any]:
        theirs = other._options()
        return {name: value for name, value in self._options().items() if value != theirs[name]}

    def __repr__(self) -> str:
        return f"<{self.owner}>"


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except ValueError:  # written in C, and does not say what it takes
        return inspect.signature(lambda *args, **kwargs: (args, kwargs))


def _changed(original: Decorated, changes: dict[str, Any]) -> Decorated:
    """Make again what `with_options` made, where it is unpickled."""
    return original.with_options(**changes)


def _look_up(module: str, qualname: str) -> Any:
    from importlib import import_module

    found: Any = sys.modules.get(module) or import_module(module)
    for name in qualname.split("."):
        # In a class, what stands there is wanted, not what a look-up would bind to it.
        found = vars(found).get(name) if isinstance(found, type) else getattr(found, name, None)
    return found
