"""Where the wire suite runs, and in what these places are known to differ.

The tests hold what all have in common. What differs stands here, as data, measured on running
servers (PROTOCOL.md); the defaults are the newest server's answers.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

GLOBALS: Final = "/v2/concurrency_limits"
TAGS: Final = "/concurrency_limits"

_BUSY: Final = 503
_BUSY_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Expected:
    """What a server answers where servers differ.

    Attributes:
        wants_key: it can be told to let nobody in without a key.
        wants_csrf_token: it can be told to change nothing without a CSRF token.
        cuts_idle_connections: it cuts connections that were idle for 5 s.
        leases: it has the lease endpoints.
        acquire_without_limits: the status of a lease on names that have no limit.
        renew_gone: the status of renewing a lease that is gone.
        tags_are_global: a tag's limit is the global limit `tag:<tag>`.
        tag_created: the status of a new tag's limit.
        bad_tag: the status of a tag with a forbidden character.
        too_big: the status of a number that no database keeps.
        slots_of_one_run: slots in use after one run asked twice for the same tag.
        tag_retry_after: the advice for a full tag, in seconds: from, to.
        short_tag_pages: a page of tags may be short although more follow.
        reset_leaves: the counter after a reset of a tag with two holders.
        after_reset: the status of an acquire then.
        switched_off_leaves: the counter after a limit was switched off and its slot given back.
        switched_on_leaves: the counter after a slot from the time before was given back.
        reads_decay: a read shows what has decayed since the last change.
        after_its_time: the status of an acquire when a lease was not renewed in time, but who took
            it lives.
        unknown_is_made: lowering the counter of an unknown name makes an inactive limit of it.
    """

    wants_key: bool = True
    wants_csrf_token: bool = True
    cuts_idle_connections: bool = True
    leases: bool = True
    acquire_without_limits: int = 200
    renew_gone: int = 410
    tags_are_global: bool = True
    tag_created: int = 201
    bad_tag: int = 500
    too_big: int = 500
    slots_of_one_run: int = 2
    tag_retry_after: tuple[float, float] = (10.0, 10.0)
    short_tag_pages: bool = True
    reset_leaves: int = 2
    after_reset: int = 423
    switched_off_leaves: int = 1
    switched_on_leaves: int = 0
    reads_decay: bool = True
    after_its_time: int = 200
    unknown_is_made: bool = False


_BEFORE_GLOBAL_TAGS: Final[dict[str, Any]] = {
    "renew_gone": 404,
    "tags_are_global": False,
    "tag_created": 200,
    "bad_tag": 200,
    "slots_of_one_run": 1,
    "tag_retry_after": (30.0, 30.0),
    "short_tag_pages": False,
    "after_reset": 200,
    "reads_decay": False,
}

EXPECTED: Final[dict[str, Expected]] = {
    "embedded": Expected(
        wants_key=False,
        wants_csrf_token=False,
        cuts_idle_connections=False,
        bad_tag=422,
        too_big=422,
        tag_retry_after=(0.0, 1.0),
        short_tag_pages=False,
        reset_leaves=0,
        after_reset=200,
        switched_off_leaves=0,
        switched_on_leaves=1,
        after_its_time=423,
    ),
    "3.0.11": Expected(
        **_BEFORE_GLOBAL_TAGS,
        wants_key=False,
        leases=False,
        acquire_without_limits=405,
        unknown_is_made=True,
    ),
    "3.4.18": Expected(**_BEFORE_GLOBAL_TAGS),
    "3.4.25": Expected(tag_retry_after=(30.0, 30.0), reads_decay=False),
    "3.8.8": Expected(),
}


@dataclass(frozen=True)
class Backend:
    """One place that speaks the protocol."""

    name: str
    http: httpx.Client

    @property
    def expected(self) -> Expected:
        """Its row of the table."""
        return EXPECTED[self.name]

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send one request; again while the server's database is busy, as it may be at any call."""
        give_up_at = time.monotonic() + _BUSY_SECONDS
        while True:
            reply = self.http.request(method, path, json=body)
            if reply.status_code != _BUSY or time.monotonic() > give_up_at:
                return reply
            time.sleep(0.05)

    # -- the requests that most tests need; what they answer is the tests' business

    def make(self, limit: int, /, **values: Any) -> str:
        """Make a global limit, and give its name."""
        name = values.pop("name", f"limit {uuid.uuid4()}")
        reply = self.ask("POST", f"{GLOBALS}/", {"name": name, "limit": limit, **values})
        assert reply.status_code == 201, reply.text
        return str(name)

    def make_tag(self, limit: int, tag: str | None = None) -> str:
        """Make a tag's limit, and give the tag."""
        tag = tag or f"tag {uuid.uuid4()}"
        reply = self.ask("POST", f"{TAGS}/", {"tag": tag, "concurrency_limit": limit})
        assert reply.status_code in {200, 201}, reply.text
        return tag

    def acquire(self, names: Sequence[str], slots: int = 1, **values: Any) -> httpx.Response:
        """Ask for a lease of a minute."""
        body = {"names": list(names), "slots": slots, "lease_duration": 60, **values}
        return self.ask("POST", f"{GLOBALS}/increment-with-lease", body)

    def lease(self, *names: str, slots: int = 1, **values: Any) -> str:
        """Get a lease, and give its id."""
        reply = self.acquire(names, slots, **values)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["lease_id"])

    def renew(self, lease_id: str) -> int:
        """Renew a lease; give the status."""
        body = {"lease_duration": 60}
        return self.ask("POST", f"{GLOBALS}/leases/{lease_id}/renew", body).status_code

    def release(self, lease_id: str) -> int:
        """Give a lease back; give the status."""
        body = {"lease_id": lease_id}
        return self.ask("POST", f"{GLOBALS}/decrement-with-lease", body).status_code

    def patch(self, name: str, /, **values: Any) -> int:
        """Change a limit; give the status."""
        return self.ask("PATCH", path_of(name), values).status_code

    def used(self, name: str) -> int:
        """Read a limit's counter."""
        reply = self.ask("GET", path_of(name))
        assert reply.status_code == 200, reply.text
        return int(reply.json()["active_slots"])

    def increment_tags(self, tags: Sequence[str], run: str | None = None) -> httpx.Response:
        """Take a slot on tags by the old call."""
        body = {"names": list(tags), "task_run_id": run or str(uuid.uuid4())}
        return self.ask("POST", f"{TAGS}/increment", body)

    def decrement_tags(self, tags: Sequence[str], run: str) -> httpx.Response:
        """Give what a run holds on tags back by the old call."""
        body = {"names": list(tags), "task_run_id": run}
        return self.ask("POST", f"{TAGS}/decrement", body)

    def runs(self, tag: str) -> list[str]:
        """List the task runs that hold a slot of a tag."""
        reply = self.ask("GET", path_of_tag(tag))
        assert reply.status_code == 200, reply.text
        return [str(one) for one in reply.json()["active_slots"]]


def path_of(name: str) -> str:
    """Give a global limit's path."""
    return f"{GLOBALS}/{quote(name, safe='')}"


def path_of_tag(tag: str) -> str:
    """Give a tag's path."""
    return f"{TAGS}/tag/{quote(tag, safe='')}"


def task_run(run: str | None = None) -> dict[str, str]:
    """Describe a task run as the holder of a lease."""
    return {"type": "task_run", "id": run or str(uuid.uuid4())}
