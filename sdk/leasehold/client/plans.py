"""Plans: what to send to administrate limits, and what the answers mean. No I/O.

A *plan* is a generator that yields a `Request`, receives the `Reply`, and returns the result.
`clients` runs the plans, for sync and for async callers. Rules:

- names and numbers are checked before the first request;
- what the server is, is asked before anything else, and once (`client.server`);
- a plan sees neither time-outs nor 429 nor 5xx: these are tried again below it. `Reply.repeated`
  says that an earlier try may have been carried out. Then "exists already" is what a create hoped
  for, and "not found" what a delete hoped for;
- whatever becomes of a change, those who remember limits are told of it (`changes`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from leasehold.client import server as servers
from leasehold.client.names import TAG_PREFIX
from leasehold.client.wire import Reply, Request
from leasehold.exceptions import (
    LimitExistsError,
    LimitNotFoundError,
    ParameterError,
    UnexpectedReplyError,
)

if TYPE_CHECKING:
    from leasehold.settings import Settings

T = TypeVar("T")

Plan = Generator[Request, Reply, T]

#: The most that servers give at once (PROTOCOL.md, "Limits, v1 form").
PAGE: Final = 200

NOT_FOUND: Final = 404
CONFLICT: Final = 409
_NO_SUCH_ENDPOINT: Final = {404, 405}


class Planner:
    """What all plans for one server share.

    Args:
        settings: where the server is.
        clock: seconds that only ever grow.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.address = settings.address
        self._settings = settings
        self._clock = clock
        self._server: servers.Server | None = None
        self._ask_at = 0.0

    def read_server(self) -> Plan[servers.Server]:
        """Say what the server is, and in which dialect it holds which limits.

        Raises:
            ServerTooOldError: the server cannot hold these limits.
            NotAPrefectServerError: something else answers there.
        """
        if self._server is None or self._clock() >= self._ask_at:
            server = servers.known_unasked(self._settings)
            if server is None:
                server = servers.read((yield servers.ASK), self.address)
            self._server, self._ask_at = server, self._clock() + servers.KNOWN_SECONDS
        return self._server

    def _ask(self, method: str, path: str, body: Any = None) -> Plan[Reply]:
        """Send a request to a server of which it is known what it is."""
        yield from self.read_server()
        reply = yield Request(method, path, body)
        if reply.status in _NO_SUCH_ENDPOINT:
            self._ask_at = 0.0  # perhaps it is not what it was
        return reply

    def _check(self, reply: Reply, name: str) -> None:
        """Raise what `reply` means for the limit `name`, where it is no success."""
        tag = name.removeprefix(TAG_PREFIX)
        what = f"global limit {name!r}" if tag == name else f"limit for tag {tag!r}"
        command = "gcl" if tag == name else "limit"
        if reply.status == NOT_FOUND and name:
            raise LimitNotFoundError(
                f"There is no {what} at {self.address}: `leasehold {command} ls` lists those "
                "that exist.",
                name=tag,
            )
        if reply.status == CONFLICT:
            raise LimitExistsError(
                f"There is a {what} at {self.address} already: `leasehold {command} update` "
                "changes it.",
                name=tag,
            )
        if reply.status not in range(200, 300):
            raise self._unexpected(reply, f"refuses this: {reply.text}")

    def _read(self, reader: TypeAdapter[T], reply: Reply, name: str) -> T:
        self._check(reply, name)
        try:
            return reader.validate_json(reply.body)
        except ValidationError:
            raise self._unexpected(reply, f"answers with no limit: {reply.text}") from None

    def _unexpected(self, reply: Reply, what: str) -> UnexpectedReplyError:
        return UnexpectedReplyError(
            f"The server at {self.address} {what} (HTTP {reply.status}).",
            address=self.address,
            status=reply.status,
        )


def check_page(limit: int | None, offset: int) -> None:
    """Check which part of a list is wanted.

    Raises:
        ParameterError: a number is none, or negative.
    """
    for word, number in (("limit", limit), ("offset", offset)):
        if not isinstance(number, int | None) or (number or 0) < 0:
            raise ParameterError(f"{word} must be a whole number, 0 or more; got {number!r}.")
