"""What is wrong with limits, and how it is mended: plans (see `plans`), and pure judgement.

Rules:

- a server is looked at twice, some time apart, and only what both looks show is a finding: a slot
  in motion is counted before it is listed, and listed after it is not held any more;
- what live work may look like too is a *suspicion*. It is mended only when somebody insists;
- sizes of limits are people's choice: they are told, never changed.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID  # noqa: TC003 - pydantic reads the annotations

from pydantic import BaseModel, ConfigDict

from leasehold.client.models import (  # noqa: TC001 - pydantic reads the annotations
    ConcurrencyLimitUse,
    GlobalConcurrencyLimitResponse,
    RunHolder,
)
from leasehold.client.names import TAG_PREFIX
from leasehold.client.wire import describe
from leasehold.exceptions import LimitNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from leasehold.client.limits import Limits
    from leasehold.client.plans import Plan

Kind = Literal["stale holder", "long holder", "unlisted slots", "uncounted slots", "size"]

#: One of our slots that cannot expire is worth a word when it is older than this.
_LONG: Final = dt.timedelta(hours=1)


class Look(BaseModel):
    """All limits of a server at one moment.

    Attributes:
        at: when.
        tags: the limits of tags, each with its holders.
        others: the other limits.
    """

    model_config = ConfigDict(frozen=True)

    at: dt.datetime
    tags: list[tuple[ConcurrencyLimitUse, list[RunHolder]]]
    others: list[GlobalConcurrencyLimitResponse]


class Finding(BaseModel):
    """Something that is wrong with a limit.

    Attributes:
        name: of the limit; `tag:<tag>` where it is a tag's.
        kind: what is wrong: a holder whose run is over or unknown; a holder that is ours, cannot
            expire and is old; slots that are counted and that nobody on the list holds; slots that
            are held and not counted; a size that is 0, or differs from path to path.
        explanation: the same, in a sentence or two, with what to do.
        suspicion: live work may look like this too.
        holder: whose slot it is, where that is known.
        slots: how many slots it is about.
        mendable: whether `mend` can do something about it.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Kind
    explanation: str
    suspicion: bool = False
    holder: UUID | None = None
    slots: int = 0
    mendable: bool = True

    @property
    def tag(self) -> str | None:
        """The tag whose limit it is."""
        return self.name.removeprefix(TAG_PREFIX) if self.name.startswith(TAG_PREFIX) else None


def examine_limits(limits: Limits, tags: Sequence[str] = ()) -> Plan[Look]:
    """Look at all limits once, or at those of some tags; `findings` compares two looks.

    Example:
        >>> with get_client(sync_client=True) as client:
        ...     first = client.examine_limits()
        ...     time.sleep(5)
        ...     found = findings(first, client.examine_limits())

    Args:
        limits: the server's.
        tags: whose limits; empty: all limits.

    Raises:
        LimitNotFoundError: one of the tags has no limit.
    """
    others: list[GlobalConcurrencyLimitResponse] = []
    if tags:
        uses = []
        for tag in tags:
            use = yield from limits.read_concurrency_limit_use(tag)
            uses.append(use)
    else:
        uses = yield from limits.read_concurrency_limit_uses()
        everything = yield from limits.read_global_concurrency_limits(None)
        others = [one for one in everything if not one.name.startswith(TAG_PREFIX)]
    held_by = yield from limits.read_holders(uses)
    return Look(
        at=dt.datetime.now(dt.timezone.utc),
        tags=list(zip(uses, held_by, strict=True)),
        others=others,
    )


def mend_limit(limits: Limits, finding: Finding) -> Plan[None]:
    """Take back the slots of a finding. What has mended itself meanwhile stays as it is.

    Raises:
        ValueError: there is nothing that could be done about it: see `Finding.mendable`.
    """
    if not finding.mendable or finding.tag is None:
        raise ValueError(finding.explanation)
    try:
        if finding.holder is not None:
            yield from limits.revoke_concurrency_limit_slot(finding.tag, finding.holder)
        else:
            yield from limits.settle_concurrency_limit_counter(finding.tag, at_most=finding.slots)
    except LimitNotFoundError:
        return  # deleted meanwhile, and its slots with it


def findings(first: Look, second: Look) -> list[Finding]:
    """Say what two looks show both: see the module's rules. Pure."""
    earlier = {use.limit.tag: (use, holders) for use, holders in first.tags}
    found: list[Finding] = []
    for use, holders in second.tags:
        found += _of_sizes(use)
        if use.limit.tag in earlier:
            use_before, holders_before = earlier[use.limit.tag]
            known = {holder.id for holder in holders_before}
            found += _of_holders(use, [one for one in holders if one.id in known], second.at)
            found += _of_counter(use_before, use)
    for one in second.others:
        if one.active and not one.limit:
            found.append(_zero(one.name, f"leasehold gcl update {one.name!r} --limit N"))
    return found


def _of_sizes(use: ConcurrencyLimitUse) -> Iterator[Finding]:
    tag, size, counted = use.limit.tag, use.limit.concurrency_limit, use.counted
    name, change = TAG_PREFIX + tag, f"leasehold limit update {tag!r} N"
    enforced = counted.limit if counted is not None and counted.active else None
    if enforced == 0 or (size == 0 and not use.is_shared):
        yield _zero(name, change)
    if counted is not None and not use.is_shared and counted.limit != size:
        yield Finding(
            name=name,
            kind="size",
            explanation=f"Tag {tag!r} has a limit of {size} on the path of the old tag calls, and "
            f"of {counted.limit} on that of leases. Make them one: {change}",
            mendable=False,
        )


def _zero(name: str, change: str) -> Finding:
    return Finding(
        name=name,
        kind="size",
        explanation=f"The limit of {describe((name,))} is 0: it admits nobody, and what needs it "
        f"fails. Raise it: {change}",
        mendable=False,
    )


def _of_holders(
    use: ConcurrencyLimitUse, holders: list[RunHolder], now: dt.datetime
) -> Iterator[Finding]:
    for holder in holders:
        if holder.expires is True:
            continue  # it comes back by itself when nobody holds it
        what = _suspect(holder, now) if holder.is_ours else _stranger(holder)
        if what is None:
            continue
        lasts = " Such a slot never comes back by itself." if holder.expires is False else ""
        yield Finding(
            name=TAG_PREFIX + use.limit.tag,
            kind="long holder" if holder.is_ours else "stale holder",
            explanation=f"A slot of tag {use.limit.tag!r} is held by {what}.{lasts}",
            suspicion=holder.is_ours,
            holder=holder.id,
            slots=1,
        )


def _suspect(holder: RunHolder, now: dt.datetime) -> str | None:
    if holder.since is None or now - holder.since < _LONG:
        return None
    hours = (now - holder.since).total_seconds() / 3600
    return (
        f"a task of leasehold, for {hours:.0f} h, through the old tag calls ({holder.id}). It may "
        "run still; but if its machine was lost, nobody gives the slot back"
    )


def _stranger(holder: RunHolder) -> str | None:
    if holder.name is None:
        return f"task run {holder.id}, which the server does not know"
    if holder.has_ended:
        return f"task run {holder.name!r} ({holder.id}), which is {holder.state}"
    return None


def _of_counter(before: ConcurrencyLimitUse, use: ConcurrencyLimitUse) -> Iterator[Finding]:
    if not (before.is_shared and use.is_shared):
        return
    tag, listed = use.limit.tag, len(use.limit.active_slots)
    extra = min(before.unlisted, use.unlisted)
    missing = -max(before.unlisted, use.unlisted)
    seen = (
        f"The counter of tag {tag!r} says {_many(use.used, 'slot')}, and the list of task runs "
        f"that hold one has {listed}"
    )
    if extra > 0:
        yield Finding(
            name=TAG_PREFIX + tag,
            kind="unlisted slots",
            slots=extra,
            suspicion=True,
            explanation=f"{seen}. A restart of the server or a reset leaves it so, for ever. A "
            "flow that holds the limit by its name, or a holder of several slots, looks the same.",
        )
    elif missing > 0:
        yield Finding(
            name=TAG_PREFIX + tag,
            kind="uncounted slots",
            slots=missing,
            explanation=f"{seen}: more may run at once than the limit says.",
        )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
