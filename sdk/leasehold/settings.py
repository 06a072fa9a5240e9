"""Where the server is, and how patient we are with it: one frozen `Settings`.

Sources, the first one that names a value wins:

1. the environment: ``PREFECT_*`` (what flow authors have today) and ``LEASEHOLD_*`` (ours);
2. the active profile of Prefect's ``profiles.toml``;
3. the defaults below.

An *empty* ``PREFECT_API_URL`` in the environment means "no server", as it does for Prefect, and
turns a profile's address off. Without an address the embedded ledger serves.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from leasehold.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Prefect brings this profile itself; a profiles.toml may name it without spelling it out.
_BUILT_IN_PROFILES: Final[dict[str, dict[str, str]]] = {
    "ephemeral": {},
    "local": {"PREFECT_API_URL": "http://127.0.0.1:4200/api"},
}

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
        home: the folder of the embedded ledger.
        dialect: "leases" or "legacy": how to hold slots, instead of what the server's version says.
        guard: whether a small process gives slots back when this one is killed.
        request_timeout_seconds: the most that one request may take.
        unreachable_seconds: a server that never answered gets this long before tasks fail.
        outage_seconds: a server that did answer before gets this long.
        poll_seconds: the longest pause between two questions for a slot that others hold. A
            server's own Retry-After may be hours (PROTOCOL.md, "Server defects").
        unlimited_seconds: how long "this tag has no limit" is believed; Prefect's client
            believes it for 5 s too.
        handover_seconds: how long a lease may pass from task to task inside this process, where
            others wait too, before it is given back so that they get their turn. 0: never passes.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    api_url: str | None = None
    source: str = "nothing is set"
    api_key: SecretStr | None = None
    api_auth_string: SecretStr | None = None
    api_ssl_cert_file: Path | None = None
    custom_headers: dict[str, str] = Field(default_factory=dict, repr=False)
    home: Path = Field(default_factory=_default_home)
    dialect: Literal["leases", "legacy"] | None = None
    guard: bool = True
    request_timeout_seconds: float = Field(default=10.0, gt=0)
    unreachable_seconds: float = Field(default=8.0, gt=0)
    outage_seconds: float = Field(default=600.0, gt=0)
    poll_seconds: float = Field(default=1.0, gt=0, le=60)
    unlimited_seconds: float = Field(default=5.0, ge=0)
    handover_seconds: float = Field(default=1.0, ge=0)

    @property
    def ledger_path(self) -> Path:
        """The embedded ledger's file."""
        return self.home / "ledger.db"

    @property
    def address(self) -> str:
        """What messages call the server."""
        return self.api_url or f"the embedded ledger {self.ledger_path}"


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the environment and the active profile.

    Args:
        environ: the environment; the process's own when None.

    Raises:
        SettingsError: a value or a profile that cannot be used, named.
    """
    environ = os.environ if environ is None else environ
    profile_name, profile = _active_profile(environ)
    values: dict[str, Any] = {}
    for field, variable in _FIELDS.items():
        if variable in environ:
            value, source = environ[variable], f"environment variable {variable}"
        elif variable in profile:
            value, source = profile[variable], f"profile {profile_name!r}"
        else:
            continue
        if field == "api_url":
            values["source"] = source
            values[field] = _checked_url(value, source)
        elif value and field == "custom_headers":
            values[field] = _checked_headers(value, source)
        elif value not in {"", None}:
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


def _active_profile(environ: Mapping[str, str]) -> tuple[str, Mapping[str, Any]]:
    home = Path(environ.get("PREFECT_HOME") or Path.home() / ".prefect").expanduser()
    path = Path(environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    try:
        content = _read_toml(path)
    except FileNotFoundError:
        content = {}
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"The profiles file {path} cannot be read: {error}. "
            "Mend it, or set PREFECT_PROFILES_PATH to another one.",
            setting=str(path),
        ) from error
    name = environ.get("PREFECT_PROFILE") or content.get("active")
    if not name:
        return "", {}
    profiles = {**_BUILT_IN_PROFILES, **content.get("profiles", {})}
    if not isinstance(profiles.get(name), dict):
        # Prefect warns and goes on with its default. We stop: going on without the server that
        # this profile was to name would mean limits that nobody else sees.
        raise SettingsError(
            f"The active profile {name!r} is not in {path}. Add it, or choose another one with "
            "PREFECT_PROFILE.",
            setting=str(path),
        )
    return str(name), profiles[name]


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    with path.open("rb") as file:
        return tomllib.load(file)
