"""Where the server is, and how patient we are with it: one frozen `Settings`.

They are read where Prefect reads them, too: see `sources`. ``PREFECT_*`` is what flow authors have
today, ``LEASEHOLD_*`` is ours; the defaults are below.

An *empty* ``PREFECT_API_URL`` in the environment means "no server", as it does for Prefect, and
turns an address in a file off. Without an address the embedded ledger serves.
"""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from leasehold import sources
from leasehold.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELDS: Final = {
    "api_url": "PREFECT_API_URL",
    "api_key": "PREFECT_API_KEY",
    "api_auth_string": "PREFECT_API_AUTH_STRING",
    "api_ssl_cert_file": "PREFECT_API_SSL_CERT_FILE",
    "custom_headers": "PREFECT_CLIENT_CUSTOM_HEADERS",
    "home": "LEASEHOLD_HOME",
    "dialect": "LEASEHOLD_DIALECT",
    "guard": "LEASEHOLD_GUARD",
    "request_timeout_seconds": "LEASEHOLD_REQUEST_TIMEOUT_SECONDS",
    "unreachable_seconds": "LEASEHOLD_UNREACHABLE_SECONDS",
    "outage_seconds": "LEASEHOLD_OUTAGE_SECONDS",
    "poll_seconds": "LEASEHOLD_POLL_SECONDS",
    "unlimited_seconds": "LEASEHOLD_UNLIMITED_SECONDS",
    "handover_seconds": "LEASEHOLD_HANDOVER_SECONDS",
}


def _default_home() -> Path:
    from platformdirs import user_data_path

    return user_data_path("leasehold", appauthor=False)


class Settings(BaseModel):
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

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    api_url: str | None = None
    source: str = "nothing is set"
    api_key: SecretStr | None = None
    api_auth_string: SecretStr | None = None
    api_ssl_cert_file: Path | None = None
    custom_headers: dict[str, str] = Field(default_factory=dict, repr=False)
    home: Path | None = None
    dialect: Literal["leases", "legacy"] | None = None
    guard: bool = True
    request_timeout_seconds: float = Field(default=10.0, gt=0)
    unreachable_seconds: float = Field(default=8.0, gt=0)
    outage_seconds: float = Field(default=600.0, gt=0)
    poll_seconds: float = Field(default=1.0, gt=0, le=60)
    unlimited_seconds: float = Field(default=5.0, ge=0)
    handover_seconds: float = Field(default=5.0, ge=0)

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
    values: dict[str, Any] = {}
    for field, variable in _FIELDS.items():
        found = sources.raw(variable, environ=environ)
        if found is None:
            continue
        value = found.value
        if field == "api_url":
            values["source"] = found.source
            values[field] = _checked_url(value, found.source)
        elif value and field == "custom_headers":
            values[field] = _checked_headers(value, found.source)
        elif value not in ("", None):
            values[field] = value
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = _FIELDS.get(str(first["loc"][0]), str(first["loc"][0]))
        raise SettingsError(f"{name} cannot be used: {first['msg']}.", setting=name) from None


def _checked_url(value: Any, source: str) -> str | None:
    url = str(value).strip().rstrip("/")
    if not url:
        return None
    if not url.startswith(("http://", "https://")):
        raise SettingsError(
            f"PREFECT_API_URL ({source}) must start with http:// or https:// and usually ends in "
            f"/api, for example http://127.0.0.1:4200/api; it is {_without_credentials(url)!r}.",
            setting="PREFECT_API_URL",
        )
    if "@" in url.split("//", 1)[1].split("/", 1)[0]:
        raise SettingsError(
            f"PREFECT_API_URL ({source}) carries a user name or password. Put them into "
            "PREFECT_API_AUTH_STRING=user:password instead, where they stay out of logs.",
            setting="PREFECT_API_URL",
        )
    return url


def _without_credentials(url: str) -> str:
    return "…@" + url.rsplit("@", 1)[1] if "@" in url else url


def _checked_headers(value: Any, source: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise SettingsError(
            f"PREFECT_CLIENT_CUSTOM_HEADERS ({source}) must be a JSON object of strings.",
            setting="PREFECT_CLIENT_CUSTOM_HEADERS",
        ) from None
