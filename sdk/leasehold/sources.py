"""Where settings are written, as for Prefect. Standard library only: decorators ask here, too.

The first of these that names a variable wins; the files are those of the working directory:

1. the environment;
2. ``.env``;
3. ``prefect.toml``, in tables: ``[api] url`` is PREFECT_API_URL;
4. ``pyproject.toml``, likewise, below ``[tool.prefect]``;
5. the active profile of Prefect's ``profiles.toml``.
"""

from __future__ import annotations

import functools
import math
import os
import shlex
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from leasehold.exceptions import SettingsError
from leasehold.forks import put_off

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Prefect brings this profile itself; a profiles.toml may name it without spelling it out.
_BUILT_IN_PROFILES: Final[dict[str, dict[str, str]]] = {
    "ephemeral": {},
    "local": {"PREFECT_API_URL": "http://127.0.0.1:4200/api"},
}

_PREFIXES: Final = ("PREFECT_", "LEASEHOLD_")


class Found(NamedTuple):
    """What a source says of a variable.

    Attributes:
        variable: its name.
        value: a string, or what a file of TOML holds.
        source: where it stands, in words.
    """

    variable: str
    value: Any
    source: str

    def error(self, what: str, *, secret: bool = False) -> SettingsError:
        """Build the error that says what the value must be, and what it is unless it is secret."""
        named = self.source.endswith(self.variable)
        where = "" if named else f" ({self.source})"
        found = "" if secret else f"; it is {self.value!r}"
        return SettingsError(
            f"{self.variable}{where} must be {what}{found}.", setting=self.variable
        )

    def whole_number(self, least: int) -> int:
        """Read a whole number.

        Raises:
            SettingsError: it is none, or below `least`.
        """
        text = str(self.value).strip()
        if not text.isdecimal() or int(text) < least:
            raise self.error(f"a whole number, {least} or more")
        return int(text)

    def number(self, *, above: float | None = None, most: float = math.inf) -> float:
        """Read one number of seconds: 0 or more, or more than `above`; `most` at most.

        Raises:
            SettingsError: it is none, or out of bounds.
        """
        try:
            number = float(str(self.value))
        except ValueError:
            number = math.nan
        if (number >= 0 if above is None else number > above) and number <= most:
            return number
        least = "0 or more" if above is None else f"more than {above:g}"
        bounds = least if most == math.inf else f"{least}, {most:g} at most"
        raise self.error(f"a number of seconds, {bounds}")

    def truth(self) -> bool:
        """Read what is on or off.

        Raises:
            SettingsError: it says neither.
        """
        text = str(self.value).strip().lower()
        if text not in _TRUTHS:
            raise self.error("true or false")
        return _TRUTHS[text]

    def words(self) -> list[str]:
        """Read what stands between commas, or in a list."""
        parts = self.value if isinstance(self.value, list) else str(self.value).split(",")
        return [part for part in (str(one).strip() for one in parts) if part]

    def seconds(self) -> float | list[float]:
        """Read one pause or several.

        Raises:
            SettingsError: they are no numbers, or below 0.
        """
        try:
            pauses = [float(word) for word in self.words()]
        except ValueError:
            pauses = [-1.0]
        if not all(0 <= pause < float("inf") for pause in pauses):
            raise self.error("numbers of seconds, 0 or more, with commas between them")
        return pauses[0] if len(pauses) == 1 else pauses


_TRUTHS: Final = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}


def look_up(*variables: str, environ: Mapping[str, str] | None = None) -> Found | None:
    """Find what is set under one of several names; None when nothing is, or it is empty.

    Example:
        >>> look_up("PREFECT_LOGGING_LEVEL", environ={"PREFECT_LOGGING_LEVEL": "DEBUG"}).value
        'DEBUG'

    Args:
        variables: the names, the best one first.
        environ: the environment; None: the process's own, and the files of the working directory.

    Raises:
        SettingsError: a file or a profile that cannot be used, named.
    """
    found = raw(*variables, environ=environ)
    return None if found is None or found.value in ("", None) else found


def raw(*variables: str, environ: Mapping[str, str] | None = None) -> Found | None:
    """Find what is set, also to nothing; see `look_up`."""
    for source, get in _sources(environ):
        for variable in variables:
            value = get(variable)
            if value is not None:
                name = f"{source} {variable}" if source == _ENVIRONMENT else source
                return Found(variable, value, name)
    return None


_ENVIRONMENT: Final = "environment variable"


def _sources(environ: Mapping[str, str] | None) -> Iterator[tuple[str, Callable[[str], Any]]]:
    yield _ENVIRONMENT, (os.environ if environ is None else environ).get
    if environ is None:
        for name, read in _FILES.items():
            content = _read(name, read)
            if content:
                yield f"the file {name} in the working directory", content
        environ = os.environ
    name, profile = _active_profile(environ)
    yield f"profile {name!r}", profile.get


def _read(path: str, read: Callable[[Path], Any]) -> Any:
    """Read a file again only when it has changed; None when there is none."""
    # Without pathlib: every decorator comes here, a few times.
    try:
        status = os.stat(path)  # noqa: PTH116 - see above
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):  # .env is the name of many a virtual environment
        return None
    return _read_once(path, read, status.st_ino, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=64)
def _read_once(path: str, read: Callable[[Path], Any], *_: int) -> Any:
    try:
        return read(Path(path))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"The file {path} cannot be read: {error}. Settings may stand in it, so mend it.",
            setting=path,
        ) from error


def _read_env(path: Path) -> Callable[[str], Any]:
    values = {}
    # The file is also others': what is not UTF-8 in it is not for us.
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, equals, rest = line.strip().removeprefix("export ").partition("=")
        if equals and name.strip().upper().startswith(_PREFIXES):
            words = shlex.split(rest, comments=True)
            values[name.strip().upper()] = " ".join(words)
    return values.get


def _read_tables(path: Path) -> Callable[[str], Any]:
    content = _read_toml(path)
    if path.name == "pyproject.toml":
        content = content.get("tool", {}).get("prefect", {})
    return functools.partial(_in_tables, content)


def _in_tables(content: Mapping[str, Any], variable: str) -> Any:
    """Find a variable by its words, of which any number may be the name of a table."""
    first, *words = variable.lower().split("_")
    return _below(content, words) if first == "prefect" else None


def _below(table: Mapping[str, Any], words: list[str]) -> Any:
    for length in range(len(words), 0, -1):
        value = table.get("_".join(words[:length]))
        if length < len(words):
            value = _below(value, words[length:]) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def _read_toml(path: Path) -> dict[str, Any]:
    with put_off():
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
    with path.open("rb") as file:
        return tomllib.load(file)


_FILES: Final[dict[str, Callable[[Path], Any]]] = {
    ".env": _read_env,
    "prefect.toml": _read_tables,
    "pyproject.toml": _read_tables,
}


def _active_profile(environ: Mapping[str, str]) -> tuple[str, Mapping[str, Any]]:
    path = environ.get("PREFECT_PROFILES_PATH") or ""
    if not path:
        path = f"{environ.get('PREFECT_HOME') or '~/.prefect'}/profiles.toml"
    path = os.path.expanduser(path)  # noqa: PTH111 - as in _read
    content = _read(path, _read_toml) or {}
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
            setting=path,
        )
    return str(name), profiles[name]
