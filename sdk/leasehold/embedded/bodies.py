"""What requests may contain, as real servers check it."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from uuid import UUID  # noqa: TC003 - pydantic reads the annotations

from pydantic import BaseModel, Field

#: The most that is listed at once.
PAGE: Final = 200

#: The largest number that SQLite keeps exactly. Real servers answer 500 beyond it.
_MOST: Final = 2**63 - 1

_Name = Annotated[str, Field(pattern=r"^[^/%&><]+$")]
_Slots = Annotated[int, Field(gt=0, le=_MOST)]
_Seconds = Annotated[float, Field(ge=60, le=86_400)]
_Count = Annotated[int, Field(ge=0, le=_MOST)]
_Decay = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Create(BaseModel, extra="forbid"):
    """A global limit that is to be made."""

    name: _Name
    limit: _Count
    active: bool = True
    active_slots: _Count = 0
    denied_slots: _Count = 0
    slot_decay_per_second: _Decay = 0.0


class Update(BaseModel, extra="forbid"):
    """What is to change of a global limit."""

    name: _Name | None = None
    limit: _Count | None = None
    active: bool | None = None
    active_slots: _Count | None = None
    denied_slots: _Count | None = None
    slot_decay_per_second: _Decay | None = None


class Holder(BaseModel, extra="forbid"):
    """Who takes slots."""

    type: Literal["flow_run", "task_run", "deployment"]
    id: UUID


class Increment(BaseModel):
    """Slots that are wanted."""

    slots: _Slots
    names: list[str]
    mode: Literal["concurrency", "rate_limit"] = "concurrency"


class IncrementWithLease(Increment):
    """Slots that are wanted for a time."""

    lease_duration: _Seconds = 300.0
    holder: Holder | None = None


class Decrement(BaseModel):
    """Slots that are given back, whoever held them."""

    slots: _Slots
    names: list[str]
    occupancy_seconds: Annotated[float, Field(gt=0)] | None = None


class DecrementWithLease(BaseModel):
    """A lease that is given back."""

    lease_id: UUID


class Renew(BaseModel):
    """How long a lease is to live from now on."""

    lease_duration: _Seconds = 300.0


class Page(BaseModel):
    """Which part of a list is wanted."""

    limit: _Count = PAGE
    offset: _Count = 0


class TagCreate(BaseModel):
    """A tag's limit that is to be made or changed."""

    tag: _Name
    concurrency_limit: Annotated[int, Field(ge=-_MOST, le=_MOST)]


class TagSlots(BaseModel):
    """A slot of each of these tags, for a task run."""

    names: list[str]
    task_run_id: UUID


class Reset(BaseModel):
    """Who is to hold a slot after all others have lost theirs."""

    slot_override: list[UUID] | None = None
