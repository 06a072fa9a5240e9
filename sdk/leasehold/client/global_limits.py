"""Global limits: making, listing, changing and deleting them, as plans (see `plans`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter

from leasehold.client.changes import changing
from leasehold.client.models import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitResponse,
    GlobalConcurrencyLimitUpdate,
)
from leasehold.client.names import check_decay, check_limit_name, check_size, in_path
from leasehold.client.plans import CONFLICT, NOT_FOUND, PAGE, Plan, Planner, check_page
from leasehold.exceptions import LimitExistsError, LimitNotFoundError

if TYPE_CHECKING:
    from uuid import UUID

_GLOBALS: Final = "/v2/concurrency_limits/"

_GLOBAL_LIMIT: Final = TypeAdapter(GlobalConcurrencyLimitResponse)
_GLOBAL_LIMITS: Final = TypeAdapter(list[GlobalConcurrencyLimitResponse])


class GlobalLimits(Planner):
    """The operations on global limits. They are the same on all servers."""

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
            answer = yield from self._ask("POST", _GLOBALS, _values(concurrency_limit, name))
        if answer.repeated and answer.status == CONFLICT:
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
            path = yield from self._global_path(name)
            answer = yield from self._ask("PATCH", path, values)
        if answer.status == NOT_FOUND and answer.repeated and new_name != name:
            yield from self.read_global_concurrency_limit_by_name(new_name)
            return
        self._check(answer, new_name if answer.status == CONFLICT else name)

    def delete_global_concurrency_limit_by_name(self, name: str) -> Plan[None]:
        """Delete a global limit. Those who hold a slot go on.

        Raises:
            LimitNotFoundError: there is none of this name.
        """
        with changing(name):
            answer = yield from self._ask("DELETE", (yield from self._global_path(name)))
        if not (answer.repeated and answer.status == NOT_FOUND):
            self._check(answer, name)

    def read_global_concurrency_limit_by_name(
        self, name: str
    ) -> Plan[GlobalConcurrencyLimitResponse]:
        """Read a global limit.

        Raises:
            LimitNotFoundError: there is none of this name.
        """
        answer = yield from self._ask("GET", (yield from self._global_path(name)))
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
        check_page(limit, offset)
        found: list[GlobalConcurrencyLimitResponse] = []
        while limit is None or len(found) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            body = {"limit": size, "offset": offset + len(found)}
            answer = yield from self._ask("POST", f"{_GLOBALS}filter", body)
            page = self._read(_GLOBAL_LIMITS, answer, "")
            found += page
            if len(page) < size:
                break
        return found

    def _global_path(self, name: str) -> Plan[str]:
        """Give a global limit's path.

        Servers take a slash for their own, quoted or not. Tags may have one that got their limits
        before 3.4.19; these limits are found by their ids.
        """
        quoted = in_path(name, "limit name")
        if "/" in name:
            for one in (yield from self.read_global_concurrency_limits(None)):
                if one.name == name:
                    quoted = str(one.id)
        return _GLOBALS + quoted


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
