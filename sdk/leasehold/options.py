"""What the options of `@task` and `@flow` have in common: their checks, and what is not offered."""

from __future__ import annotations

import inspect
import math
import random
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from leasehold.cache_policies import NO_CACHE
from leasehold.exceptions import OptionError, UnsupportedFeatureError, UnsupportedOptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    RetryDelay: TypeAlias = float | Sequence[float] | Callable[[int], Sequence[float]]

_CACHE: Final = (
    "Results are not cached here: keep them where you need them, as with functools.lru_cache on a "
    "function that the task calls."
)
_PERSIST: Final = "Results stay in memory here: write to a file or a database in the task's body."

#: Prefect's options that are not offered, and what to use instead.
_ADVICE: Final = {
    "cache_policy": _CACHE,
    "cache_key_fn": _CACHE,
    "cache_expiration": _CACHE,
    "refresh_cache": _CACHE,
    "cache_result_in_memory": "Results stay in memory as long as somebody refers to them.",
    "persist_result": _PERSIST,
    "result_storage": _PERSIST,
    "result_serializer": _PERSIST,
    "result_storage_key": _PERSIST,
    "on_rollback": "There are no transactions here: undo in an on_failure hook.",
    "on_commit": "There are no transactions here: use an on_completion hook.",
    "viz_return_value": "Flows cannot be drawn here; leave it out.",
    "asset_deps": "There are no assets here; leave it out.",
}

#: Values by which Prefect's users turn such an option off: what happens here anyway.
_OFF: Final = {
    "cache_policy": (NO_CACHE,),
    "persist_result": (False,),
    "cache_result_in_memory": (True,),
    "refresh_cache": (False,),
}

#: Prefect's methods that are not offered, and what to use instead.
_METHODS: Final = {
    "delay": "call .submit() in a flow",
    "apply_async": "call .submit() in a flow",
    "serve": "start the file from cron or a service manager",
    "aserve": "start the file from cron or a service manager",
    "deploy": "start the file from cron or a service manager",
    "adeploy": "start the file from cron or a service manager",
    "to_deployment": "start the file from cron or a service manager",
    "ato_deployment": "start the file from cron or a service manager",
    "from_source": "import the flow",
    "afrom_source": "import the flow",
    "visualize": "nothing draws flows here",
    "avisualize": "nothing draws flows here",
    "generate_mermaid_graph": "nothing draws flows here",
    "agenerate_mermaid_graph": "nothing draws flows here",
    "on_rollback": "use an on_failure hook",
    "on_commit": "use an on_completion hook",
}

#: Names that `submit` and `map` take themselves.
_RESERVED: Final = ("return_state", "wait_for")


def only_supported(
    decorator: str, options: dict[str, Any], known: Collection[str]
) -> dict[str, Any]:
    """Drop options that ask for what happens anyway; refuse what is not offered.

    Raises:
        UnsupportedOptionError: an option that only Prefect has, or nobody.
    """
    supported = {}
    for option, value in options.items():
        if option in known:
            supported[option] = value
        elif option in _ADVICE and (value is None or value in _OFF.get(option, ())):
            continue
        else:
            advice = _ADVICE.get(option, f"It knows: {', '.join(known)}.")
            raise UnsupportedOptionError(
                f"{decorator} has no option {option!r} here. {advice}", option=option
            )
    return supported


def unsupported_method(owner: str, name: str) -> AttributeError:
    """Build the error for an attribute that is not there."""
    if name in _METHODS:
        return UnsupportedFeatureError(
            f"{owner} has no .{name}() here: {_METHODS[name]}.", feature=name
        )
    return AttributeError(f"{owner} has no attribute {name!r}")


def check_signature(owner: str, signature: inspect.Signature) -> None:
    """Refuse parameters that `submit` and `map` could not pass on.

    Raises:
        OptionError: there is one.
    """
    for name in _RESERVED:
        if name in signature.parameters:
            raise OptionError(
                f"{owner}: a parameter cannot be called {name!r}, because submit() and map() "
                "understand that themselves. Rename it.",
                option=name,
                value=name,
            )


def check_retries(owner: str, retries: int | None) -> int:
    """Check a number of retries; None is 0.

    Raises:
        OptionError: it is not a whole number, or below 0.
    """
    if retries is None:
        return 0
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise OptionError(
            f"{owner}: retries must be a whole number, 0 or more; got {retries!r}.",
            option="retries",
            value=retries,
        )
    return retries


def check_seconds(owner: str, option: str, seconds: float | None) -> float | None:
    """Check a time limit; None is no limit, and so is 0, as with Prefect.

    Raises:
        OptionError: it is not a number, or below 0.
    """
    if seconds is None:
        return None
    if not _is_number(seconds) or seconds < 0:
        raise OptionError(
            f"{owner}: {option} must be a number of seconds, 0 or more; got {seconds!r}.",
            option=option,
            value=seconds,
        )
    return float(seconds) or None


def check_text(owner: str, option: str, text: Any) -> None:
    """Check that an option is a string, or not given.

    Raises:
        OptionError: it is something else.
    """
    if text is not None and not isinstance(text, str):
        raise OptionError(
            f"{owner}: {option} must be a string; got {text!r}.", option=option, value=text
        )


def check_truth(owner: str, option: str, value: Any) -> None:
    """Check that an option is True or False.

    Raises:
        OptionError: it is something else.
    """
    if not isinstance(value, bool):
        raise OptionError(
            f"{owner}: {option} must be True or False; got {value!r}.", option=option, value=value
        )


def check_function(owner: str, option: str, function: Any, *, takes: Sequence[str]) -> None:
    """Check that an option is a function of so many arguments, or not given.

    Raises:
        OptionError: it is something else, or takes other arguments.
    """
    if function is None:
        return
    try:
        inspect.signature(function).bind(*takes)
    except TypeError as error:  # also where it is no function
        raise OptionError(
            f"{owner}: {option} must be a function of {', '.join(takes)}; got {function!r} "
            f"({error}).",
            option=option,
            value=function,
        ) from None
    except ValueError:  # written in C, and does not say what it takes
        return


def check_template(
    owner: str, option: str, template: Any, signature: inspect.Signature
) -> str | Callable[..., str] | None:
    """Check that a template names only parameters of the function.

    Raises:
        OptionError: it does not, or is neither a string nor a function.
    """
    if template is None or callable(template):
        return template  # type: ignore[no-any-return] # checked when it gives a name
    if not isinstance(template, str):
        raise OptionError(
            f"{owner}: {option} must be a string or a function; got {template!r}.",
            option=option,
            value=template,
        )
    try:
        fields = list(string.Formatter().parse(template))
    except ValueError as error:
        raise OptionError(
            f"{owner}: {option}={template!r} is no template: {error}. Write {{{{ and }}}} for "
            "braces that stand for themselves.",
            option=option,
            value=template,
        ) from None
    parameters = signature.parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return template
    for _, field, _, _ in fields:
        name = None if field is None else field.replace("[", ".").split(".")[0]
        if name is not None and name not in parameters:
            raise OptionError(
                f"{owner}: {option}={template!r} names {name or 'nothing'!r}, but the function's "
                f"parameters are: {', '.join(parameters) or 'none'}.",
                option=option,
                value=template,
            )
    return template


def fill_template(
    owner: str, option: str, template: str | Callable[..., str], parameters: dict[str, Any]
) -> str:
    """Make a run's name.

    Raises:
        OptionError: it cannot be made, and why.
    """
    try:
        if isinstance(template, str):
            return template.format(**parameters)
        wanted = inspect.signature(template).parameters
        name = template(parameters=parameters) if "parameters" in wanted else template()
    except Exception as error:
        raise OptionError(
            f"{owner}: {option} gave no name: {type(error).__name__}: {error}",
            option=option,
            value=template,
        ) from error
    if not isinstance(name, str):
        raise OptionError(
            f"{owner}: {option} must give a string; it gave {name!r}.", option=option, value=name
        )
    return name


@dataclass(frozen=True, slots=True)
class Delays:
    """The pauses before the retries of a run.

    Attributes:
        seconds: one for each retry; the last one repeats.
        jitter: the share by which a pause may be longer or shorter.
    """

    seconds: tuple[float, ...]
    jitter: float

    def __call__(self, failures: int) -> float:
        """Give the pause after so many failures (1 for the first), in seconds."""
        seconds = self.seconds[min(failures, len(self.seconds)) - 1]
        if not self.jitter:
            return seconds
        spread = random.uniform(-min(self.jitter, 1.0), self.jitter)  # noqa: S311 - guards nothing
        return seconds * (1 + spread)


def read_delays(
    owner: str, given: RetryDelay | None, retries: int, jitter: float | None = None
) -> Delays:
    """Read `retry_delay_seconds` and `retry_jitter_factor`.

    Raises:
        OptionError: a number below 0, or no number.
    """
    value: Any = given
    if callable(given):
        check_function(owner, "retry_delay_seconds", given, takes=("retries",))
        value = given(retries)
    pauses = list(value) if isinstance(value, (list, tuple)) else [0 if value is None else value]
    if not all(_is_number(pause) and pause >= 0 for pause in pauses):
        raise OptionError(
            f"{owner}: retry_delay_seconds must be numbers of seconds, 0 or more; got {given!r}.",
            option="retry_delay_seconds",
            value=given,
        )
    if jitter is not None and (not _is_number(jitter) or jitter < 0):
        raise OptionError(
            f"{owner}: retry_jitter_factor must be a number, 0 or more; got {jitter!r}.",
            option="retry_jitter_factor",
            value=jitter,
        )
    return Delays(tuple(map(float, pauses)) or (0.0,), float(jitter or 0.0))


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
