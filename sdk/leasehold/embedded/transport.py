"""What stands in for the network: httpx transports that answer without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from leasehold.embedded.identity import this_process
from leasehold.embedded.server import VERSION, Answer, LedgerServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from leasehold.embedded.identity import Process
    from leasehold.embedded.ledger import Ledger


class Transport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """What can stand in for the network: it serves both kinds of client."""

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Answer one request; see `LedgerServer.answer`."""
        raise NotImplementedError

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a sync client."""
        path = request.url.raw_path.split(b"?")[0].decode().split("/api", 1)[-1]
        answer = self.answer(request.method, path, request.read())
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer an async client."""
        await request.aread()
        return self.handle_request(request)

    async def aclose(self) -> None:
        """End what `close` ends."""
        self.close()


class LedgerTransport(Transport):
    """Answers from a ledger.

    Example:
        >>> transport = LedgerTransport(Ledger(path))   # doctest: +SKIP
        >>> client = httpx.Client(transport=transport, base_url="http://embedded/api")

    Args:
        ledger: where limits and leases are kept.
        version: the version to claim.
        whose: see `LedgerServer`.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        version: str = VERSION,
        whose: Callable[[], Process | None] = this_process,
    ) -> None:
        self._server = LedgerServer(ledger, version=version, whose=whose)

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Answer one request."""
        return self._server.answer(method, path, body)

    def close(self) -> None:
        """Close the ledger's file."""
        self._server.close()
