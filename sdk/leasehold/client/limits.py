"""Administration of limits: what to send, and what the answers mean. No I/O.

Each operation is a *plan*: a generator that yields a `Request`, receives the `Answer`, and returns
the result. `clients` runs the plans, for sync and for async callers. Rules:

- names and numbers are checked before the first request;
- a plan sees neither time-outs nor 429 nor 5xx: these are tried again below it. `Answer.repeated`
  says that an earlier try may have been carried out. Then "exists already" is what a create hoped
  for, and "not found" what a delete hoped for;
- whatever becomes of a change, those who remember limits are told of it (`changes`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from datetime import datetime  # noqa: TC003 - pydantic reads the annotations
from typing import Any, Final, TypeVar
from uuid import UUID  # noqa: TC003 - pydantic reads the annotations

from pydantic import BaseModel, TypeAdapter, ValidationError

from leasehold.client.changes import changing
from leasehold.client.models import (
    ConcurrencyLimit,
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitResponse,
    GlobalConcurrencyLimitUpdate,
    RunHolder,
)
from leasehold.client.names import (
    TAG_PREFIX,
    check_decay,
    check_limit_name,
    check_size,
    check_tag,
    in_path,
    tag_limit,
)
from leasehold.client.retries import Answer
from leasehold.client.wire import Request
from leasehold.exceptions import (
    LimitExistsError,
    LimitNotFoundError,
    ParameterError,
    UnexpectedReplyError,
)

T = TypeVar("T")

Plan = Generator[Request, Answer, T]

#: The most that servers give at once (PROTOCOL.md, "Limits, v1 form").
PAGE: Final = 200

_TAGS: Final = "/concurrency_limits/"
_GLOBALS: Final = "/v2/concurrency_limits/"
_NOT_FOUND, _CONFLICT = 404, 409


class _Run(BaseModel):
    id: UUID
    name: str
    state_name: str | None = None
    start_time: datetime | None = None


_TAG_LIMIT: Final = TypeAdapter(ConcurrencyLimit)
_TAG_LIMITS: Final = TypeAdapter(list[ConcurrencyLimit])
_GLOBAL_LIMIT: Final = TypeAdapter(GlobalConcurrencyLimitResponse)
_GLOBAL_LIMITS: Final = TypeAdapter(list[GlobalConcurrencyLimitResponse])
_RUNS: Final = TypeAdapter(list[_Run])


class Limits:
    """The operations on one server, as plans.

    Args:
        address: what messages call the server.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    # -- limits of tags

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
        body = {"tag": check_tag(tag), "concurrency_limit": check_size(concurrency_limit, tag)}
        with changing(tag_limit(tag)):
            answer = yield Request("POST", _TAGS, body)
        return self._read(_TAG_LIMIT, answer, tag_limit(tag)).id

    def read_concurrency_limit_by_tag(self, tag: str) -> Plan[ConcurrencyLimit]:
        """Read a tag's limit, and which task runs hold its slots.

        Raises:
            LimitNotFoundError: the tag has no limit.
        """
        answer = yield Request("GET", _tag_path(tag))
        return self._read(_TAG_LIMIT, answer, tag_limit(tag))

    def read_concurrency_limits(
        self, limit: int | None, offset: int
    ) -> Plan[list[ConcurrencyLimit]]:
        """List the limits of tags.

        Args:
            limit: how many to list at most; None lists all. There is no upper bound, although
                servers give 200 at once: they are asked again.
            offset: how many to leave out first.
        """
        _check_page(limit, offset)
        found = yield from self._all_tags()
        found.sort(key=lambda one: one.tag)
        return found[offset:] if limit is None else found[offset : offset + limit]

    def update_concurrency_limit(self, tag: str, concurrency_limit: int) -> Plan[None]:
        """Change a tag's limit; unlike `create_concurrency_limit`, never make one.

        Raises:
            LimitNotFoundError: the tag has no limit.
            InvalidLimitError: the number cannot be a limit.
        """
        name = tag_limit(tag)
        body = {"limit": check_size(concurrency_limit, tag)}
        with changing(name):
            answer = yield Request("PATCH", _global_path(name), body)
        self._check(answer, tag_limit(tag))

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
        holders = None if slot_override is None else [str(one) for one in slot_override]
        with changing(tag_limit(tag)):
            answer = yield Request("POST", f"{_tag_path(tag)}/reset", {"slot_override": holders})
            self._check(answer, tag_limit(tag))
            yield from self._mend_counter(tag_limit(tag), len(holders or ()))

    def delete_concurrency_limit_by_tag(self, tag: str) -> Plan[None]:
        """Delete a tag's limit. Tasks that hold a slot go on; waiting ones start.

        Raises:
            LimitNotFoundError: the tag has no limit.
        """
        with changing(tag_limit(tag)):
            answer = yield Request("DELETE", _tag_path(tag))
        if not (answer.repeated and answer.status == _NOT_FOUND):
            self._check(answer, tag_limit(tag))

    def read_concurrency_limit_holders(self, tag: str) -> Plan[list[RunHolder]]:
        """Say who holds a tag's slots: the task runs, with what the server knows of each.

        Raises:
            LimitNotFoundError: the tag has no limit.
        """
        limit = yield from self.read_concurrency_limit_by_tag(tag)
        known: dict[UUID, RunHolder] = {}
        for first in range(0, len(limit.active_slots), PAGE):
            ids = [str(one) for one in limit.active_slots[first : first + PAGE]]
            body = {"task_runs": {"id": {"any_": ids}}, "limit": PAGE}
            known |= _runs((yield Request("POST", "/task_runs/filter", body)))
        return [known.get(one) or RunHolder(id=one) for one in limit.active_slots]

    # -- global limits

    def create_global_concurrency_limit(
        self, concurrency_limit: GlobalConcurrencyLimitCreate
    ) -> Plan[UUID]:
        """Make a global limit.

        Example:
            >>> with get_client(sync_client=True) as client:
            ...     client.create_global_concurrency_limit(
            ...         GlobalConcurrencyLimitCreate(name="api", limit=10)
            ...     )

        Raises:
            LimitExistsError: the name is taken.
            InvalidTagError: servers refuse the name.
            InvalidLimitError: a number cannot be a limit's.
        """
        name = concurrency_limit.name
        with changing(name):
            answer = yield Request("POST", _GLOBALS, _values(concurrency_limit, name))
        if answer.repeated and answer.status == _CONFLICT:
            found = yield from self.read_global_concurrency_limit_by_name(name)
            if found.limit == concurrency_limit.limit:
                return found.id
        return self._read(_GLOBAL_LIMIT, answer, name).id

    def update_global_concurrency_limit(
        self, name: str, concurrency_limit: GlobalConcurrencyLimitUpdate
    ) -> Plan[None]:
        """Change a global limit; what is not given stays.

        Raises:
            LimitNotFoundError: there is none of this name.
            LimitExistsError: the new name is taken.
            InvalidLimitError: a number cannot be a limit's.
        """
        values = _values(concurrency_limit, name)
        new_name = values.get("name") or name
        with changing(*{name, new_name}):
            answer = yield Request("PATCH", _global_path(name), values)
        if answer.status == _NOT_FOUND and answer.repeated and new_name != name:
            yield from self.read_global_concurrency_limit_by_name(new_name)
            return
        self._check(answer, new_name if answer.status == _CONFLICT else name)

    def delete_global_concurrency_limit_by_name(self, name: str) -> Plan[None]:
        """Delete a global limit. Those who hold a slot go on.

        Raises:
            LimitNotFoundError: there is none of this name.
        """
        with changing(name):
            answer = yield Request("DELETE", _global_path(name))
        if not (answer.repeated and answer.status == _NOT_FOUND):
            self._check(answer, name)

    def read_global_concurrency_limit_by_name(
        self, name: str
    ) -> Plan[GlobalConcurrencyLimitResponse]:
        """Read a global limit.

        Raises:
            LimitNotFoundError: there is none of this name.
        """
        answer = yield Request("GET", _global_path(name))
        return self._read(_GLOBAL_LIMIT, answer, name)

    def upsert_global_concurrency_limit_by_name(
        self, name: str, limit: int, slot_decay_per_second: float | None = None
    ) -> Plan[None]:
        """Make a global limit, or change it where there is one.

        Args:
            name: of the limit.
            limit: how many slots, 0 or more.
            slot_decay_per_second: above 0 for a rate limit; None leaves it as it is.
        """
        values: dict[str, Any] = {"limit": limit}
        if slot_decay_per_second is not None:
            values["slot_decay_per_second"] = slot_decay_per_second
        # Asked to change first: that can be repeated without harm, and two callers cannot collide.
        changes = GlobalConcurrencyLimitUpdate(**values)
        try:
            yield from self.update_global_concurrency_limit(name, changes)
        except LimitNotFoundError:
            wanted = GlobalConcurrencyLimitCreate(name=name, **values)
            try:
                yield from self.create_global_concurrency_limit(wanted)
            except LimitExistsError:
                yield from self.update_global_concurrency_limit(name, changes)

    def read_global_concurrency_limits(
        self, limit: int | None = 10, offset: int = 0
    ) -> Plan[list[GlobalConcurrencyLimitResponse]]:
        """List the global limits; those of tags are among them, as `tag:<tag>`.

        Args:
            limit: how many to list at most; None lists all. There is no upper bound, although
                servers give 200 at once: they are asked again.
            offset: how many to leave out first.
        """
        _check_page(limit, offset)
        found: list[GlobalConcurrencyLimitResponse] = []
        while limit is None or len(found) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            body = {"limit": size, "offset": offset + len(found)}
            answer = yield Request("POST", f"{_GLOBALS}filter", body)
            page = self._read(_GLOBAL_LIMITS, answer, "")
            found += page
            if len(page) < size:
                break
        return found

    # -- what they share

    def _all_tags(self) -> Plan[list[ConcurrencyLimit]]:
        """List the limits of all tags.

        A server makes a page of them by looking at so many limits *of any name* and leaving out
        those that are no tag's: a short page, even an empty one, is not the end. So what is
        missing is looked up, from the list of all limits, which has no such gaps.
        """
        everything = yield from self.read_global_concurrency_limits(None)
        found: dict[str, ConcurrencyLimit] = {}
        while True:
            before = len(found)
            body = {"limit": PAGE, "offset": before}
            page = self._read(_TAG_LIMITS, (yield Request("POST", f"{_TAGS}filter", body)), "")
            found |= {one.tag: one for one in page}
            if len(found) == before or len(page) < PAGE >= len(everything):
                break
        for name in (one.name for one in everything):
            tag = name.removeprefix(TAG_PREFIX)
            if tag != name and tag not in found:
                with contextlib.suppress(LimitNotFoundError):  # deleted meanwhile
                    found[tag] = yield from self.read_concurrency_limit_by_tag(tag)
        return list(found.values())

    def _mend_counter(self, name: str, holders: int) -> Plan[None]:
        """Set a counter that servers forget to reset (PROTOCOL.md, "Server defects")."""
        limit = yield from self.read_global_concurrency_limit_by_name(name)
        if limit.active_slots != holders:
            body = {"active_slots": holders}
            self._check((yield Request("PATCH", _global_path(name), body)), name)

    def _check(self, answer: Answer, name: str) -> None:
        """Raise what `answer` means for the limit `name`, where it is no success."""
        tag = name.removeprefix(TAG_PREFIX)
        what = f"global limit {name!r}" if tag == name else f"limit for tag {tag!r}"
        command = "gcl" if tag == name else "limit"
        if answer.status == _NOT_FOUND and name:
            raise LimitNotFoundError(
                f"There is no {what} at {self._address}: `leasehold {command} ls` lists those "
                "that exist.",
                name=tag,
            )
        if answer.status == _CONFLICT:
            raise LimitExistsError(
                f"There is a {what} at {self._address} already: `leasehold {command} update` "
                "changes it.",
                name=tag,
            )
        if answer.status not in range(200, 300):
            raise self._unexpected(answer, f"refuses this: {answer.text}")

    def _read(self, reader: TypeAdapter[T], answer: Answer, name: str) -> T:
        self._check(answer, name)
        try:
            return reader.validate_json(answer.body)
        except ValidationError:
            raise self._unexpected(answer, f"answers with no limit: {answer.text}") from None

    def _unexpected(self, answer: Answer, what: str) -> UnexpectedReplyError:
        return UnexpectedReplyError(
            f"The server at {self._address} {what} (HTTP {answer.status}).",
            address=self._address,
            status=answer.status,
        )


def _check_page(limit: int | None, offset: int) -> None:
    for word, number in (("limit", limit), ("offset", offset)):
        if not isinstance(number, int | None) or (number or 0) < 0:
            raise ParameterError(f"{word} must be a whole number, 0 or more; got {number!r}.")


def _tag_path(tag: str) -> str:
    return f"{_TAGS}tag/{in_path(tag, 'tag')}"


def _global_path(name: str) -> str:
    return _GLOBALS + in_path(name, "limit name")


def _values(
    wanted: GlobalConcurrencyLimitCreate | GlobalConcurrencyLimitUpdate, name: str
) -> dict[str, Any]:
    values = wanted.model_dump(exclude_unset=True)
    for field, value in values.items():
        if value is None:
            continue
        if field == "name":
            check_limit_name(value)
        elif field in {"limit", "active_slots"}:
            check_size(value, name)
        elif field == "slot_decay_per_second":
            check_decay(value, name)
    return values


def _runs(answer: Answer) -> dict[UUID, RunHolder]:
    """Read the runs that the server knows; names are a courtesy, so nothing is raised here."""
    try:
        runs = _RUNS.validate_json(answer.body)
    except ValidationError:
        return {}
    return {
        run.id: RunHolder(id=run.id, name=run.name, state=run.state_name, since=run.start_time)
        for run in runs
    }
