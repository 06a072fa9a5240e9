"""Limits as Python objects. The names of classes and fields are those that authors know.

Results are frozen: they are what the server said at one moment. Descriptions of what is wanted
(`GlobalConcurrencyLimitCreate`, `GlobalConcurrencyLimitUpdate`) are not, and only the fields that
were set are sent. Their numbers are checked when they are used, by `names`, so that a wrong one
gets the same error from every way in.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads the annotations
from uuid import UUID  # noqa: TC003 - pydantic reads the annotations

from pydantic import BaseModel, ConfigDict, Field


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True)

    id: UUID
    created: datetime | None = None
    updated: datetime | None = None


class ConcurrencyLimit(_Result):
    """A tag's limit.

    Attributes:
        id: of the limit.
        created: when it was made.
        updated: when it was last changed; taking a slot changes it.
        tag: whose limit it is.
        concurrency_limit: how many may run at once.
        active_slots: the ids of the task runs that hold a slot. Holders of other kinds are not
            listed; the count of the global limit `tag:<tag>` includes them.
    """

    tag: str
    concurrency_limit: int
    active_slots: list[UUID] = Field(default_factory=list)


class GlobalConcurrencyLimitResponse(_Result):
    """A global limit.

    Attributes:
        id: of the limit.
        created: when it was made.
        updated: when it was last changed.
        active: whether it is enforced.
        name: by which it is asked for; a tag's limit is called `tag:<tag>`.
        limit: how many slots there are.
        active_slots: how many are in use.
        slot_decay_per_second: how many come back by themselves each second; above 0 it is a rate
            limit.
    """

    active: bool = True
    name: str
    limit: int
    active_slots: int
    slot_decay_per_second: float = 0.0


class ConcurrencyLimitUse(BaseModel):
    """A tag's limit, and how much of it is used.

    Attributes:
        limit: in the form of tags, with its holders.
        counted: in the form of global limits, with its counter; None where a server keeps tags
            apart, and their holders are the count.
    """

    model_config = ConfigDict(frozen=True)

    limit: ConcurrencyLimit
    counted: GlobalConcurrencyLimitResponse | None = None

    @property
    def is_shared(self) -> bool:
        """Whether both forms are one limit."""
        return self.counted is not None and self.counted.id == self.limit.id

    @property
    def used(self) -> int:
        """How many slots are in use, whoever counts them."""
        return len(self.limit.active_slots) + self.unlisted

    @property
    def unlisted(self) -> int:
        """How many slots are counted without a task run that holds them; below 0: uncounted."""
        if self.counted is None:
            return 0
        listed = len(self.limit.active_slots) if self.is_shared else 0
        return self.counted.active_slots - listed


class RunHolder(BaseModel):
    """A holder of a slot, as far as the server and the holder's id say.

    Attributes:
        id: of the task run, or of one slot of a task of this package: servers do not know its
            runs.
        name: of the run; None when the server does not know it.
        state: the name of the run's state; None likewise.
        since: when the run started, or when the slot was asked for; None when nobody says.
        expires: whether the slot comes back when its holder no longer reports; None when the
            server does not say.
        has_ended: whether the run, or the flow run that it belongs to, is in a final state.
        is_ours: whether this package took the slot.
    """

    model_config = ConfigDict(frozen=True)

    id: UUID
    name: str | None = None
    state: str | None = None
    since: datetime | None = None
    expires: bool | None = None
    has_ended: bool = False
    is_ours: bool = False


class _Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class GlobalConcurrencyLimitCreate(_Wanted):
    """A global limit that is to be made.

    Example:
        >>> GlobalConcurrencyLimitCreate(name="api", limit=10, slot_decay_per_second=2.0).limit
        10

    Args:
        name: none of ``/ % & > <``.
        limit: how many slots, 0 or more.
        active: whether it is enforced.
        active_slots: how many slots are in use from the start.
        slot_decay_per_second: above 0 for a rate limit.
    """

    name: str
    limit: int
    active: bool | None = True
    active_slots: int | None = 0
    slot_decay_per_second: float | None = 0.0


class GlobalConcurrencyLimitUpdate(_Wanted):
    """What is to change of a global limit; what is not given stays.

    Example:
        >>> GlobalConcurrencyLimitUpdate(limit=3).model_dump(exclude_unset=True)
        {'limit': 3}

    Args:
        name: a new name, none of ``/ % & > <``.
        limit: how many slots, 0 or more.
        active: whether it is enforced.
        active_slots: how many slots are in use.
        slot_decay_per_second: above 0 for a rate limit.
    """

    name: str | None = None
    limit: int | None = None
    active: bool | None = None
    active_slots: int | None = None
    slot_decay_per_second: float | None = None
