"""The ledger behind the wire protocol: what a Prefect server answers, without a server or HTTP.

It answers what PROTOCOL.md lists for 3.8.8; the conformance tests run against it and against real
servers. Known differences, all on purpose: `reset` leaves no counter behind, nor does a limit that
was switched off while it was held; a release of a known lease is atomic; a limit that is full may
be asked for again soon, because asking is cheap; a lease does not expire while its process lives;
and there is no key to show, no CSRF token to fetch and no connection that could be cut.
"""

from __future__ import annotations

import datetime as dt
import json
import random
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import unquote
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from leasehold.embedded import bodies
from leasehold.embedded.file import LedgerBusyError
from leasehold.embedded.identity import this_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from leasehold.embedded.identity import Process
    from leasehold.embedded.ledger import Ledger, Limit

Handler = TypeVar("Handler", bound="Callable[..., Answer]")

#: The version whose answers these are.
VERSION: Final = "3.8.8"

#: Leases made by the old calls cannot be renewed, so real servers let them live for a century.
_CENTURY_SECONDS: Final = 100 * 365 * 86_400.0

_UUID: Final = TypeAdapter(UUID)


class Answer(NamedTuple):
    """What would be an HTTP reply; the headers' names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Ends(Exception):  # noqa: N818 - control flow, not a fault
    """Ends a request early, and undoes what it did."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.answer = _json({"detail": detail}, status, headers)


_V1: Final = "/concurrency_limits"
_V2: Final = "/v2/concurrency_limits"
_TALKING: Final = {"POST", "PATCH"}
_PART: Final = "([^/]+)"
_ID: Final = "([0-9a-f-]{36})"

_ROUTES: Final[list[tuple[str, re.Pattern[str], Callable[..., Answer]]]] = []


def _answers(method: str, path: str) -> Callable[[Handler], Handler]:
    """Have a method answer requests for a path; its groups become arguments, then the body."""

    def register(handler: Handler) -> Handler:
        _ROUTES.append((method, re.compile(path), handler))
        return handler

    return register


class LedgerServer:
    """Answers requests from a ledger.

    Example:
        >>> server = LedgerServer(Ledger(path))         # doctest: +SKIP
        >>> server.answer("GET", "/admin/version")
        Answer(status=200, headers={'content-type': 'application/json'}, body=b'"3.8.8"')

    Args:
        ledger: where limits and leases are kept.
        version: the version to claim.
        whose: says with which process a lease lives and dies that is asked for now; None: none,
            as on a server, which sees nobody's processes.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        version: str = VERSION,
        whose: Callable[[], Process | None] = this_process,
    ) -> None:
        self.ledger = ledger
        self.version = version
        self._whose = whose

    def close(self) -> None:
        """Close the ledger's file."""
        self.ledger.close()

    def answer(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Answer one request, in well under a millisecond as a rule.

        Args:
            method: of HTTP.
            path: below the API's address, quoted.
            body: in JSON.

        Raises:
            LedgerError: the ledger's file cannot be used.
        """
        known = False
        for name, pattern, handler in _ROUTES:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            known = True
            if name == method:
                parts = [unquote(part) for part in match.groups()]
                return self._call(handler, *parts, *([body or b"{}"] if method in _TALKING else ()))
        if known:
            return _json({"detail": "Method Not Allowed"}, 405)
        return _json({"detail": "Not Found"}, 404)

    def _call(self, handler: Callable[..., Answer], *parts: str | bytes) -> Answer:
        try:
            return handler(self, *parts)
        except _Ends as end:
            return end.answer
        except ValidationError as error:
            detail = error.errors(include_url=False, include_context=False, include_input=False)
            problems = [{**one, "loc": ["body", *one["loc"]]} for one in detail]
            content = {
                "exception_message": "Invalid request received.",
                "exception_detail": problems,
            }
            return _json(content, 422)
        except LedgerBusyError:
            return Answer(503, {}, b"")

    # -- the server

    @_answers("GET", "/health")
    def _health(self) -> Answer:
        return _json(True)

    @_answers("GET", "/admin/version")
    def _version(self) -> Answer:
        return _json(self.version)

    @_answers("GET", "/csrf-token")
    def _csrf(self) -> Answer:
        return _json({"detail": "CSRF protection is disabled."}, 422)

    # -- global limits

    @_answers("POST", f"{_V2}/")
    def _create(self, body: bytes) -> Answer:
        wanted = bodies.Create.model_validate_json(body)
        values = wanted.model_dump(exclude={"name", "limit"})
        made = self.ledger.create(wanted.name, wanted.limit, **values)
        if made is None:
            raise _Ends(409, f"A concurrency limit named {wanted.name!r} exists already.")
        return _json({**self._global(made), "denied_slots": made.denied}, 201)

    @_answers("GET", f"{_V2}/{_PART}")
    def _read(self, name: str) -> Answer:
        return _json(self._global(_found(self.ledger.read(name))))

    @_answers("POST", f"{_V2}/filter")
    def _filter(self, body: bytes) -> Answer:
        page = _page(body)
        return _json(
            [self._global(one) for one in self.ledger.list_limits(page.limit, page.offset)]
        )

    @_answers("PATCH", f"{_V2}/{_PART}")
    def _update(self, name: str, body: bytes) -> Answer:
        changes = bodies.Update.model_validate_json(body).model_dump(exclude_unset=True)
        done = self.ledger.update(name, **changes)
        if done is None:
            raise _Ends(409, f"A concurrency limit named {changes['name']!r} exists already.")
        _found(done or None)
        return Answer(204, {}, b"")

    @_answers("DELETE", f"{_V2}/{_PART}")
    def _delete(self, name: str) -> Answer:
        _found(self.ledger.delete(name) or None)
        return Answer(204, {}, b"")

    # -- slots

    @_answers("POST", f"{_V2}/increment")
    def _increment(self, body: bytes) -> Answer:
        wanted = bodies.Increment.model_validate_json(body)
        return _json(self._take(wanted, None, None)[1])

    @_answers("POST", f"{_V2}/increment-with-lease")
    def _increment_with_lease(self, body: bytes) -> Answer:
        wanted = bodies.IncrementWithLease.model_validate_json(body)
        holder = None if wanted.holder is None else (wanted.holder.type, str(wanted.holder.id))
        lease_id, limits = self._take(wanted, wanted.lease_duration, holder)
        return _json({"lease_id": lease_id, "limits": limits})

    def _take(
        self, wanted: bodies.Increment, seconds: float | None, holder: tuple[str, str] | None
    ) -> tuple[str | None, list[dict[str, Any]]]:
        def check(limits: list[Limit]) -> None:
            active = [limit for limit in limits if limit.active]
            if any(limit.size < wanted.slots for limit in active):
                raise _Ends(422, "Slots requested is greater than the limit")
            steady = [limit.name for limit in active if not limit.decay]
            if wanted.mode == "rate_limit" and steady:
                raise _Ends(
                    422,
                    "Only concurrency limits with slot decay can be used for rate limiting. These "
                    f"have none: {', '.join(steady)}",
                )

        got = self.ledger.acquire(
            wanted.names,
            wanted.slots,
            seconds=seconds,
            holder=holder,
            process=self._whose(),
            check=check,
        )
        if got.full is not None:
            raise _locked(got.full, wanted.slots, self.ledger.now())
        return got.lease_id, [_minimal(limit) for limit in got.limits]

    @_answers("POST", f"{_V2}/decrement")
    def _decrement(self, body: bytes) -> Answer:
        wanted = bodies.Decrement.model_validate_json(body)
        return _json([_minimal(one) for one in self.ledger.give_back(wanted.names, wanted.slots)])

    @_answers("POST", f"{_V2}/decrement-with-lease")
    def _decrement_with_lease(self, body: bytes) -> Answer:
        self.ledger.release(str(bodies.DecrementWithLease.model_validate_json(body).lease_id))
        return Answer(204, {}, b"")

    @_answers("POST", f"{_V2}/leases/{_PART}/renew")
    def _renew(self, lease_id: str, body: bytes) -> Answer:
        seconds = bodies.Renew.model_validate_json(body).lease_duration
        if not self.ledger.renew(str(_UUID.validate_python(lease_id)), seconds):
            raise _Ends(410, "Lease not found - it may have expired or been revoked")
        return Answer(204, {}, b"")

    # -- tags, as the old calls see them

    @_answers("POST", f"{_V1}/")
    def _create_tag(self, body: bytes) -> Answer:
        wanted = bodies.TagCreate.model_validate_json(body)
        name = f"tag:{wanted.tag}"
        made = self.ledger.create(name, wanted.concurrency_limit)
        if made is not None:
            return _json(self._tag(made), 201)
        self.ledger.update(name, limit=wanted.concurrency_limit)
        return _json(self._tag(_found(self.ledger.read(name))))

    @_answers("GET", f"{_V1}/tag/{_PART}")
    def _read_tag(self, tag: str) -> Answer:
        return _json(self._tag(_found(self.ledger.read(f"tag:{tag}"))))

    @_answers("GET", f"{_V1}/{_ID}")
    def _read_tag_by_id(self, limit_id: str) -> Answer:
        return _json(self._tag(self._found_by_id(limit_id)))

    @_answers("DELETE", f"{_V1}/{_ID}")
    def _delete_tag_by_id(self, limit_id: str) -> Answer:
        self.ledger.delete(self._found_by_id(limit_id).id)
        return _json(None)

    def _found_by_id(self, limit_id: str) -> Limit:
        limit = self.ledger.read(limit_id)
        is_tags = limit is not None and limit.name.startswith("tag:")
        found: Limit = _found(limit if is_tags else None)
        return found

    @_answers("POST", f"{_V1}/filter")
    def _filter_tags(self, body: bytes) -> Answer:
        page = _page(body)
        limits = self.ledger.list_limits(page.limit, page.offset, prefix="tag:")
        return _json([self._tag(one) for one in limits])

    @_answers("DELETE", f"{_V1}/tag/{_PART}")
    def _delete_tag(self, tag: str) -> Answer:
        _found(self.ledger.delete(f"tag:{tag}") or None)
        return _json(None)

    @_answers("POST", f"{_V1}/tag/{_PART}/reset")
    def _reset_tag(self, tag: str, body: bytes) -> Answer:
        override = bodies.Reset.model_validate_json(body).slot_override or []
        done = self.ledger.reset(f"tag:{tag}", [str(one) for one in override], _CENTURY_SECONDS)
        _found(done or None)
        return _json(None)

    @_answers("POST", f"{_V1}/increment")
    def _increment_tags(self, body: bytes) -> Answer:
        wanted = bodies.TagSlots.model_validate_json(body)
        names = [f"tag:{tag}" for tag in wanted.names]

        def check(limits: list[Limit]) -> None:
            for limit in limits:
                if limit.active and not limit.size:
                    tag = limit.name.removeprefix("tag:")
                    raise _Ends(423, f"The limit of tag {tag!r} is 0: this would wait for ever.")

        holder = ("task_run", str(wanted.task_run_id))
        got = self.ledger.acquire(
            names, 1, seconds=_CENTURY_SECONDS, holder=holder, process=self._whose(), check=check
        )
        if got.full is not None:
            raise _locked(got.full, 1, self.ledger.now())
        tags = [(limit, limit.name.removeprefix("tag:")) for limit in got.limits]
        return _json([{**_minimal(limit), "name": tag} for limit, tag in tags])

    @_answers("POST", f"{_V1}/decrement")
    def _decrement_tags(self, body: bytes) -> Answer:
        wanted = bodies.TagSlots.model_validate_json(body)
        names = [f"tag:{tag}" for tag in wanted.names]
        limits = self.ledger.release_holder(names, str(wanted.task_run_id))
        return _json([_minimal(limit) for limit in limits])

    # -- forms

    def _global(self, limit: Limit) -> dict[str, Any]:
        return {
            **_dates(limit),
            "active": bool(limit.active),
            "name": limit.name,
            "limit": limit.size,
            "active_slots": limit.used_now(self.ledger.now()),
            "slot_decay_per_second": limit.decay,
        }

    def _tag(self, limit: Limit) -> dict[str, Any]:
        holders = self.ledger.holders(limit.id)
        return {
            **_dates(limit),
            "tag": limit.name.removeprefix("tag:"),
            "concurrency_limit": limit.size,
            "active_slots": [holder for kind, holder in holders if kind == "task_run"],
        }


def _found(limit: Any) -> Any:
    if limit is None:
        raise _Ends(404, "Concurrency Limit not found")
    return limit


def _page(body: bytes) -> bodies.Page:
    page = bodies.Page.model_validate_json(body)
    if page.limit > bodies.PAGE:
        raise _Ends(422, f"Invalid limit: must be less than or equal to {bodies.PAGE}.")
    return page


def _locked(limit: Limit, slots: int, now: float) -> _Ends:
    """Say "full", and when to ask again."""
    seconds = max(limit.seconds_until_free(slots, now), 0.1)
    seconds *= random.uniform(1.0, 1.5)  # noqa: S311 - spreads questions, guards nothing
    return _Ends(423, "Locked", **{"retry-after": str(seconds)})


def _minimal(limit: Limit) -> dict[str, Any]:
    return {"id": limit.id, "name": limit.name, "limit": limit.size}


def _dates(limit: Limit) -> dict[str, Any]:
    return {"id": limit.id, "created": _date(limit.created), "updated": _date(limit.updated)}


def _date(seconds: float) -> str:
    when = dt.datetime.fromtimestamp(seconds, dt.timezone.utc)
    return when.isoformat().replace("+00:00", "Z")


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    body = json.dumps(content).encode()
    return Answer(status, {"content-type": "application/json", **(headers or {})}, body)
