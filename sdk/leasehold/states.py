"""What became of a run: a `State`, and functions that make one.

The names are Prefect's, so that code which looks at states ports with the first word of its
imports. A flow or a task may return a state to say itself how it ended.
"""

from __future__ import annotations

import datetime as dt
import enum
import time
import uuid
from typing import Any, Generic, TypeVar

from leasehold.exceptions import (
    CancelledRunError,
    CrashedRunError,
    FailedRunError,
    RunTimeoutError,
    UnfinishedRunError,
)

R = TypeVar("R")


class StateType(str, enum.Enum):
    """The kinds of state."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"


_FINAL = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED})


class State(Generic[R]):
    """What became of a run.

    Example:
        >>> from leasehold.states import Completed
        >>> Completed(data=42).result()
        42

    Args:
        type: the kind.
        name: the kind in words; more special than `type` ("Retrying", "NotReady").
        message: one line for people.
        data: the result of a completed run, the exception of a failed one.

    Attributes:
        run_name: the run that has been in it; None: code has made it up, and no run ended so.
    """

    # A run goes through three of these, and may take no more than a few microseconds for all.
    __slots__ = ("_id", "_seconds", "data", "message", "name", "run_name", "type")

    def __init__(
        self,
        type: StateType,  # noqa: A002 - Prefect's name
        name: str | None = None,
        message: str | None = None,
        data: Any = None,
    ) -> None:
        self.type = StateType(type)
        self.name = name or _NAMES[self.type]
        self.message = message
        self.data = data
        self.run_name: str | None = None
        self._seconds = time.time()
        self._id: uuid.UUID | None = None

    @property
    def timestamp(self) -> dt.datetime:
        """Since when."""
        return dt.datetime.fromtimestamp(self._seconds, dt.timezone.utc)

    @property
    def id(self) -> uuid.UUID:
        """The id of this state."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    def is_scheduled(self) -> bool:
        """Whether the run is to start later."""
        return self.type is StateType.SCHEDULED

    def is_pending(self) -> bool:
        """Whether the run waits: for its inputs, for a slot, or for a worker."""
        return self.type is StateType.PENDING

    def is_running(self) -> bool:
        """Whether the run is under way."""
        return self.type is StateType.RUNNING

    def is_completed(self) -> bool:
        """Whether the run ended well."""
        return self.type is StateType.COMPLETED

    def is_failed(self) -> bool:
        """Whether the run raised."""
        return self.type is StateType.FAILED

    def is_crashed(self) -> bool:
        """Whether the run was ended from outside its own code."""
        return self.type is StateType.CRASHED

    def is_cancelled(self) -> bool:
        """Whether the run was cancelled."""
        return self.type is StateType.CANCELLED

    def is_cancelling(self) -> bool:
        """Whether the run is being cancelled."""
        return self.type is StateType.CANCELLING

    def is_paused(self) -> bool:
        """Whether the run is paused; runs of this package never are."""
        return self.type is StateType.PAUSED

    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self.type in _FINAL

    def result(self, raise_on_failure: bool = True) -> Any:  # noqa: FBT001, FBT002 - Prefect's
        """Give the result, or raise what the run raised.

        In a running event loop it must be awaited, as with Prefect; see `outcome` for a method
        that is the same everywhere.

        Args:
            raise_on_failure: False: give the exception instead of raising it.

        Raises:
            RunError: the run has not ended, or no exception of its own ended it.
        """
        if _in_event_loop():
            return self.aresult(raise_on_failure)
        return self.outcome(raise_on_failure=raise_on_failure)

    async def aresult(self, raise_on_failure: bool = True) -> Any:  # noqa: FBT001, FBT002 - Prefect's
        """Give the result where code is async; see `result`."""
        return self.outcome(raise_on_failure=raise_on_failure)

    def outcome(self, *, raise_on_failure: bool = True) -> Any:
        """Give the result, or raise what the run raised; see `result`."""
        if self.type is StateType.COMPLETED:
            return self.data
        error = self._error()
        if raise_on_failure:
            raise error
        return error

    def _error(self) -> BaseException:
        data = self.data
        if isinstance(data, BaseException):
            return data
        if isinstance(data, State):
            return data._error()  # noqa: SLF001 - another one of this class
        for one in data if isinstance(data, (list, tuple, set, frozenset)) else ():
            if isinstance(one, State) and not one.is_completed():
                return one._error()  # noqa: SLF001 - likewise
        who = "The run" if self.run_name is None else f"Run {self.run_name!r}"
        if not self.is_final():
            return UnfinishedRunError(
                f"{who} has not ended yet: it is {self.name}.", run=self.run_name
            )
        why = f": {self.message}" if self.message else "."
        return _ERRORS[self.type](f"{who} ended as {self.name}{why}", run=self.run_name)

    def __repr__(self) -> str:
        return f"{self.name}({'' if self.message is None else repr(self.message)})"


_NAMES = {kind: kind.value.capitalize() for kind in StateType}

_ERRORS = {
    StateType.FAILED: FailedRunError,
    StateType.CRASHED: CrashedRunError,
    StateType.CANCELLED: CancelledRunError,
}


def _in_event_loop() -> bool:
    import sys

    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001 - public in asyncio's documentation


def Scheduled(**kwargs: Any) -> State[Any]:  # noqa: N802 - Prefect's name
    """Make a state of a run that is to start later."""
    return State(StateType.SCHEDULED, **kwargs)


def Pending(**kwargs: Any) -> State[Any]:  # noqa: N802 - Prefect's name
    """Make a state of a run that waits."""
    return State(StateType.PENDING, **kwargs)


def NotReady(**kwargs: Any) -> State[Any]:  # noqa: N802 - Prefect's name
    """Make a state of a run that did not start, because an input of it failed."""
    return State(StateType.PENDING, **{"name": "NotReady", **kwargs})


def Running(**kwargs: Any) -> State[Any]:  # noqa: N802 - Prefect's name
    """Make a state of a run that is under way."""
    return State(StateType.RUNNING, **kwargs)


def Retrying(**kwargs: Any) -> State[Any]:  # noqa: N802 - Prefect's name
    """Make a state of a run that failed before and is under way again."""
    return State(StateType.RUNNING, **{"name": "Retrying", **kwargs})


def AwaitingRetry(**kwargs: Any) -> State[Any]:  # noqa: N802 - Prefect's name
    """Make a state of a run that failed and is to start again."""
    return State(StateType.SCHEDULED, **{"name": "AwaitingRetry", **kwargs})


def Completed(**kwargs: Any) -> State[Any]:  # noqa: N802 - Prefect's name
    """Make a state of a run that ended well."""
    return State(StateType.COMPLETED, **kwargs)


def Failed(**kwargs: Any) -> State[Any]:  # noqa: N802 - Prefect's name
    """Make a state of a run that raised."""
    return State(StateType.FAILED, **kwargs)


def TimedOut(**kwargs: Any) -> State[Any]:  # noqa: N802 - named like the others
    """Make a state of a run that took longer than its `timeout_seconds`."""
    return State(StateType.FAILED, **{"name": "TimedOut", **kwargs})


def Crashed(**kwargs: Any) -> State[Any]:  # noqa: N802 - Prefect's name
    """Make a state of a run that was ended from outside its own code."""
    return State(StateType.CRASHED, **kwargs)


def Cancelled(**kwargs: Any) -> State[Any]:  # noqa: N802 - Prefect's name
    """Make a state of a run that was cancelled."""
    return State(StateType.CANCELLED, **kwargs)


def Cancelling(**kwargs: Any) -> State[Any]:  # noqa: N802 - Prefect's name
    """Make a state of a run that is being cancelled."""
    return State(StateType.CANCELLING, **kwargs)


def described(error: BaseException) -> str:
    """Say what an error is, in one line."""
    kind, text = type(error).__name__, str(error)
    return f"{kind}: {text}" if text else kind


def state_of(error: BaseException, *, cancelled: bool = False) -> State[Any]:
    """Make the state of a run that an error ended.

    Args:
        error: what was raised.
        cancelled: whether the run was asked to end, so that anything it raised is due to that.
    """
    message = described(error)
    if isinstance(error, GeneratorExit):
        return Completed(message="Its consumer wanted no more.")
    # By name: neither event loop is worth importing here for runs that have none.
    names = {"KeyboardInterrupt", "CancelledError", "Cancelled"}
    if cancelled or isinstance(error, CancelledRunError) or type(error).__name__ in names:
        return Cancelled(message=message, data=error)
    if isinstance(error, RunTimeoutError):
        return TimedOut(message=message, data=error)
    if isinstance(error, Exception):
        return Failed(message=message, data=error)
    return Crashed(message=message, data=error)


def state_of_value(value: Any) -> State[Any]:
    """Make the last state of a run from what its function gave.

    As with Prefect, a state that the function has made up is that state. States of other runs, one
    or a collection of them, are the result, and fail the run if one of them is no success.
    """
    if isinstance(value, State) and value.run_name is None:
        if value.is_final():
            return value
        return Failed(message=f"It returned {value!r}, which is no last state.")
    states = list(value) if isinstance(value, (list, tuple, set)) else [value]
    if not states or not all(isinstance(state, State) for state in states):
        return Completed(data=value)
    failed = sum(not state.is_completed() for state in states)
    if not failed:
        return Completed(message="All its results completed.", data=value)
    make = Cancelled if any(state.is_cancelled() for state in states) else Failed
    return make(message=f"{failed} of its {len(states)} results failed.", data=value)
