"""Which server is this, and in which dialect does it hold which limits?

The table in PROTOCOL.md decides. Having the lease endpoints is not enough: servers 3.4.9 - 3.4.18
have them, and silently admit everybody to a tag's limit, because the limit lives elsewhere.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from packaging.version import InvalidVersion, Version

from leasehold.client.dialect import COUNTERS, LEASES, TAG_CALLS
from leasehold.client.wire import Request, is_passing
from leasehold.exceptions import (
    AuthenticationError,
    NotAPrefectServerError,
    ServerTooOldError,
    ServerUnreachableError,
)

if TYPE_CHECKING:
    from leasehold.client.dialect import Dialect
    from leasehold.client.wire import Reply, SlotRequest
    from leasehold.exceptions import ServerError
    from leasehold.settings import Settings

Name = Literal["leases", "legacy"]

#: From here on a tag's limit is the global limit `tag:<tag>` (PROTOCOL.md, first table).
TAGS_ARE_LEASED_FROM: Final = Version("3.4.19")

#: From here on other limits can be held by leases (PROTOCOL.md, first table).
LEASES_FROM: Final = Version("3.4.9")

#: Before this one a server enforces tags on state changes only: there is nothing to ask.
OLDEST: Final = Version("3.0.0")

ASK: Final = Request("GET", "/admin/version")

_UNAUTHORIZED, _FORBIDDEN = 401, 403

#: Servers are upgraded under running processes: what they are is asked again after this long.
KNOWN_SECONDS: Final = 300.0

#: A server needs longer than this to restart: what it confirmed so recently it has not forgotten.
RESTART_SECONDS: Final = 5.0

_OK = 200


class Server(NamedTuple):
    """What is known of a server.

    Attributes:
        address: where it is.
        version: what it says it is; None for Prefect Cloud, which does not say, and the ledger.
        why: why we talk to it as we do, in words.
        tags: how the limits of tags are held.
        plain: how other limits are held.
    """

    address: str
    version: Version | None
    why: str
    tags: Dialect = LEASES
    plain: Dialect = LEASES

    @property
    def name(self) -> Name:
        """What LEASEHOLD_DIALECT calls the way in which tags are held here."""
        return "leases" if self.tags is LEASES else "legacy"

    @property
    def summary(self) -> str:
        """How limits are held here, and why, in words."""
        how = f"tags by {self.tags.name}, other limits by {self.plain.name}"
        if self.tags is self.plain:
            how = f"all by {self.tags.name}"
        return f"{how}, because {self.why}"

    @property
    def may_be_converted(self) -> bool:
        """Whether single tags may have a global limit `tag:<tag>`, made by `limit convert`."""
        return self.tags is TAG_CALLS and self.plain is LEASES

    def dialect(self, request: SlotRequest) -> Dialect:
        """Choose the dialect for a request.

        Raises:
            ServerTooOldError: on this server nothing can take all of these slots together.
        """
        if request.mode == "rate_limit":
            return COUNTERS
        if not request.tags or self.tags is self.plain:
            return self.plain
        if len(request.tags) < len(request.names):
            raise self._too_old(
                f"keeps the limits of tags apart from others, so that {request.label} cannot be "
                "taken together. Take them in two blocks, one inside the other"
            )
        if request.slots > 1:
            raise self._too_old(
                f"gives one slot of a tag at a time, and {request.slots} of {request.label} were "
                "asked for. Occupy one"
            )
        return self.tags

    def _too_old(self, what: str) -> ServerTooOldError:
        return ServerTooOldError(
            f"The server at {self.address} is Prefect {self.version}, which {what}, or upgrade "
            f"the server to {TAGS_ARE_LEASED_FROM} or newer.",
            address=self.address,
            version=str(self.version),
        )


def known_unasked(settings: Settings) -> Server | None:
    """Describe a server that need not be asked what it is; None: `ASK`, and `read` the reply."""
    address = settings.address
    if settings.api_url is None:
        return Server(address, None, "the embedded ledger holds all limits by leases")
    if settings.dialect is not None:
        return _forced(address, settings.dialect)
    host = urlsplit(address).hostname or ""
    if host == "prefect.cloud" or host.endswith(".prefect.cloud"):
        return Server(address, None, "Prefect Cloud holds all limits by leases")
    return None


def refused(address: str, status: int) -> AuthenticationError:
    """Build the error for a 401 or a 403."""
    reason = "the right to do this" if status == _FORBIDDEN else "these credentials, or none"
    return AuthenticationError(
        f"The server at {address} refuses {reason} (HTTP {status}). Check PREFECT_API_KEY "
        "or PREFECT_API_AUTH_STRING, in the environment or in the active profile.",
        address=address,
    )


def read(reply: Reply, address: str) -> Server:
    """Read the reply to `ASK`.

    Raises:
        ServerError: with what is wrong with the server, and what to do.
    """
    if reply.status in {_UNAUTHORIZED, _FORBIDDEN}:
        raise refused(address, reply.status)
    if is_passing(reply.status):
        raise ServerUnreachableError(
            f"The server at {address} answers HTTP {reply.status}.", address=address
        )
    version = _version(reply)
    if version is None:
        raise _not_prefect(reply, address)
    # A pre-release of the first good version (3.4.19.dev3) has not got all of it for sure. The old
    # calls work on all of them.
    if version >= TAGS_ARE_LEASED_FROM:
        why = f"Prefect {version} holds all limits by leases (from {TAGS_ARE_LEASED_FROM} on)"
        return Server(address, version, why)
    if version >= LEASES_FROM:
        why = (
            f"Prefect {version} holds the limits of tags apart from others, without leases (until "
            f"{TAGS_ARE_LEASED_FROM})"
        )
        return Server(address, version, why, tags=TAG_CALLS)
    if version >= OLDEST:
        why = f"Prefect {version} has no leases (until {LEASES_FROM})"
        return Server(address, version, why, tags=TAG_CALLS, plain=COUNTERS)
    raise ServerTooOldError(
        f"The server at {address} is Prefect {version}, which has no way to ask for a tag's slot. "
        f"Upgrade the server to {TAGS_ARE_LEASED_FROM} or newer.",
        address=address,
        version=str(version),
    )


def _forced(address: str, name: Name) -> Server:
    why = f"LEASEHOLD_DIALECT={name} says so"
    if name == "leases":
        return Server(address, None, why)
    return Server(address, None, why, tags=TAG_CALLS, plain=COUNTERS)


def _version(reply: Reply) -> Version | None:
    if reply.status != _OK:
        return None
    try:
        text = json.loads(reply.body)
        return Version(text) if isinstance(text, str) else None
    except (ValueError, InvalidVersion):
        return None


def _not_prefect(reply: Reply, address: str) -> ServerError:
    hint = "" if address.endswith("/api") else f" Should it be {address}/api?"
    target = reply.headers.get("location")
    if target and reply.status in range(300, 400):
        hint = " It redirects elsewhere: use the address that it redirects to."
    return NotAPrefectServerError(
        f"{address} is no Prefect API: its /admin/version answers HTTP {reply.status}, "
        f"not a version. Check PREFECT_API_URL.{hint}",
        address=address,
    )
