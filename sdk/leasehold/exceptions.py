"""Every error this package raises on purpose.

::

    LeaseholdError
    ├── SettingsError               a setting or a profile that cannot be used
    ├── MissingContextError         something that needs a running flow or task was used outside one
    ├── UnsupportedOptionError      an option of Prefect's that this package does not have
    ├── UnsupportedFeatureError     a method of Prefect's that this package does not have
    ├── UnsupportedImportError      a module or name of Prefect's that this package does not have
    ├── OptionError                 an option of `@task` or `@flow` out of its bounds
    ├── ParameterError              arguments that do not fit the function
    │   ├── ParameterBindError        too many, too few, unknown
    │   │   ├── MappingMissingIterableError   nothing to map over
    │   │   └── MappingLengthMismatchError    lists of different lengths
    │   └── ParameterTypeError        of a type that the annotations forbid
    ├── RunError                    a run that gives no result: it …
    │   ├── FailedRunError            said itself that it failed
    │   ├── CrashedRunError           was ended from outside its own code
    │   ├── CancelledRunError         was cancelled before it could finish
    │   ├── UnfinishedRunError        has not ended yet
    │   └── MissingResultError        has lost its result; never here
    ├── RunTimeoutError             the run took longer than its `timeout_seconds`
    ├── UpstreamFailedError         an input of a task came from a run that failed
    ├── DeadlockError               a task waits for one that can never start
    ├── UnpicklableError            work that cannot travel to another process
    ├── WorkerDiedError             the process that ran a task ended under it
    ├── InvalidTagError             a tag or limit name that no server accepts
    ├── InvalidLimitError           a number that cannot be a limit's
    ├── ServerError                 the server at `address` …
    │   ├── ServerUnreachableError    does not answer
    │   ├── NotAPrefectServerError    answers, but is something else
    │   ├── ServerTooOldError         is a Prefect server that cannot hold these limits
    │   ├── AuthenticationError       refuses our key (401, 403)
    │   └── UnexpectedReplyError      answers what no known version answers
    ├── LedgerError                 the embedded ledger's file at `path` cannot be used
    ├── LimitNotFoundError          administration: no such limit
    ├── LimitExistsError            administration: the name is taken
    ├── LimitInUseError             administration: not while slots are held
    ├── ConcurrencySlotAcquisitionError    no slot for `names`: …
    │   ├── AcquireConcurrencySlotTimeoutError   not within the time allowed
    │   ├── ZeroLimitError          a limit of 0 admits nothing
    │   ├── SlotsOverLimitError     more slots asked for than the limit has
    │   └── NotARateLimitError      `rate_limit()` on a limit without slot decay
    └── LeaseLostError              a slot was held, and is not held any more

Each says what failed, for which limit or address, and what to do next, and carries the same as
attributes. Errors never contain a key or a password.

What flow authors import from `prefect.exceptions` is here under those names, too, where it can
happen here: see the end of this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class LeaseholdError(Exception):
    """The base of every error this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions travel between processes, and one answer may fail many waiters, each of which
        # needs a copy. Without this, copying would call __init__ without its keyword arguments.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    kind: type[LeaseholdError], args: tuple[Any, ...], state: dict[str, Any]
) -> LeaseholdError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class SettingsError(LeaseholdError):
    """A setting or a profile cannot be used.

    Attributes:
        setting: the variable's or the file's name.
    """

    def __init__(self, message: str, *, setting: str) -> None:
        super().__init__(message)
        self.setting = setting


class MissingContextError(LeaseholdError, RuntimeError):
    """Something that needs a running flow or task was used outside one."""


class UnsupportedOptionError(LeaseholdError, TypeError):
    """An option that Prefect has and this package has not.

    Attributes:
        option: the option's name.
    """

    def __init__(self, message: str, *, option: str) -> None:
        super().__init__(message)
        self.option = option


class UnsupportedFeatureError(LeaseholdError, AttributeError):
    """A method that Prefect has and this package has not.

    Attributes:
        feature: what was asked for.
    """

    def __init__(self, message: str, *, feature: str) -> None:
        super().__init__(message)
        self.feature = feature


class UnsupportedImportError(LeaseholdError, ModuleNotFoundError):
    """A module or a name that Prefect has and this package has not.

    Attributes:
        feature: what was to be imported, as `prefect.blocks.system.Secret`.
    """

    def __init__(self, message: str, *, feature: str) -> None:
        super().__init__(message)
        self.feature = feature


class OptionError(LeaseholdError, ValueError):
    """An option of `@task` or `@flow` that cannot be meant.

    Attributes:
        option: the option's name.
        value: what was given.
    """

    def __init__(self, message: str, *, option: str, value: object) -> None:
        super().__init__(message)
        self.option = option
        self.value = value


class ParameterError(LeaseholdError, TypeError):
    """Arguments that do not fit the function they were given to."""


class ParameterBindError(ParameterError):
    """Too many arguments, too few, or one that the function does not know."""


class MappingMissingIterableError(ParameterBindError):
    """`map` got nothing to map over."""


class MappingLengthMismatchError(ParameterBindError):
    """`map` got lists of different lengths."""


class ParameterTypeError(ParameterError):
    """An argument of a type that the function's annotations do not allow.

    Attributes:
        parameters: the names of the parameters.
    """

    def __init__(self, message: str, *, parameters: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.parameters = tuple(parameters)


class RunError(LeaseholdError):
    """A run gives no result, and no exception of its own either.

    Attributes:
        run: the run's name; None: not known, as for a state that code has made up.
    """

    def __init__(self, message: str, *, run: str | None = None) -> None:
        super().__init__(message)
        self.run = run


class FailedRunError(RunError):
    """The run said itself that it failed, as by returning `Failed(...)`."""


class CrashedRunError(RunError):
    """The run was ended from outside its own code."""


class CancelledRunError(RunError):
    """The run was cancelled before it could finish."""


class UnfinishedRunError(RunError):
    """The run has not ended yet."""


class MissingResultError(RunError):
    """The run's result is lost. Results stay in memory here, so that it is never raised."""


class RunTimeoutError(LeaseholdError, TimeoutError):
    """The run took longer than its `timeout_seconds`.

    Attributes:
        timeout_seconds: the time that was allowed, in seconds.
    """

    def __init__(self, message: str, *, timeout_seconds: float) -> None:
        super().__init__(message)
        self.timeout_seconds = timeout_seconds


class UpstreamFailedError(LeaseholdError):
    """A task did not start, because an input of it came from a run that failed.

    Attributes:
        run: the name of the run that did not start; the flow's, where that has none yet.
        input: the name of the run that failed; None: of a state that code has made up.
        reason: what became of that.
    """

    def __init__(self, who: str, reason: str, *, run: str, input: str | None) -> None:  # noqa: A002 - says it best
        super().__init__(f"{who} did not start: {reason}")
        self.run = run
        self.input = input
        self.reason = reason


class DeadlockError(LeaseholdError, RuntimeError):
    """A task waits for one that can never start, because those who wait hold all that it needs.

    Attributes:
        parent: the name of the run that waits.
        child: the name of the run that it waits for.
        tag: the tag whose slots are all held by runs that wait; None: the workers of the task
            runner are.
    """

    def __init__(self, message: str, *, parent: str, child: str, tag: str | None) -> None:
        super().__init__(message)
        self.parent = parent
        self.child = child
        self.tag = tag


class UnpicklableError(LeaseholdError, TypeError):
    """Work that cannot travel to another process.

    Attributes:
        task: the task's name.
        parameter: the parameter that cannot be pickled; None: the function, or the result.
    """

    def __init__(self, message: str, *, task: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.task = task
        self.parameter = parameter


class WorkerDiedError(LeaseholdError):
    """The process that ran a task ended under it.

    Attributes:
        pid: the process.
        exit_code: its exit code; a negative number is the signal that ended it.
    """

    def __init__(self, message: str, *, pid: int, exit_code: int | None) -> None:
        super().__init__(message)
        self.pid = pid
        self.exit_code = exit_code


class InvalidTagError(LeaseholdError, ValueError):
    """A tag or limit name that no server accepts.

    Attributes:
        tag: what was given.
    """

    def __init__(self, message: str, *, tag: object) -> None:
        super().__init__(message)
        self.tag = tag


class InvalidLimitError(LeaseholdError, ValueError):
    """A number that cannot be a limit's size, its slots in use, or its decay.

    Attributes:
        name: the limit's name or the tag.
        value: what was given.
    """

    def __init__(self, message: str, *, name: str, value: object) -> None:
        super().__init__(message)
        self.name = name
        self.value = value


class ServerError(LeaseholdError):
    """The server could not be used.

    Attributes:
        address: the server's URL, without credentials.
    """

    def __init__(self, message: str, *, address: str) -> None:
        super().__init__(message)
        self.address = address


class ServerUnreachableError(ServerError):
    """The server does not answer.

    Attributes:
        delivered: False when the request certainly never reached the server; True when it may have
            been carried out although no reply came back.
    """

    def __init__(self, message: str, *, address: str, delivered: bool = False) -> None:
        super().__init__(message, address=address)
        self.delivered = delivered


class NotAPrefectServerError(ServerError):
    """Something answers at this address, but it is no Prefect server."""


class ServerTooOldError(ServerError):
    """A Prefect server of a version that cannot hold these limits.

    Attributes:
        version: what the server says it is.
    """

    def __init__(self, message: str, *, address: str, version: str) -> None:
        super().__init__(message, address=address)
        self.version = version


class AuthenticationError(ServerError):
    """The server refuses the key or the password (401), or the right to do this (403)."""


class UnexpectedReplyError(ServerError):
    """The server answered what no known version answers.

    Attributes:
        status: the HTTP status code.
    """

    def __init__(self, message: str, *, address: str, status: int) -> None:
        super().__init__(message, address=address)
        self.status = status


class LedgerError(LeaseholdError):
    """The embedded ledger's file cannot be used.

    Attributes:
        path: the file.
    """

    def __init__(self, message: str, *, path: Path) -> None:
        super().__init__(message)
        self.path = path


class LimitNotFoundError(LeaseholdError, LookupError):
    """Administration: there is no such limit.

    Attributes:
        name: the limit's name or the tag.
    """

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class LimitExistsError(LeaseholdError):
    """Administration: a limit of this name exists already.

    Attributes:
        name: the limit's name or the tag.
    """

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class LimitInUseError(LeaseholdError):
    """Administration: this cannot be done while slots of the limits are held.

    Attributes:
        names: the limits or the tags whose slots are held.
    """

    def __init__(self, message: str, *, names: Iterable[str]) -> None:
        super().__init__(message)
        self.names = tuple(names)


class ConcurrencySlotAcquisitionError(LeaseholdError):
    """No slot could be had.

    Attributes:
        names: the limits that were asked for.
    """

    def __init__(self, message: str, *, names: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.names = tuple(names)


class AcquireConcurrencySlotTimeoutError(ConcurrencySlotAcquisitionError, TimeoutError):
    """No slot could be had within the time allowed, the time in the queue included.

    Attributes:
        timeout_seconds: the time that was allowed, in seconds.
    """

    def __init__(self, message: str, *, names: Iterable[str], timeout_seconds: float) -> None:
        super().__init__(message, names=names)
        self.timeout_seconds = timeout_seconds


class ZeroLimitError(ConcurrencySlotAcquisitionError):
    """A limit of 0 admits nothing: waiting would be for ever."""


class SlotsOverLimitError(ConcurrencySlotAcquisitionError):
    """More slots were asked for than the limit has: waiting would be for ever.

    Attributes:
        occupy: the number of slots asked for.
        limit: the limit's size.
    """

    def __init__(self, message: str, *, names: Iterable[str], occupy: int, limit: int) -> None:
        super().__init__(message, names=names)
        self.occupy = occupy
        self.limit = limit


class NotARateLimitError(ConcurrencySlotAcquisitionError):
    """`rate_limit()` was used on a limit without slot decay."""


class LeaseLostError(LeaseholdError):
    """A slot was held, and is not held any more.

    Attributes:
        names: the limits of the lease.
        reason: why it was lost.
        renewed_seconds_ago: age of the last renewal that the server confirmed, in seconds.
    """

    def __init__(
        self, message: str, *, names: Iterable[str], reason: str, renewed_seconds_ago: float
    ) -> None:
        super().__init__(message)
        self.names = tuple(names)
        self.reason = reason
        self.renewed_seconds_ago = renewed_seconds_ago


# Prefect's names: for the `except` and the `import` of code that is ported.
PrefectException = LeaseholdError
FailedRun = FailedRunError
CrashedRun = CrashedRunError
CancelledRun = CancelledRunError
UnfinishedRun = UnfinishedRunError
MissingResult = MissingResultError
UpstreamTaskError = UpstreamFailedError
MappingMissingIterable = MappingMissingIterableError
MappingLengthMismatch = MappingLengthMismatchError
ObjectNotFound = LimitNotFoundError
ObjectAlreadyExists = LimitExistsError
