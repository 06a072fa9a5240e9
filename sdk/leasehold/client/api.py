"""One way to send requests, wherever the limits are kept: over HTTP, or to the ledger in here.

For the keeper. The ledger gets the same requests as a server does, and gives the same replies. But
what is in between on the way to a server would take twice as long as the ledger does, and is not
even imported.
"""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Protocol

from leasehold.client.wire import Reply

if TYPE_CHECKING:
    from leasehold.client.wire import Request
    from leasehold.settings import Settings


class Api(Protocol):
    """How the keeper talks to a server; tests put a simulated one here."""

    async def send(self, request: Request, *, timeout_seconds: float) -> Reply:
        """Send one request, once.

        Args:
            request: what to send.
            timeout_seconds: the most it may take as a whole.

        Raises:
            ServerUnreachableError: no reply, and whether the server may have acted.
            LedgerError: the embedded ledger's file cannot be used.
        """
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


def open_api(settings: Settings) -> Api:
    """Open the way to where limits are kept, for one event loop.

    Example:
        >>> async def version(settings):
        ...     ask = Request("GET", "/admin/version")
        ...     return (await open_api(settings).send(ask, timeout_seconds=5)).body
    """
    if settings.api_url is None:
        return LedgerApi(settings)
    from leasehold.client.http import AsyncApi

    return AsyncApi(settings)


class LedgerApi:
    """The embedded ledger. It answers in well under a millisecond, so inline."""

    def __init__(self, settings: Settings) -> None:
        from leasehold.embedded.ledger import Ledger
        from leasehold.embedded.server import LedgerServer

        self._server = LedgerServer(Ledger(settings.ledger_path))

    async def send(self, request: Request, *, timeout_seconds: float) -> Reply:
        """Have one request answered; see `Api`. The ledger has a time-out of its own."""
        del timeout_seconds
        body = b"" if request.body is None else json.dumps(request.body).encode()
        return Reply(*self._server.answer(request.method, request.path, body))

    async def close(self) -> None:
        """Close the file."""
        self._server.close()


def import_all(settings: Settings) -> None:
    """Import what clients, and who waits for them, import when they first need it; see `forks`."""
    ledger = ("leasehold.embedded.ledger", "leasehold.embedded.server")
    network = ("leasehold.client.http", "httpcore")
    needed = ledger if settings.api_url is None else network
    for name in (*needed, "anyio._backends._asyncio"):
        importlib.import_module(name)
