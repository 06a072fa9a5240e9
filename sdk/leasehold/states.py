"""What became of a run: a `State`, and functions that make one.

The names are Prefect's, so that code which looks at states ports with the first word of its
imports.
"""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from leasehold.exceptions import CancelledRunError, LeaseholdError

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


_FINAL = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED})


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


@dataclass(frozen=True, slots=True)
class State(Generic[R]):
    """What became of a run.

    Example:
        >>> from leasehold.states import Completed
        >>> Completed(data=42).result()
        42

    Attributes:
        type: the kind.
        name: the kind in words; more special than `type` ("Retrying", "NotReady").
        message: one line for people.
        data: the result of a completed run, the exception of a failed one.
        timestamp: since when.
        id: of this state.
    """

    type: StateType
    name: str = ""
    message: str | None = None
    data: Any = field(default=None, repr=False)
    timestamp: dt.datetime = field(default_factory=_now, repr=False)
    id: uuid.UUID = field(default_factory=uuid.uuid4, repr=False)

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.type.value.capitalize())

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

    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self.type in _FINAL

    def result(self, raise_on_failure: bool = True) -> Any:  # noqa: FBT001, FBT002 - Prefect's
        """Give the result, or raise what the run raised.

        Args:
            raise_on_failure: False: give the exception instead of raising it.

        Raises:
            LeaseholdError: the run has not ended, or ended without saying why.
        """
        if self.type is StateType.COMPLETED:
            return self.data
        error = self.data
        if not self.is_final() and not isinstance(error, BaseException):
            raise LeaseholdError(f"The run has not ended yet: it is {self.name}.")
        if not isinstance(error, BaseException):
            kind = CancelledRunError if self.is_cancelled() else LeaseholdError
            error = kind(self.message or f"The run ended as {self.name}.")
        if raise_on_failure:
            raise error
        return error


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


def Crashed(**kwargs: Any) -> State[Any]:  # noqa: N802 - Prefect's name
    """Make a state of a run that was ended from outside its own code."""
    return State(StateType.CRASHED, **kwargs)


def Cancelled(**kwargs: Any) -> State[Any]:  # noqa: N802 - Prefect's name
    """Make a state of a run that was cancelled."""
    return State(StateType.CANCELLED, **kwargs)
