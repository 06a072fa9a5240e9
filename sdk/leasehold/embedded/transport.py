"""The ledger behind the wire protocol: an httpx transport that answers as a Prefect server does.

It answers what PROTOCOL.md lists for 3.8.8; the conformance tests run against it and against real
servers. Known differences, all on purpose: `reset` leaves no counter behind, nor does a limit that
was switched off while it was held; a release of a known lease is atomic; and a limit that is full
may be asked for again soon, because asking is cheap.
"""

from __future__ import annotations

import datetime as dt
import json
import random
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar
from urllib.parse import unquote
from uuid import UUID

import httpx
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from leasehold.embedded.file import LedgerBusyError
from leasehold.embedded.identity import this_process

if TYPE_CHECKING:
    from leasehold.embedded.ledger import Ledger, Limit

Handler = TypeVar("Handler", bound=Callable[..., httpx.Response])

#: The version whose answers these are.
VERSION: Final = "3.8.8"

#: Leases made by the old calls cannot be renewed, so real servers let them live for a century.
_CENTURY_SECONDS: Final = 100 * 365 * 86_400.0

_PAGE: Final = 200

#: The largest number that SQLite keeps exactly. Real servers answer 500 beyond it.
_MOST: Final = 2**63 - 1

_Name = Annotated[str, Field(pattern=r"^[^/%&><]+$")]
_Slots = Annotated[int, Field(gt=0, le=_MOST)]
_Seconds = Annotated[float, Field(ge=60, le=86_400)]
_Count = Annotated[int, Field(ge=0, le=_MOST)]
_Decay = Annotated[float, Field(ge=0, allow_inf_nan=False)]


_UUID: Final = TypeAdapter(UUID)


class _Answer(Exception):  # noqa: N818 - control flow, not a fault
    """Ends a request early, and undoes what it did."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.response = _json({"detail": detail}, status, headers)


class _Create(BaseModel, extra="forbid"):
    name: _Name
    limit: _Count
    active: bool = True
    active_slots: _Count = 0
    denied_slots: _Count = 0
    slot_decay_per_second: _Decay = 0.0


class _Update(BaseModel, extra="forbid"):
    name: _Name | None = None
    limit: _Count | None = None
    active: bool | None = None
    active_slots: _Count | None = None
    denied_slots: _Count | None = None
    slot_decay_per_second: _Decay | None = None


class _Holder(BaseModel, extra="forbid"):
    type: Literal["flow_run", "task_run", "deployment"]
    id: UUID


class _Increment(BaseModel):
    slots: _Slots
    names: list[str]
    mode: Literal["concurrency", "rate_limit"] = "concurrency"


class _IncrementWithLease(_Increment):
    lease_duration: _Seconds = 300.0
    holder: _Holder | None = None


class _Decrement(BaseModel):
    slots: _Slots
    names: list[str]
    occupancy_seconds: Annotated[float, Field(gt=0)] | None = None


class _DecrementWithLease(BaseModel):
    lease_id: UUID


class _Renew(BaseModel):
    lease_duration: _Seconds = 300.0


class _Page(BaseModel):
    limit: _Count = _PAGE
    offset: _Count = 0


class _TagCreate(BaseModel):
    tag: _Name
    concurrency_limit: Annotated[int, Field(ge=-_MOST, le=_MOST)]


class _TagSlots(BaseModel):
    names: list[str]
    task_run_id: UUID


class _Reset(BaseModel):
    slot_override: list[UUID] | None = None


_V1: Final = "/concurrency_limits"
_V2: Final = "/v2/concurrency_limits"
_PART: Final = "([^/]+)"

_ROUTES: Final[list[tuple[str, re.Pattern[str], Callable[..., httpx.Response]]]] = []


def _answers(method: str, path: str) -> Callable[[Handler], Handler]:
    """Have a method answer requests for a path; its groups become arguments, then the body."""

    def register(handler: Handler) -> Handler:
        _ROUTES.append((method, re.compile(path), handler))
        return handler

    return register


class Transport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """What can stand in for the network: it serves both kinds of client."""


class LedgerTransport(Transport):
    """Answers requests from a ledger, for sync and async clients.

    Example:
        >>> transport = LedgerTransport(Ledger(path))   # doctest: +SKIP
        >>> client = httpx.Client(transport=transport, base_url="http://embedded/api")

    Args:
        ledger: where limits and leases are kept.
        version: the version to claim.
    """

    def __init__(self, ledger: Ledger, *, version: str = VERSION) -> None:
        self.ledger = ledger
        self.version = version

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a sync client."""
        request.read()
        return self.answer(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer an async client. The ledger answers in well under a millisecond, so inline."""
        await request.aread()
        return self.answer(request)

    def close(self) -> None:
        """Close the ledger's file."""
        self.ledger.close()

    async def aclose(self) -> None:
        """Close the ledger's file."""
        self.ledger.close()

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer one request.

        Raises:
            LedgerError: the ledger's file cannot be used.
        """
        path = request.url.raw_path.split(b"?")[0].decode().split("/api", 1)[-1]
        known = False
        for method, pattern, handler in _ROUTES:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            known = True
            if method == request.method:
                return self._call(handler, request, [unquote(part) for part in match.groups()])
        if known:
            return _json({"detail": "Method Not Allowed"}, 405)
        return _json({"detail": "Not Found"}, 404)

    def _call(
        self, handler: Callable[..., httpx.Response], request: httpx.Request, parts: list[str]
    ) -> httpx.Response:
        try:
            if request.method in {"GET", "DELETE"}:
                return handler(self, *parts)
            return handler(self, *parts, request.content or b"{}")
        except _Answer as answer:
            return answer.response
        except ValidationError as error:
            detail = error.errors(include_url=False, include_context=False, include_input=False)
            problems = [{**one, "loc": ["body", *one["loc"]]} for one in detail]
            content = {
                "exception_message": "Invalid request received.",
                "exception_detail": problems,
            }
            return _json(content, 422)
        except LedgerBusyError:
            return httpx.Response(503)

    # -- the server

    @_answers("GET", "/health")
    def _health(self) -> httpx.Response:
        return _json(True)

    @_answers("GET", "/admin/version")
    def _version(self) -> httpx.Response:
        return _json(self.version)

    @_answers("GET", "/csrf-token")
    def _csrf(self) -> httpx.Response:
        return _json({"detail": "CSRF protection is disabled."}, 422)

    # -- global limits

    @_answers("POST", f"{_V2}/")
    def _create(self, body: bytes) -> httpx.Response:
        wanted = _Create.model_validate_json(body)
        values = wanted.model_dump(exclude={"name", "limit"})
        made = self.ledger.create(wanted.name, wanted.limit, **values)
        if made is None:
            raise _Answer(409, f"A concurrency limit named {wanted.name!r} exists already.")
        return _json({**self._global(made), "denied_slots": made.denied}, 201)

    @_answers("GET", f"{_V2}/{_PART}")
    def _read(self, name: str) -> httpx.Response:
        return _json(self._global(_found(self.ledger.read(name))))

    @_answers("POST", f"{_V2}/filter")
    def _filter(self, body: bytes) -> httpx.Response:
        page = _page(body)
        return _json(
            [self._global(one) for one in self.ledger.list_limits(page.limit, page.offset)]
        )

    @_answers("PATCH", f"{_V2}/{_PART}")
    def _update(self, name: str, body: bytes) -> httpx.Response:
        changes = _Update.model_validate_json(body).model_dump(exclude_unset=True)
        done = self.ledger.update(name, **changes)
        if done is None:
            raise _Answer(409, f"A concurrency limit named {changes['name']!r} exists already.")
        _found(done or None)
        return httpx.Response(204)

    @_answers("DELETE", f"{_V2}/{_PART}")
    def _delete(self, name: str) -> httpx.Response:
        _found(self.ledger.delete(name) or None)
        return httpx.Response(204)

    # -- slots

    @_answers("POST", f"{_V2}/increment")
    def _increment(self, body: bytes) -> httpx.Response:
        wanted = _Increment.model_validate_json(body)
        return _json(self._take(wanted, None, None)[1])

    @_answers("POST", f"{_V2}/increment-with-lease")
    def _increment_with_lease(self, body: bytes) -> httpx.Response:
        wanted = _IncrementWithLease.model_validate_json(body)
        holder = None if wanted.holder is None else (wanted.holder.type, str(wanted.holder.id))
        lease_id, limits = self._take(wanted, wanted.lease_duration, holder)
        return _json({"lease_id": lease_id, "limits": limits})

    def _take(
        self, wanted: _Increment, seconds: float | None, holder: tuple[str, str] | None
    ) -> tuple[str | None, list[dict[str, Any]]]:
        def check(limits: list[Limit]) -> None:
            active = [limit for limit in limits if limit.active]
            if any(limit.size < wanted.slots for limit in active):
                raise _Answer(422, "Slots requested is greater than the limit")
            steady = [limit.name for limit in active if not limit.decay]
            if wanted.mode == "rate_limit" and steady:
                raise _Answer(
                    422,
                    "Only concurrency limits with slot decay can be used for rate limiting. These "
                    f"have none: {', '.join(steady)}",
                )

        process = this_process()
        got = self.ledger.acquire(
            wanted.names, wanted.slots, seconds=seconds, holder=holder, process=process, check=check
        )
        if got.full is not None:
            raise _locked(got.full, wanted.slots, self.ledger.now())
        return got.lease_id, [_minimal(limit) for limit in got.limits]

    @_answers("POST", f"{_V2}/decrement")
    def _decrement(self, body: bytes) -> httpx.Response:
        wanted = _Decrement.model_validate_json(body)
        return _json([_minimal(one) for one in self.ledger.give_back(wanted.names, wanted.slots)])

    @_answers("POST", f"{_V2}/decrement-with-lease")
    def _decrement_with_lease(self, body: bytes) -> httpx.Response:
        self.ledger.release(str(_DecrementWithLease.model_validate_json(body).lease_id))
        return httpx.Response(204)

    @_answers("POST", f"{_V2}/leases/{_PART}/renew")
    def _renew(self, lease_id: str, body: bytes) -> httpx.Response:
        seconds = _Renew.model_validate_json(body).lease_duration
        if not self.ledger.renew(str(_UUID.validate_python(lease_id)), seconds):
            raise _Answer(410, "Lease not found - it may have expired or been revoked")
        return httpx.Response(204)

    # -- tags, as the old calls see them

    @_answers("POST", f"{_V1}/")
    def _create_tag(self, body: bytes) -> httpx.Response:
        wanted = _TagCreate.model_validate_json(body)
        name = f"tag:{wanted.tag}"
        made = self.ledger.create(name, wanted.concurrency_limit)
        if made is not None:
            return _json(self._tag(made), 201)
        self.ledger.update(name, limit=wanted.concurrency_limit)
        return _json(self._tag(_found(self.ledger.read(name))))

    @_answers("GET", f"{_V1}/tag/{_PART}")
    def _read_tag(self, tag: str) -> httpx.Response:
        return _json(self._tag(_found(self.ledger.read(f"tag:{tag}"))))

    @_answers("POST", f"{_V1}/filter")
    def _filter_tags(self, body: bytes) -> httpx.Response:
        page = _page(body)
        limits = self.ledger.list_limits(page.limit, page.offset, prefix="tag:")
        return _json([self._tag(one) for one in limits])

    @_answers("DELETE", f"{_V1}/tag/{_PART}")
    def _delete_tag(self, tag: str) -> httpx.Response:
        _found(self.ledger.delete(f"tag:{tag}") or None)
        return _json(None)

    @_answers("POST", f"{_V1}/tag/{_PART}/reset")
    def _reset_tag(self, tag: str, body: bytes) -> httpx.Response:
        override = _Reset.model_validate_json(body).slot_override or []
        done = self.ledger.reset(f"tag:{tag}", [str(one) for one in override], _CENTURY_SECONDS)
        _found(done or None)
        return _json(None)

    @_answers("POST", f"{_V1}/increment")
    def _increment_tags(self, body: bytes) -> httpx.Response:
        wanted = _TagSlots.model_validate_json(body)
        names = [f"tag:{tag}" for tag in wanted.names]

        def check(limits: list[Limit]) -> None:
            for limit in limits:
                if limit.active and not limit.size:
                    tag = limit.name.removeprefix("tag:")
                    raise _Answer(423, f"The limit of tag {tag!r} is 0: this would wait for ever.")

        holder = ("task_run", str(wanted.task_run_id))
        got = self.ledger.acquire(
            names, 1, seconds=_CENTURY_SECONDS, holder=holder, process=this_process(), check=check
        )
        if got.full is not None:
            raise _locked(got.full, 1, self.ledger.now())
        tags = [(limit, limit.name.removeprefix("tag:")) for limit in got.limits]
        return _json([{**_minimal(limit), "name": tag} for limit, tag in tags])

    @_answers("POST", f"{_V1}/decrement")
    def _decrement_tags(self, body: bytes) -> httpx.Response:
        wanted = _TagSlots.model_validate_json(body)
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
        raise _Answer(404, "Concurrency Limit not found")
    return limit


def _page(body: bytes) -> _Page:
    page = _Page.model_validate_json(body)
    if page.limit > _PAGE:
        raise _Answer(422, f"Invalid limit: must be less than or equal to {_PAGE}.")
    return page


def _locked(limit: Limit, slots: int, now: float) -> _Answer:
    """Say "full", and when to ask again."""
    seconds = max(limit.seconds_until_free(slots, now), 0.1)
    seconds *= random.uniform(1.0, 1.5)  # noqa: S311 - spreads questions, guards nothing
    return _Answer(423, "Locked", **{"retry-after": str(seconds)})


def _minimal(limit: Limit) -> dict[str, Any]:
    return {"id": limit.id, "name": limit.name, "limit": limit.size}


def _dates(limit: Limit) -> dict[str, Any]:
    return {"id": limit.id, "created": _date(limit.created), "updated": _date(limit.updated)}


def _date(seconds: float) -> str:
    when = dt.datetime.fromtimestamp(seconds, dt.timezone.utc)
    return when.isoformat().replace("+00:00", "Z")


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(
        status,
        content=json.dumps(content).encode(),
        headers={"content-type": "application/json", **(headers or {})},
    )
