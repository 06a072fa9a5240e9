"""The keeper's way to the server: one client, the lane for changes, and what an outage is.

An outage is told once, however many requests fail in it, and once more when it is over. Whenever
the server may have been exchanged for another, it is asked what it is before the next acquire.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

from leasehold.client import server as servers
from leasehold.client.api import open_api
from leasehold.client.dialect import LEASES, TAG_CALLS
from leasehold.client.names import TAG_PREFIX
from leasehold.client.wire import Refusal, Request, is_passing
from leasehold.concurrency.lane import Lane
from leasehold.exceptions import LeaseholdError, ServerTooOldError, ServerUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from leasehold.client.api import Api
    from leasehold.client.dialect import Dialect
    from leasehold.client.wire import Refused, Reply, SlotRequest
    from leasehold.settings import Settings

log = logging.getLogger("leasehold.concurrency")

#: Shorter than this it is a hiccup, and worth no warning.
_HICCUP_SECONDS: Final = 3.0

#: On servers that can be converted, where a tag's limit is kept is asked again after this long.
_CONVERTED_SECONDS: Final = 60.0

#: How long to leave a server alone that could not take two changes at once.
_MOMENT_SECONDS: Final = 0.02

#: While `limit convert` is half way through, a task with two tags looks again, so often.
_LOOKS: Final = 6
_PAUSE_SECONDS: Final = 1.0

_OK: Final = 200
_MISSING: Final = {404, 405}
_BUSY: Final = 503
_TOO_MANY: Final = 429


class Look(NamedTuple):
    """A limit, as the server describes it.

    Attributes:
        size: the limit; None where it is switched off, or where there is none.
        used: how many slots are in use; None where the server does not say.
        holders: the ids of the task runs that hold these slots, where they are listed.
        is_listed: whether they are. Of limits that are no tag's they are not, nor on servers that
            keep tags apart, for what `limit convert` has made there.
    """

    size: int | None
    used: int | None
    holders: tuple[str, ...] = ()
    is_listed: bool = False


class Connection:
    """One server, for one event loop.

    Args:
        settings: where it is, and how patient to be.
        clock: see `lease.read_clock`.
        open_api: opens the client; tests put a simulated server here.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float],
        open_api: Callable[[Settings], Api] = open_api,
    ) -> None:
        self.lane = Lane()
        self.address = settings.address
        self.sees_us = settings.api_url is None  # the embedded ledger knows its processes
        self.request_seconds = settings.request_timeout_seconds
        self.outage_seconds = settings.outage_seconds
        self._settings = settings
        self._clock = clock
        self._open_api = open_api
        self._api: Api | None = None
        self._server: servers.Server | None = None
        self._ask_at = 0.0
        self._converted: dict[tuple[str, ...], tuple[float, bool]] = {}
        self._detecting = asyncio.Lock()
        self._unanswered: tuple[float, ServerUnreachableError] | None = None
        self._heard_at = -math.inf
        self._reached = False
        self._down_since: float | None = None
        self._told = False
        self._reason = ""

    async def send(self, request: Request, timeout_seconds: float | None = None) -> Reply:
        """Send one request, once, and learn from how it went.

        Raises:
            ServerUnreachableError: no reply.
            LedgerError: the embedded ledger's file cannot be used.
        """
        started, seconds = self._clock(), timeout_seconds or self._request_seconds()
        try:
            reply = await self._client().send(request, timeout_seconds=seconds)
            if reply.status == _BUSY and self.lane.width > 1:
                # Two of our own changes met, which is no reason for a long pause.
                self.lane.answered(busy=True)
                await asyncio.sleep(_MOMENT_SECONDS)
                reply = await self._client().send(request, timeout_seconds=seconds)
        except ServerUnreachableError as error:
            # What took far longer than it may tells of a standstill here, not of the server.
            stood_still = self._clock() - started > seconds + _HICCUP_SECONDS
            self._failed(self._clock() if stood_still else started, str(error))
            self._ask_at = 0.0
            raise
        if is_passing(reply.status):
            self._failed(started, f"{self.address} answers HTTP {reply.status}.")
        else:
            self._answered()
        self._reached |= reply.status == _TOO_MANY
        self.lane.answered(busy=reply.status == _BUSY)
        return reply

    async def dialect(self, request: SlotRequest) -> Dialect:
        """Choose how to ask for slots here.

        Raises:
            ServerError: the server cannot be used for this, and why.
        """
        server = await self._know_server()
        if request.tags and server.may_be_converted and await self._is_converted(request):
            return LEASES
        return server.dialect(request)

    async def has_changed(self, refused: Refused) -> bool:
        """Say whether a refusal may mean that the server is not what it was: then ask anew.

        Raises:
            ServerError: what it is now cannot be used, and why.
        """
        before = self._server
        if refused.why is not Refusal.NO_SUCH_ENDPOINT or before is None:
            return False
        self._ask_at, self._converted = 0.0, {}
        return await self._know_server() != before

    async def look_at(self, name: str) -> Look | None:
        """Ask the server about a limit; None: no answer."""
        old = None
        try:
            new = await self._read(f"/v2/concurrency_limits/{quote(name, safe='')}")
            if name.startswith(TAG_PREFIX):
                tag = quote(name.removeprefix(TAG_PREFIX), safe="")
                old = await self._read(f"/concurrency_limits/tag/{tag}")
        except (LeaseholdError, ValueError):
            return None
        holders = tuple((old or {}).get("active_slots") or ())
        if new is not None:
            size = new.get("limit") if new.get("active", True) else None
            if old is not None and old.get("id") == new.get("id"):
                return Look(size, new.get("active_slots"), holders, is_listed=True)
            return Look(size, new.get("active_slots"))
        if old is not None:
            return Look(old.get("concurrency_limit"), len(holders), holders, is_listed=True)
        return Look(None, 0)

    async def _read(self, path: str) -> dict[str, Any] | None:
        """Read a limit; None: there is none."""
        reply = await self.send(Request("GET", path))
        if reply.status in _MISSING:
            return None
        content = json.loads(reply.body)
        if reply.status != _OK or not isinstance(content, dict):
            raise ValueError(reply.text)
        return content

    async def _know_server(self) -> servers.Server:
        began = self._clock()
        async with self._detecting:
            if self._server is None or self._is_in_doubt(self._server):
                if self._unanswered is not None and self._unanswered[0] >= began:
                    raise self._unanswered[1]  # somebody has just asked in vain: once is enough
                await self._detect()
        assert self._server is not None
        return self._server

    def _is_in_doubt(self, server: servers.Server) -> bool:
        now = self._clock()
        # An upgrade takes an old server away for a while, and nobody may have asked it meanwhile.
        silent = now - self._heard_at > servers.RESTART_SECONDS
        return now >= self._ask_at or (silent and server.tags is TAG_CALLS)

    async def _detect(self) -> None:
        server = servers.known_unasked(self._settings)
        if server is None:
            try:
                reply = await self.send(servers.ASK)
            except ServerUnreachableError as error:
                self._unanswered = self._clock(), error
                raise
            try:
                server = servers.read(reply, self.address)
            except ServerUnreachableError:
                if self._server is None:
                    raise
                return  # it was known before, and is busy now: the next question tells
        if server != self._server and self._settings.api_url is not None:
            log.info("Limits are kept at %s: %s.", self.address, server.summary)
        self._server, self._ask_at = server, self._clock() + servers.KNOWN_SECONDS

    async def _is_converted(self, request: SlotRequest) -> bool:
        """Say whether all of these tags' limits are global limits already, on an old server."""
        until, converted = self._converted.get(request.names, (0.0, False))
        if self._clock() >= until:
            converted = await self._look_for_converted(request)
            self._converted[request.names] = (self._clock() + _CONVERTED_SECONDS, converted)
        return converted

    async def _look_for_converted(self, request: SlotRequest) -> bool:
        for look in range(_LOOKS):
            if look:
                await asyncio.sleep(_PAUSE_SECONDS)
            new, old = [], []
            for tag in request.tags:
                if await self._exists(f"/v2/concurrency_limits/{quote(TAG_PREFIX + tag, safe='')}"):
                    new.append(tag)
                elif await self._exists(f"/concurrency_limits/tag/{quote(tag, safe='')}"):
                    old.append(tag)
            if not (new and old):
                return bool(new)
        raise ServerTooOldError(
            f"The server at {self.address} keeps the limits of {new} as global limits, and "
            f"those of {old} as tag limits, so that they cannot be taken together. Convert the "
            "others too: leasehold limit convert --apply",
            address=self.address,
            version=str(self._server and self._server.version),
        )

    async def has_tag_limit(self, request: SlotRequest) -> bool:
        """Ask an old server whether one of these tags has a limit."""
        for tag in request.tags:
            if await self._exists(f"/concurrency_limits/tag/{quote(tag, safe='')}"):
                return True
        return False

    async def _exists(self, path: str) -> bool:
        reply = await self.send(Request("GET", path))
        if is_passing(reply.status):
            raise ServerUnreachableError(
                f"The server at {self.address} answers HTTP {reply.status}.", address=self.address
            )
        return reply.status == _OK

    def gives_up_at(self) -> float:
        """When our patience with the outage ends; infinity: there is none."""
        return math.inf if self._down_since is None else self._down_since + self._patience()

    async def close(self) -> None:
        """Close the client."""
        if self._api is not None:
            await self._api.close()

    def _client(self) -> Api:
        if self._api is None:
            self._api = self._open_api(self._settings)
        return self._api

    def _patience(self) -> float:
        settings = self._settings
        return settings.outage_seconds if self._reached else settings.unreachable_seconds

    def _request_seconds(self) -> float:
        """The usual time-out; less while a server that never answered has little time left."""
        if self._reached:
            return self.request_seconds
        left = min(self._patience(), self.gives_up_at() - self._clock())
        return min(self.request_seconds, max(left, 0.5))

    def _answered(self) -> None:
        self._reached, self._heard_at = True, self._clock()
        if self._down_since is None:
            return
        seconds = self._clock() - self._down_since
        self._down_since = None
        if seconds > servers.RESTART_SECONDS:  # a gateway answers for a server that restarts
            self._ask_at = 0.0
        if self._told:
            self._told = False
            log.info("%s answers again after %.0f s.", self.address, seconds)

    def _failed(self, started: float, reason: str) -> None:
        if self._down_since is None:
            self._down_since = started
        self._reason = reason
        lasted = self._clock() - self._down_since
        if lasted < _HICCUP_SECONDS or self._told or not self._reached:
            return
        self._told = True
        log.warning(
            "No luck for %.0f s: %s Running tasks go on; tasks that need a slot wait for up to "
            "%.0f s.",
            lasted,
            reason,
            self._settings.outage_seconds,
        )

    def error(self) -> LeaseholdError:
        """Build the error for those who have waited through the whole outage."""
        return ServerUnreachableError(
            f"{self._reason} Tried for {self._patience():.0f} s. The address comes from: "
            f"{self._settings.source}.",
            address=self.address,
        )
