"""A Prefect server for tests: the embedded ledger behind the wire protocol, with handles.

Requests reach it through httpx, in this process, without a network. What differs between versions
of real servers is taken from PROTOCOL.md, "Which server offers what".
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from packaging.version import Version

from leasehold.embedded.ledger import Ledger
from leasehold.embedded.server import VERSION, Answer, LedgerServer
from leasehold.embedded.transport import Transport
from leasehold.exceptions import LimitNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from leasehold.concurrency.keeper import Keeper
    from leasehold.embedded.ledger import Limit

#: Where it pretends to be.
ADDRESS: Final = "http://leasehold.test/api"

_OK, _ERROR = 200, 400

_LEASES: Final = re.compile(
    r"/v2/concurrency_limits/(increment-with-lease|decrement-with-lease|leases/[^/]+/renew)"
)
_FIRST_WITH_LEASES: Final = Version("3.4.9")
_FIRST_WITH_LEASES_FOR_TAGS: Final = Version("3.4.19")
_TAG_AS_GLOBAL: Final = re.compile(r"/v2/concurrency_limits/tag(:|%3A).*", re.IGNORECASE)

#: The routes by which `leasehold_router` knows requests; what none of them fits is "other".
ROUTES: Final = {
    "version": ("GET", "/admin/version"),
    "acquire": ("POST", "/v2/concurrency_limits/increment-with-lease"),
    "release": ("POST", "/v2/concurrency_limits/decrement-with-lease"),
    "renew": ("POST", "/v2/concurrency_limits/leases/[^/]+/renew"),
    "acquire_tags": ("POST", "/concurrency_limits/increment"),
    "release_tags": ("POST", "/concurrency_limits/decrement"),
}


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """What reached the server.

    Attributes:
        method: of HTTP.
        path: below the server's address.
        body: the JSON content; None where there was none.
        status: what the server answered.
    """

    method: str
    path: str
    body: Any
    status: int


class FakeServer(Transport):
    """A server for tests; the fixture `leasehold_server` gives one.

    Example:
        >>> def test_it(leasehold_server):
        ...     leasehold_server.limit("database", 1)
        ...     leasehold_server.fail_next(503)
        ...     etl()
        ...     assert leasehold_server.used("database") == 0

    Args:
        path: a file for its limits and leases.
        clock: its time.

    Attributes:
        requests: all that reached it; clear it as you like.
        version: what it says it is.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.requests: list[RecordedRequest] = []
        self.version = VERSION
        self._ledger = Ledger(path, now=clock)
        # A server sees nobody's process: its leases expire.
        self._server = LedgerServer(self._ledger, whose=lambda: None)
        self._leases: list[str] = []
        self._failures: list[tuple[int, str]] = []
        self._lock = threading.RLock()

    # -- for tests

    def limit(self, tag: str, size: int) -> None:
        """Make or change the limit of a tag."""
        self._ask("POST", "/concurrency_limits/", {"tag": tag, "concurrency_limit": size})

    def global_limit(self, name: str, size: int, slot_decay_per_second: float = 0.0) -> None:
        """Make a global limit, for `concurrency()` and `rate_limit()`."""
        values = {"name": name, "limit": size, "slot_decay_per_second": slot_decay_per_second}
        self._ask("POST", "/v2/concurrency_limits/", values)

    @property
    def limits(self) -> dict[str, int]:
        """The sizes of all limits, by name; a tag's is called `tag:<tag>`."""
        with self._lock:
            return {limit.name: limit.size for limit in self._ledger.list_limits(200, 0)}

    def used(self, tag_or_name: str) -> int:
        """How many slots of a tag, or of a global limit, are taken.

        What this process has released counts as given back, although it travels in the background.

        Raises:
            LimitNotFoundError: there is no such limit.
        """
        _let_releases_arrive()
        with self._lock:
            return self._find(tag_or_name).used_now(self._ledger.now())

    def holders(self, tag_or_name: str) -> list[str]:
        """The ids of those who hold slots of a tag, or of a global limit, the oldest first.

        Raises:
            LimitNotFoundError: there is no such limit.
        """
        _let_releases_arrive()
        with self._lock:
            holders = self._ledger.holders(self._find(tag_or_name).id)
        return [identity for _, identity in holders if identity is not None]

    def expire(self) -> None:
        """Let all leases end, as if nobody had renewed them.

        Whoever holds one in this process knows it when this returns, and does what its
        `on_lease_lost` says. Leases that end because the clock was moved are not looked at before
        their next renewal, as those of a process that has died.

        Example:
            >>> @task(tags=["database"], on_lease_lost="cancel")    # doctest: +SKIP
            ... async def load():
            ...     leasehold_server.expire()
            ...     await read_all()                                # ends with LeaseLostError
        """
        with self._lock:
            leases, self._leases = self._leases, []
            for lease in leases:
                self._ledger.release(lease)
        running = _running_keeper()
        if running is not None:
            running.renew_now()

    def fail_next(self, status: int, times: int = 1, path: str = "") -> None:
        """Answer the next requests with an error, and do nothing.

        Args:
            status: of HTTP, as 503.
            times: how many requests.
            path: only those with this in their path, as "renew".
        """
        with self._lock:
            self._failures += [(status, path)] * times

    def as_version(self, version: str) -> None:
        """Behave as a server of another version, as "3.0.11"."""
        Version(version)
        self.version = self._server.version = version

    # -- for clients

    def close(self) -> None:
        """Do nothing: clients come and go."""

    def shut_down(self) -> None:
        """Close the file."""
        self._ledger.close()

    def answer(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Answer one request."""
        with self._lock:
            answer = self._failure(path) or self._of_version(method, path, body)
            asked = json.loads(body) if body else None
            self.requests.append(RecordedRequest(method, path, asked, answer.status))
            if path.endswith("increment-with-lease") and answer.status == _OK:
                self._leases.append(json.loads(answer.body)["lease_id"])
        return answer

    def _failure(self, path: str) -> Answer | None:
        for failure in self._failures:
            status, part = failure
            if part in path:
                self._failures.remove(failure)
                return Answer(status, {}, b"")
        return None

    def _of_version(self, method: str, path: str, body: bytes) -> Answer:
        version = Version(self.version)
        if _LEASES.fullmatch(path) and version < _FIRST_WITH_LEASES:
            return Answer(405, {}, b'{"detail": "Method Not Allowed"}')
        if version < _FIRST_WITH_LEASES_FOR_TAGS:
            if _TAG_AS_GLOBAL.fullmatch(path):
                return Answer(404, {}, b'{"detail": "Concurrency Limit not found"}')
            if path.endswith("increment-with-lease"):
                body = _without_tags(body)
        return self._server.answer(method, path, body)

    def _find(self, tag_or_name: str) -> Limit:
        limit = self._ledger.read(f"tag:{tag_or_name}") or self._ledger.read(tag_or_name)
        if limit is None:
            raise LimitNotFoundError(
                f"There is neither a tag nor a limit {tag_or_name!r}. Make it first: "
                f"leasehold_server.limit({tag_or_name!r}, 3).",
                name=tag_or_name,
            )
        return limit

    def _ask(self, method: str, path: str, body: Any) -> None:
        with self._lock:
            answer = self._server.answer(method, path, json.dumps(body).encode())
        if answer.status >= _ERROR:
            raise ValueError(f"The server refuses {body!r}: {answer.body.decode()}")


def _running_keeper() -> Keeper | None:
    from leasehold.concurrency import process

    return process.running_keeper()


def _let_releases_arrive() -> None:
    running = _running_keeper()
    if running is not None:
        running.flush()


def _without_tags(body: bytes) -> bytes:
    """Between 3.4.9 and 3.4.18 leases know nothing of the limits of tags, and say so to nobody."""
    wanted = json.loads(body)
    wanted["names"] = [
        f"unknown-{name}" if str(name).startswith("tag:") else name for name in wanted["names"]
    ]
    return json.dumps(wanted).encode()
