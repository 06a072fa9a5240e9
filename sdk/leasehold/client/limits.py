"""Limits of tags, on any server, as plans (see `plans`).

Where a tag's limit lives depends on the server (PROTOCOL.md, first table). Both forms are asked,
and they tell by themselves which of these it is:

- the global limit `tag:<tag>` *is* the tag's limit: both forms have one id;
- there is no such global limit: the list of holders is all there is, and all count;
- there are both, apart (`limit convert`, on 3.4.9 - 3.4.18): what holds leases counts in the one,
  what uses the old tag calls in the other.
"""

from __future__ import annotations

import contextlib
from datetime import datetime  # noqa: TC003 - pydantic reads the annotations
from typing import Any, Final
from uuid import UUID  # noqa: TC003 - pydantic reads the annotations

from pydantic import BaseModel, TypeAdapter, ValidationError

from leasehold.client import holders
from leasehold.client.changes import changing
from leasehold.client.dialect import TAG_CALLS
from leasehold.client.global_limits import GlobalLimits
from leasehold.client.models import (
    ConcurrencyLimit,
    ConcurrencyLimitUse,
    GlobalConcurrencyLimitResponse,
    RunHolder,
)
from leasehold.client.names import TAG_PREFIX, check_size, check_tag, in_path, tag_limit
from leasehold.client.plans import NOT_FOUND, PAGE, Plan, check_page
from leasehold.exceptions import LimitNotFoundError

_TAGS: Final = "/concurrency_limits/"


class _Run(BaseModel):
    id: UUID
    name: str = ""
    flow_run_id: UUID | None = None
    state_type: str | None = None
    state_name: str | None = None
    start_time: datetime | None = None


_TAG_LIMIT: Final = TypeAdapter(ConcurrencyLimit)
_TAG_LIMITS: Final = TypeAdapter(list[ConcurrencyLimit])
_RUNS: Final = TypeAdapter(list[_Run])

#: The types of states that a run does not leave.
_FINAL: Final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Limits(GlobalLimits):
    """The operations on one server, as plans.

    Args:
        settings: where the server is.
        clock: seconds that only ever grow.
    """

    def create_concurrency_limit(self, tag: str, concurrency_limit: int) -> Plan[UUID]:
        """Make a tag's limit, or change it where there is one.

        Example:
            >>> with get_client(sync_client=True) as client:
            ...     client.create_concurrency_limit("database", 3)

        Args:
            tag: whose limit; none of ``/ % & > <``.
            concurrency_limit: how many may run at once; 0 admits nobody.

        Raises:
            InvalidTagError: servers refuse the tag.
            InvalidLimitError: the number cannot be a limit.
        """
        name = tag_limit(check_tag(tag))
        body = {"tag": tag, "concurrency_limit": check_size(concurrency_limit, tag)}
        with changing(name):
            answer = yield from self._ask("POST", _TAGS, body)
            made = self._read(_TAG_LIMIT, answer, name)
            if (yield from self._is_converted()):
                yield from self.upsert_global_concurrency_limit_by_name(name, concurrency_limit)
        return made.id

    def read_concurrency_limit_by_tag(self, tag: str) -> Plan[ConcurrencyLimit]:
        """Read a tag's limit, and which task runs hold its slots.

        Raises:
            LimitNotFoundError: the tag has no limit.
        """
        answer = yield from self._ask("GET", (yield from self._tag_path(tag)))
        return self._read(_TAG_LIMIT, answer, tag_limit(tag))

    def read_concurrency_limits(
        self, limit: int | None = None, offset: int = 0
    ) -> Plan[list[ConcurrencyLimit]]:
        """List the limits of tags.

        Args:
            limit: how many to list at most; None lists all. There is no upper bound, although
                servers give 200 at once: they are asked again.
            offset: how many to leave out first.
        """
        uses = yield from self.read_concurrency_limit_uses(limit, offset)
        return [use.limit for use in uses]

    def read_concurrency_limit_use(self, tag: str) -> Plan[ConcurrencyLimitUse]:
        """Read a tag's limit, and how much of it is used.

        Raises:
            LimitNotFoundError: the tag has no limit.
        """
        limit = yield from self.read_concurrency_limit_by_tag(tag)
        return ConcurrencyLimitUse(limit=limit, counted=(yield from self._counted(tag)))

    def read_concurrency_limit_uses(
        self, limit: int | None = None, offset: int = 0
    ) -> Plan[list[ConcurrencyLimitUse]]:
        """List the limits of tags, and how much of each is used.

        Args:
            limit: how many to list at most; None lists all.
            offset: how many to leave out first.
        """
        check_page(limit, offset)
        counted = {one.name: one for one in (yield from self.read_global_concurrency_limits(None))}
        found = yield from self._all_tags(counted)
        uses = [
            ConcurrencyLimitUse(limit=one, counted=counted.get(TAG_PREFIX + one.tag))
            for one in sorted(found, key=lambda one: one.tag)
        ]
        return uses[offset:] if limit is None else uses[offset : offset + limit]

    def update_concurrency_limit(self, tag: str, concurrency_limit: int) -> Plan[None]:
        """Change a tag's limit; unlike `create_concurrency_limit`, never make one.

        Raises:
            LimitNotFoundError: the tag has no limit.
            InvalidLimitError: the number cannot be a limit.
        """
        name, size = tag_limit(tag), check_size(concurrency_limit, tag)
        with changing(name):
            use = yield from self.read_concurrency_limit_use(tag)
            if use.counted is not None:
                yield from self._patch(tag, limit=size)
            if not use.is_shared:
                body = {"tag": tag, "concurrency_limit": size}
                self._check((yield from self._ask("POST", _TAGS, body)), name)

    def reset_concurrency_limit_by_tag(
        self, tag: str, slot_override: list[UUID | str] | None = None
    ) -> Plan[None]:
        """Take a tag's slots from all who hold them.

        Tasks that hold one go on; until they end, more may run than the limit says.

        Args:
            tag: whose slots.
            slot_override: task runs that hold a slot afterwards. Nothing takes these slots back.

        Raises:
            LimitNotFoundError: the tag has no limit.
        """
        holding = [str(one) for one in slot_override or []]
        with changing(tag_limit(tag)):
            if "/" in tag:
                yield from self._reset_by_hand(tag, holding)
            else:
                path = f"{yield from self._tag_path(tag)}/reset"
                answer = yield from self._ask("POST", path, {"slot_override": holding or None})
                self._check(answer, tag_limit(tag))
            # Servers forget the counter (PROTOCOL.md, "Server defects").
            yield from self.settle_concurrency_limit_counter(tag)

    def delete_concurrency_limit_by_tag(self, tag: str) -> Plan[None]:
        """Delete a tag's limit. Tasks that hold a slot go on; waiting ones start.

        Raises:
            LimitNotFoundError: the tag has no limit.
        """
        with changing(tag_limit(tag)):
            answer = yield from self._ask("DELETE", (yield from self._tag_path(tag)))
            if not (answer.repeated and answer.status == NOT_FOUND):
                self._check(answer, tag_limit(tag))
            if (yield from self.read_server()).tags is TAG_CALLS:
                with contextlib.suppress(LimitNotFoundError):
                    yield from self.delete_global_concurrency_limit_by_name(tag_limit(tag))

    def read_concurrency_limit_holders(self, tag: str) -> Plan[list[RunHolder]]:
        """Say who holds a tag's slots, with what the server and the holders' ids say of each.

        Raises:
            LimitNotFoundError: the tag has no limit.
        """
        use = yield from self.read_concurrency_limit_use(tag)
        return (yield from self.read_holders([use]))[0]

    def read_holders(self, uses: list[ConcurrencyLimitUse]) -> Plan[list[list[RunHolder]]]:
        """Say who holds the slots of each of these limits."""
        everyone = {holder for use in uses for holder in use.limit.active_slots}
        strangers = sorted(holder for holder in everyone if holders.read_id(holder) is None)
        runs = yield from self._runs("task_runs", strangers)
        flow_runs = yield from self._runs(
            "flow_runs", sorted({run.flow_run_id for run in runs.values() if run.flow_run_id})
        )
        return [
            [
                _holder(one, runs.get(one), flow_runs, expires=self._expires(use))
                for one in use.limit.active_slots
            ]
            for use in uses
        ]

    def revoke_concurrency_limit_slot(self, tag: str, holder: UUID) -> Plan[None]:
        """Take a tag's slot from one holder. Its task, if there is one, goes on.

        Args:
            tag: whose slot.
            holder: as the limit lists it.
        """
        body = {"names": [tag], "task_run_id": str(holder)}
        with changing(tag_limit(tag)):
            answer = yield from self._ask("POST", f"{_TAGS}decrement", body)
        self._check(answer, tag_limit(tag))

    def settle_concurrency_limit_counter(
        self, tag: str, *, at_most: int | None = None
    ) -> Plan[int]:
        """Make a tag's counter say what the list of its holders says.

        Args:
            tag: whose counter.
            at_most: change it by so many slots at most; None: by as many as it takes.

        Returns:
            How many slots this freed; negative: so many were not counted.

        Raises:
            LimitNotFoundError: the tag has no limit.
        """
        use = yield from self.read_concurrency_limit_use(tag)
        most = abs(use.unlisted) if at_most is None else at_most
        change = max(-most, min(use.unlisted, most))
        if change > 0:
            # Relative, so that a slot that is taken or given back meanwhile counts all the same.
            body = {"names": [tag_limit(tag)], "slots": change}
            answer = yield from self._ask("POST", "/v2/concurrency_limits/decrement", body)
            self._check(answer, tag_limit(tag))
        elif change < 0 and use.counted is not None:
            yield from self._patch(tag, active_slots=use.counted.active_slots - change)
        return change

    # -- what they share

    def _expires(self, use: ConcurrencyLimitUse) -> bool | None:
        """Say whether slots of others come back by themselves; None: the server does not say."""
        if self._settings.api_url is None:
            return True  # the ledger knows the holders' processes
        return None if use.is_shared else False

    def _counted(self, tag: str) -> Plan[GlobalConcurrencyLimitResponse | None]:
        with contextlib.suppress(LimitNotFoundError):
            return (yield from self.read_global_concurrency_limit_by_name(tag_limit(tag)))
        return None

    def _is_converted(self) -> Plan[bool]:
        """Say whether tags have global limits beside their own: see `convert`."""
        if not (yield from self.read_server()).may_be_converted:
            return False
        everything = yield from self.read_global_concurrency_limits(None)
        return any(one.name.startswith(TAG_PREFIX) for one in everything)

    def _patch(self, tag: str, **values: int) -> Plan[None]:
        path = yield from self._global_path(tag_limit(tag))
        self._check((yield from self._ask("PATCH", path, values)), tag_limit(tag))

    def _tag_path(self, tag: str) -> Plan[str]:
        """Give the path of a tag's limit; by its id where it has a slash, see `_global_path`."""
        quoted = in_path(tag, "tag")
        if "/" in tag:
            counted = yield from self.read_global_concurrency_limits(None)
            everything = yield from self._all_tags({one.name: one for one in counted})
            for one in everything:
                if one.tag == tag:
                    return f"{_TAGS}{one.id}"
        return f"{_TAGS}tag/{quoted}"

    def _reset_by_hand(self, tag: str, holding: list[str]) -> Plan[None]:
        """Do what a server's reset does, where it cannot be asked for: there is none by id."""
        limit = yield from self.read_concurrency_limit_by_tag(tag)
        for holder in limit.active_slots:
            yield from self.revoke_concurrency_limit_slot(tag, holder)
        for one in holding:
            body = {"names": [tag], "task_run_id": one}
            answer = yield from self._ask("POST", f"{_TAGS}increment", body)
            self._check(answer, tag_limit(tag))

    def _all_tags(
        self, counted: dict[str, GlobalConcurrencyLimitResponse]
    ) -> Plan[list[ConcurrencyLimit]]:
        """List the limits of all tags.

        A server makes a page of them by looking at so many limits *of any name* and leaving out
        those that are no tag's: a short page, even an empty one, is not the end. So what is
        missing is looked up, from the list of all limits, which has no such gaps.
        """
        found: dict[str, ConcurrencyLimit] = {}
        while True:
            before = len(found)
            body = {"limit": PAGE, "offset": before}
            answer = yield from self._ask("POST", f"{_TAGS}filter", body)
            page = self._read(_TAG_LIMITS, answer, "")
            found |= {one.tag: one for one in page}
            if len(found) == before or len(page) < PAGE >= len(counted):
                break
        for name, limit in counted.items():
            tag = name.removeprefix(TAG_PREFIX)
            if tag != name and tag not in found:
                answer = yield from self._ask("GET", f"{_TAGS}{limit.id}")
                with contextlib.suppress(LimitNotFoundError):  # deleted meanwhile
                    found[tag] = self._read(_TAG_LIMIT, answer, name)
        return list(found.values())

    def _runs(self, kind: str, ids: list[UUID]) -> Plan[dict[UUID, _Run]]:
        """Read the runs that the server knows; they are a courtesy, so nothing is raised here."""
        known: dict[UUID, _Run] = {}
        for first in range(0, len(ids), PAGE):
            page = [str(one) for one in ids[first : first + PAGE]]
            body = {kind: {"id": {"any_": page}}, "limit": PAGE}
            answer = yield from self._ask("POST", f"/{kind}/filter", body)
            with contextlib.suppress(ValidationError):
                known |= {run.id: run for run in _RUNS.validate_json(answer.body)}
        return known


def _holder(
    holder: UUID, run: _Run | None, flow_runs: dict[UUID, _Run], *, expires: bool | None
) -> RunHolder:
    origin = holders.read_id(holder)
    if origin is not None:
        return RunHolder(id=holder, since=origin.since, expires=origin.expires, is_ours=True)
    if run is None:
        return RunHolder(id=holder, expires=expires)
    values: dict[str, Any] = {"name": run.name, "state": run.state_name, "since": run.start_time}
    parent = flow_runs.get(run.flow_run_id) if run.flow_run_id else None
    ended = [one for one in (run, parent) if one is not None and one.state_type in _FINAL]
    if ended and ended[0] is not run:
        values["state"] = f"{run.state_name}, in a flow run that is {ended[0].state_name}"
    return RunHolder(id=holder, expires=expires, has_ended=bool(ended), **values)
