"""What stands in for the network: httpx transports that answer without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from leasehold.embedded.server import Answer, LedgerServer


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
        >>> transport = LedgerTransport(LedgerServer(Ledger(path)))     # doctest: +SKIP
        >>> client = httpx.Client(transport=transport, base_url="http://embedded/api")

    Args:
        server: who answers.
    """

    def __init__(self, server: LedgerServer) -> None:
        self._server = server

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Answer one request."""
        return self._server.answer(method, path, body)

    def close(self) -> None:
        """Close the ledger's file."""
        self._server.close()
