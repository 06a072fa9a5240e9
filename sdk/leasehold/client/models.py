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


class RunHolder(BaseModel):
    """A run that holds a slot, as far as the server knows it.

    Attributes:
        id: of the run.
        name: of the run; None when the server does not know the run.
        state: the name of the run's state; None likewise.
        since: when the run started; None likewise.
    """

    model_config = ConfigDict(frozen=True)

    id: UUID
    name: str | None = None
    state: str | None = None
    since: datetime | None = None


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
