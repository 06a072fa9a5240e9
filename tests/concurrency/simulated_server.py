"""A Prefect server in memory, behind a network that can go wrong. On a virtual loop's clock.

It is written from PROTOCOL.md alone, and shares nothing with the embedded ledger: two models that
agree are worth more than one. Like a real server it keeps a counter per limit beside the leases,
reaps expired leases only now and then, renews an expired lease that the reaper has not reached
yet, and answers 204 to the release of a lease that it does not know.

The network works in both directions on its own: a request that arrives after its sender has given
up is carried out all the same.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import unquote

from leasehold.client.wire import Reply
from leasehold.exceptions import ServerUnreachableError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from leasehold.client.wire import Request

Kind = Literal["acquire", "renew", "release", "undo", "other"]

ADDRESS: Final = "http://simulated/api"

#: How often a real server looks for expired leases (PROTOCOL.md, "Lease path").
REAPER_SECONDS: Final = 15.0

#: What a real server advises when a limit is full, in seconds (PROTOCOL.md).
RETRY_AFTER_SECONDS: Final = 0.776

_V2: Final = "/v2/concurrency_limits"


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one exchange.

    Attributes:
        request_late: seconds by which the request arrives later.
        reply_late: seconds by which the reply arrives later.
        request_lost: the server never sees it.
        reply_lost: the server acts, and nobody hears of it.
        cut: the sender is told at once that a lost exchange failed, instead of timing out.
        refused: no connection at all: the request was certainly never sent.
        status: the answer instead of the server's own, which does not act.
        acted: with `status`: the server has acted all the same, as behind a gateway's 504.
    """

    request_late: float = 0.0
    reply_late: float = 0.0
    request_lost: bool = False
    reply_lost: bool = False
    cut: bool = False
    refused: bool = False
    status: int | None = None
    acted: bool = False


BLACK_HOLE: Final = Fault(request_lost=True)
REPLY_LOST: Final = Fault(reply_lost=True)
REPLY_CUT: Final = Fault(reply_lost=True, cut=True)
REFUSED: Final = Fault(refused=True)
BUSY: Final = Fault(status=503)
NONE: Final = Fault()


@dataclass(slots=True)
class ServerLimit:
    """A limit as the server's database has it: its counter knows nothing of leases."""

    size: int
    used: int = 0
    active: bool = True


@dataclass(slots=True)
class ServerLease:
    """A lease as the server's lease storage has it."""

    names: tuple[str, ...]
    slots: int
    holder_id: str | None
    expires_at: float


def kind_of(request: Request) -> Kind:
    """Say what a request wants."""
    path = request.path
    if path.endswith("/renew"):
        return "renew"
    kinds: dict[str, Kind] = {
        f"{_V2}/increment-with-lease": "acquire",
        f"{_V2}/decrement-with-lease": "release",
        "/concurrency_limits/decrement": "undo",
    }
    return kinds.get(path, "other")


@dataclass(eq=False)
class SimulatedServer:
    """The server and the wires that lead to it.

    Attributes:
        limits: by name.
        leases: by id.
        forgotten: ids of leases that a restart has lost, while their counters stayed.
        zombies: the most slots that such counters may count for nobody, by limit.
        latency_seconds: there and back.
        weather: says what meets an exchange for which nothing was ordered.
    listeners: called with each request and its time-out when it is sent.
        sent: how many requests of each kind were sent.
        misdeeds: what no client may do, in words.
    """

    loop: asyncio.AbstractEventLoop
    limits: dict[str, ServerLimit]
    leases: dict[str, ServerLease] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    zombies: Counter[str] = field(default_factory=Counter)
    latency_seconds: float = 0.004
    weather: Callable[[Request], Fault] = lambda _: NONE
    sent: Counter[Kind] = field(default_factory=Counter)
    misdeeds: list[str] = field(default_factory=list)
    listeners: list[Callable[[Request, float], None]] = field(default_factory=list)
    _ordered: list[tuple[Kind, Fault]] = field(default_factory=list)
    _released: set[str] = field(default_factory=set)
    _renewing: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.loop.call_later(REAPER_SECONDS, self._reap)

    # -- for tests

    def order(self, kind: Kind, fault: Fault, times: int = 1) -> None:
        """Have the next exchanges of a kind go wrong."""
        self._ordered += [(kind, fault)] * times

    def restart(self) -> None:
        """Lose the leases and keep the counters, as the default lease storage does."""
        for lease_id, lease in self.leases.items():
            self.forgotten.add(lease_id)
            self.zombies.update(dict.fromkeys(lease.names, lease.slots))
        self.leases.clear()

    def heal(self) -> None:
        """Let the counters say what the leases say, as an administrator's PATCH would."""
        for name, limit in self.limits.items():
            limit.used = self.leased(name)
        self.zombies.clear()

    def quieten(self) -> None:
        """End all that goes wrong."""
        self.weather = lambda _: NONE
        self._ordered.clear()

    def is_live(self, lease_id: object) -> bool:
        """Whether a lease's slots are kept for its holder, the reaper notwithstanding."""
        lease = self.leases.get(str(lease_id))
        return lease is not None and lease.expires_at > self.loop.time()

    def used(self, name: str) -> int:
        """The counter of a limit."""
        return self.limits[name].used

    def leased(self, name: str) -> int:
        """The slots of a limit that leases account for."""
        return sum(lease.slots for lease in self.leases.values() if name in lease.names)

    # -- the network

    async def exchange(self, request: Request, timeout_seconds: float) -> Reply:
        """Carry a request there and its reply back."""
        kind = kind_of(request)
        self.sent[kind] += 1
        if kind != "renew":
            return await self._exchange(kind, request, timeout_seconds)
        lease_id = request.path.split("/")[-2]
        if lease_id in self._released:
            self.misdeeds.append(f"lease {lease_id} was renewed after its release")
        self._renewing[lease_id] += 1
        try:
            return await self._exchange(kind, request, timeout_seconds)
        finally:
            self._renewing[lease_id] -= 1

    async def _exchange(self, kind: Kind, request: Request, timeout_seconds: float) -> Reply:
        for listener in self.listeners:
            listener(request, timeout_seconds)
        fault = self._fault_for(kind, request)
        if fault.refused:
            raise _no_reply("it cannot be reached", delivered=False)
        if kind == "release":
            self._note_release(request.body["lease_id"])
        if fault is NONE and not self.latency_seconds:
            return self.answer(request)
        reply: asyncio.Future[Reply] = self.loop.create_future()
        there = self.latency_seconds / 2 + fault.request_late
        self.loop.call_later(there, self._arrive, request, fault, reply)
        timer = self.loop.call_later(timeout_seconds, _fail, reply, "no reply in time")
        try:
            return await reply
        finally:
            timer.cancel()

    def _fault_for(self, kind: Kind, request: Request) -> Fault:
        for ordered in self._ordered:
            if ordered[0] == kind:
                self._ordered.remove(ordered)
                return ordered[1]
        return self.weather(request)

    def _note_release(self, lease_id: str) -> None:
        self._released.add(lease_id)
        if self._renewing[lease_id]:
            self.misdeeds.append(f"lease {lease_id} was released while it was being renewed")

    def _arrive(self, request: Request, fault: Fault, reply: asyncio.Future[Reply]) -> None:
        answer = None
        if not fault.request_lost and (fault.status is None or fault.acted):
            answer = self.answer(request)
        if fault.status is not None:
            answer = Reply(fault.status, {}, b"")
        back = self.latency_seconds / 2 + fault.reply_late
        if answer is None or fault.reply_lost:
            if fault.cut:
                self.loop.call_later(back, _fail, reply, "the connection was cut")
            return
        self.loop.call_later(back, _deliver, reply, answer)

    def _reap(self) -> None:
        now = self.loop.time()
        for lease_id in [one for one, lease in self.leases.items() if lease.expires_at <= now]:
            self._revoke(lease_id)
        self.loop.call_later(REAPER_SECONDS, self._reap)

    # -- the server

    def answer(self, request: Request) -> Reply:
        """Answer one request, now."""
        kind, body = kind_of(request), request.body
        if kind == "acquire":
            return self._acquire(body)
        if kind == "renew":
            return self._renew(request.path.split("/")[-2], body["lease_duration"])
        if kind == "release":
            self._revoke(body["lease_id"])
            return Reply(204, {}, b"")
        if kind == "undo":
            return self._undo(body["task_run_id"], {f"tag:{tag}" for tag in body["names"]})
        return self._other(request)

    def _acquire(self, body: Mapping[str, Any]) -> Reply:
        names = tuple(name for name in body["names"] if name in self.limits)
        slots = body["slots"]
        active = [self.limits[name] for name in names if self.limits[name].active]
        if any(limit.size < slots for limit in active):
            return _json({"detail": "Slots requested is greater than the limit"}, 422)
        if any(limit.used + slots > limit.size for limit in active):
            return _json({"detail": "Locked"}, 423, {"retry-after": str(RETRY_AFTER_SECONDS)})
        for limit in active:
            limit.used += slots
        lease_id = str(uuid.uuid4())
        if names:
            expires_at = self.loop.time() + body["lease_duration"]
            self.leases[lease_id] = ServerLease(names, slots, body["holder"]["id"], expires_at)
        limits = [{"id": name, "name": name, "limit": self.limits[name].size} for name in names]
        return _json({"lease_id": lease_id, "limits": limits})

    def _renew(self, lease_id: str, seconds: float) -> Reply:
        lease = self.leases.get(lease_id)
        if lease is None:
            return _json({"detail": "Lease not found"}, 410)
        lease.expires_at = self.loop.time() + seconds
        return Reply(204, {}, b"")

    def _undo(self, holder_id: str, names: set[str]) -> Reply:
        for lease_id, lease in list(self.leases.items()):
            if lease.holder_id == holder_id and not names.isdisjoint(lease.names):
                self._revoke(lease_id)
        return _json([])

    def _revoke(self, lease_id: str) -> None:
        lease = self.leases.pop(lease_id, None)
        for name in lease.names if lease else ():
            limit = self.limits[name]
            if limit.active and lease is not None:
                limit.used = max(0, limit.used - lease.slots)

    def _other(self, request: Request) -> Reply:
        if request.path == "/admin/version":
            return _json("3.8.8")
        if request.path == f"{_V2}/decrement":
            for name in request.body["names"]:
                limit = self.limits[name]
                limit.used = max(0, limit.used - request.body["slots"])
            return _json([])
        name = unquote(request.path.rsplit("/", 1)[-1])
        if request.path.startswith("/concurrency_limits/tag/"):
            name = f"tag:{name}"
        limit_or_none = self.limits.get(name)
        if request.method != "GET" or limit_or_none is None:
            return _json({"detail": "Not Found"}, 404)
        if not request.path.startswith(_V2):
            holders = [one.holder_id for one in self.leases.values() if name in one.names]
            return _json({"concurrency_limit": limit_or_none.size, "active_slots": holders})
        return _json(
            {
                "name": name,
                "limit": limit_or_none.size,
                "active": limit_or_none.active,
                "active_slots": limit_or_none.used,
            }
        )


class SimulatedApi:
    """One process's way to the server; stands where an `Api` stands.

    Attributes:
        dead: the process has crashed: nothing goes out any more, and nothing comes back.
    """

    def __init__(self, server: SimulatedServer) -> None:
        self.dead = False
        self._server = server
        self._never: asyncio.Future[Reply] = server.loop.create_future()

    async def send(self, request: Request, *, timeout_seconds: float) -> Reply:
        """Send one request, once, as `Api.send` does."""
        try:
            if not self.dead:
                return await self._server.exchange(request, timeout_seconds)
        finally:
            if self.dead:
                await self._never
        return await self._never

    async def close(self) -> None:
        """Nothing to close."""


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, headers or {}, json.dumps(content).encode())


def _deliver(reply: asyncio.Future[Reply], answer: Reply) -> None:
    if not reply.done():
        reply.set_result(answer)


def _fail(reply: asyncio.Future[Reply], why: str) -> None:
    if not reply.done():
        reply.set_exception(_no_reply(why, delivered=True))


def _no_reply(why: str, *, delivered: bool) -> ServerUnreachableError:
    text = f"The server at {ADDRESS} does not answer ({why})."
    return ServerUnreachableError(text, address=ADDRESS, delivered=delivered)
