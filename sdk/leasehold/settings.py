"""Where the server is, and how patient we are with it: one frozen `Settings`.

They are read where Prefect reads them, too: see `sources`. ``PREFECT_*`` is what flow authors have
today, ``LEASEHOLD_*`` is ours; the defaults are below.

An *empty* ``PREFECT_API_URL`` in the environment means "no server", as it does for Prefect, and
turns an address in a file off. Without an address the embedded ledger serves.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from leasehold import sources
from leasehold.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from leasehold.sources import Found


def _default_home() -> Path:
    from platformdirs import user_data_path

    return user_data_path("leasehold", appauthor=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """One reading of the environment and the active profile.

    Example:
        >>> load({"PREFECT_API_URL": "http://127.0.0.1:4200/api"}).api_url
        'http://127.0.0.1:4200/api'

    Attributes:
        api_url: the server's address, without a slash at its end; None: the embedded ledger.
        source: where `api_url` was read, in words.
        api_key: sent as a bearer token.
        api_auth_string: "user:password", sent as Basic authentication.
        api_ssl_cert_file: certificates to trust instead of the system's.
        custom_headers: sent with every request.
        home: the folder of the embedded ledger; None: among the user's data.
        dialect: "leases" or "legacy": how to hold slots, instead of what the server's version says.
        guard: whether a small process gives slots back when this one is killed.
        request_timeout_seconds: the most that one request may take.
        unreachable_seconds: a server that never answered gets this long before tasks fail.
        outage_seconds: a server that did answer before gets this long.
        poll_seconds: the longest pause between two questions for a slot that others hold. A
            server's own Retry-After may be hours (PROTOCOL.md, "Server defects").
        unlimited_seconds: how long "this tag has no limit" is believed; Prefect's client
            believes it for 5 s too.
        handover_seconds: how long a lease may pass from task to task inside this process before
            it is given back, so that other processes get a chance; where others were met, a
            seventh of that, or less. 0: never passes.
    """

    api_url: str | None = None
    source: str = "nothing is set"
    api_key: str | None = field(default=None, repr=False)
    api_auth_string: str | None = field(default=None, repr=False)
    api_ssl_cert_file: Path | None = None
    custom_headers: dict[str, str] = field(default_factory=dict, repr=False)
    home: Path | None = None
    dialect: Literal["leases", "legacy"] | None = None
    guard: bool = True
    request_timeout_seconds: float = 10.0
    unreachable_seconds: float = 8.0
    outage_seconds: float = 600.0
    poll_seconds: float = 1.0
    unlimited_seconds: float = 5.0
    handover_seconds: float = 5.0

    @property
    def ledger_path(self) -> Path:
        """The embedded ledger's file."""
        return (self.home or _default_home()) / "ledger.db"

    @property
    def address(self) -> str:
        """What messages call the server."""
        return self.api_url or f"the embedded ledger {self.ledger_path}"


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read what is set.

    Args:
        environ: the environment, with its profile; None: the process's own, and the files of the
            working directory.

    Raises:
        SettingsError: a value, a file or a profile that cannot be used, named.
    """
    return Settings(**read(environ))


def read(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Read what is set, and leave out what is not; see `load`."""
    values: dict[str, Any] = {}
    for name, (variable, reader) in _READERS.items():
        found = sources.raw(variable, environ=environ)
        if found is None:
            continue
        if name == "api_url":
            values["source"] = found.source
        if name == "api_url" or found.value not in ("", None):
            values[name] = reader(found)
    return values


def _address(found: Found) -> str | None:
    url = str(found.value).strip().rstrip("/")
    if not url:
        return None
    if not url.startswith(("http://", "https://")):
        raise SettingsError(
            f"PREFECT_API_URL ({found.source}) must start with http:// or https:// and usually "
            "ends in /api, for example http://127.0.0.1:4200/api; it is "
            f"{_without_credentials(url)!r}.",
            setting="PREFECT_API_URL",
        )
    if "@" in url.split("//", 1)[1].split("/", 1)[0]:
        raise SettingsError(
            f"PREFECT_API_URL ({found.source}) carries a user name or password. Put them into "
            "PREFECT_API_AUTH_STRING=user:password instead, where they stay out of logs.",
            setting="PREFECT_API_URL",
        )
    return url


def _without_credentials(url: str) -> str:
    return "…@" + url.rsplit("@", 1)[1] if "@" in url else url


def _secret(found: Found) -> str:
    if not isinstance(found.value, str):
        raise found.error("text", secret=True)
    return found.value


def _headers(found: Found) -> dict[str, str]:
    headers = found.value
    try:
        headers = json.loads(headers) if isinstance(headers, str) else headers
        usable = all(isinstance(one, str) for one in headers.values())
    except (ValueError, AttributeError):
        usable = False
    if not usable:
        raise found.error("a JSON object of strings", secret=True)
    return dict(headers)


def _path(found: Found) -> Path:
    return Path(str(found.value))


def _dialect(found: Found) -> Any:
    if found.value not in ("leases", "legacy"):
        raise found.error("leases or legacy")
    return found.value


def _above_zero(found: Found) -> float:
    return found.number(above=0)


def _up_to_a_minute(found: Found) -> float:
    return found.number(above=0, most=60)


_READERS: Final[dict[str, tuple[str, Callable[[Found], Any]]]] = {
    "api_url": ("PREFECT_API_URL", _address),
    "api_key": ("PREFECT_API_KEY", _secret),
    "api_auth_string": ("PREFECT_API_AUTH_STRING", _secret),
    "api_ssl_cert_file": ("PREFECT_API_SSL_CERT_FILE", _path),
    "custom_headers": ("PREFECT_CLIENT_CUSTOM_HEADERS", _headers),
    "home": ("LEASEHOLD_HOME", _path),
    "dialect": ("LEASEHOLD_DIALECT", _dialect),
    "guard": ("LEASEHOLD_GUARD", sources.Found.truth),
    "request_timeout_seconds": ("LEASEHOLD_REQUEST_TIMEOUT_SECONDS", _above_zero),
    "unreachable_seconds": ("LEASEHOLD_UNREACHABLE_SECONDS", _above_zero),
    "outage_seconds": ("LEASEHOLD_OUTAGE_SECONDS", _above_zero),
    "poll_seconds": ("LEASEHOLD_POLL_SECONDS", _up_to_a_minute),
    "unlimited_seconds": ("LEASEHOLD_UNLIMITED_SECONDS", sources.Found.number),
    "handover_seconds": ("LEASEHOLD_HANDOVER_SECONDS", sources.Found.number),
}
