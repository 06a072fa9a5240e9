"""Which server is this, and can it hold tag limits by leases?

The table in PROTOCOL.md decides. Having the lease endpoints is not enough: servers 3.4.9 - 3.4.18
have them, and silently admit everybody to a tag's limit, because the limit lives elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from packaging.version import InvalidVersion, Version

from leasehold.client.http import refused
from leasehold.client.wire import Request, is_passing
from leasehold.exceptions import NotAPrefectServerError, ServerTooOldError, ServerUnreachableError

if TYPE_CHECKING:
    from leasehold.client.wire import Reply
    from leasehold.exceptions import ServerError

#: From here on a tag's limit is the global limit `tag:<tag>` (PROTOCOL.md, first table).
TAGS_ARE_LEASED_FROM: Final = Version("3.4.19")

ASK: Final = Request("GET", "/admin/version")

_OK = 200


@dataclass(frozen=True, slots=True)
class Server:
    """What is known of a server.

    Attributes:
        address: where it is.
        version: what it says it is; None for Prefect Cloud, which does not say.
        why: why we talk to it as we do, in words.
    """

    address: str
    version: Version | None
    why: str


def is_cloud(address: str) -> bool:
    """Say whether this is Prefect Cloud, which is always new."""
    host = urlsplit(address).hostname or ""
    return host == "prefect.cloud" or host.endswith(".prefect.cloud")


def cloud(address: str) -> Server:
    """Describe Prefect Cloud."""
    return Server(address, None, "Prefect Cloud holds tag limits by leases")


def read(reply: Reply, address: str) -> Server:
    """Read the reply to `ASK`.

    Raises:
        ServerError: with what is wrong with the server, and what to do.
    """
    if reply.status in {401, 403}:
        raise refused(address, reply.status)
    if is_passing(reply.status):
        raise ServerUnreachableError(
            f"The server at {address} answers HTTP {reply.status}.", address=address
        )
    version = _version(reply)
    if version is None:
        raise _not_prefect(reply, address)
    # A pre-release of the first good version (3.4.19.dev3) has not got all of it for sure.
    if version < TAGS_ARE_LEASED_FROM:
        raise ServerTooOldError(
            f"The server at {address} is Prefect {version}. Tag limits are held by leases from "
            f"{TAGS_ARE_LEASED_FROM} on: upgrade the server.",
            address=address,
            version=str(version),
        )
    why = f"Prefect {version} holds tag limits by leases (from {TAGS_ARE_LEASED_FROM} on)"
    return Server(address, version, why)


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
