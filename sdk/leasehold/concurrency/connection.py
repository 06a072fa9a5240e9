"""The keeper's way to the server: one client, the lane for changes, and what an outage is.

An outage is told once, however many requests fail in it, and once more when it is over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from leasehold.client import dialect
from leasehold.client.wire import is_passing
from leasehold.concurrency.lane import Lane
from leasehold.exceptions import LeaseholdError, ServerUnreachableError
from leasehold.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from leasehold.client.http import AsyncApi
    from leasehold.client.wire import Reply, Request
    from leasehold.settings import Settings

log = get_logger("concurrency")

#: Shorter than this it is a hiccup, and worth no warning.
_HICCUP_SECONDS: Final = 3.0

_BUSY: Final = 503
_TOO_MANY: Final = 429


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
        open_api: Callable[[Settings], AsyncApi] | None = None,
    ) -> None:
        self.lane = Lane()
        self.address = settings.address
        self.request_seconds = settings.request_timeout_seconds
        self._settings = settings
        self._clock = clock
        self._open_api = open_api
        self._api: AsyncApi | None = None
        self._server: dialect.Server | None = None
        self._detecting = asyncio.Lock()
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
        started = self._clock()
        try:
            reply = await self._client().send(
                request, timeout_seconds=timeout_seconds or self._request_seconds()
            )
        except ServerUnreachableError as error:
            self._failed(started, str(error))
            raise
        if is_passing(reply.status):
            self._failed(started, f"{self.address} answers HTTP {reply.status}.")
        else:
            self._answered()
        self._reached |= reply.status == _TOO_MANY
        self.lane.answered(busy=reply.status == _BUSY)
        return reply

    async def know_server(self) -> dialect.Server:
        """Find out what the server is, once.

        Raises:
            ServerError: it cannot be used, and why.
        """
        async with self._detecting:
            if self._server is None:
                self._server = await self._detect()
        return self._server

    def given_up(self) -> bool:
        """Whether the outage has lasted for longer than we are patient."""
        if self._down_since is None:
            return False
        return self._clock() - self._down_since >= self._patience()

    async def close(self) -> None:
        """Close the client."""
        if self._api is not None:
            await self._api.close()

    async def _detect(self) -> dialect.Server:
        address = self.address
        if self._settings.api_url is None:
            return dialect.Server(address, None, "the embedded ledger holds all limits by leases")
        if dialect.is_cloud(address):
            return dialect.cloud(address)
        server = dialect.read(await self.send(dialect.ASK), address)
        log.info("Limits are kept at %s: %s.", address, server.why)
        return server

    def _client(self) -> AsyncApi:
        if self._api is None:
            if self._open_api is None:
                from leasehold.client.http import AsyncApi

                self._open_api = AsyncApi
            self._api = self._open_api(self._settings)
        return self._api

    def _patience(self) -> float:
        settings = self._settings
        return settings.outage_seconds if self._reached else settings.unreachable_seconds

    def _request_seconds(self) -> float:
        """The usual time-out; less while a server that never answered has little time left."""
        if self._reached:
            return self.request_seconds
        spent = 0.0 if self._down_since is None else self._clock() - self._down_since
        return min(self.request_seconds, max(self._patience() - spent, 0.5))

    def _answered(self) -> None:
        self._reached = True
        if self._down_since is None:
            return
        seconds = self._clock() - self._down_since
        self._down_since = None
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
