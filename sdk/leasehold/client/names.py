"""Which names a tag or a limit may have. Pure, and imports next to nothing."""

from __future__ import annotations

from typing import Final

from leasehold.exceptions import InvalidTagError

#: A name with one of these is refused by every server from 3.4.19 on (PROTOCOL.md).
FORBIDDEN_CHARACTERS: Final = "/%&><"


def check_tag(tag: object) -> str:
    """Check a tag that is to have a limit.

    Raises:
        InvalidTagError: it is no string, empty, or has a character that servers refuse.
    """
    return _checked(tag, "tag")


def check_limit_name(name: object) -> str:
    """Check the name of a global limit; that of a tag's limit is `tag:<tag>`.

    Raises:
        InvalidTagError: it is no string, empty, or has a character that servers refuse.
    """
    if isinstance(name, str) and name.startswith("tag:"):
        check_tag(name.removeprefix("tag:"))
        return name
    return _checked(name, "limit name")


def _checked(name: object, what: str) -> str:
    if not isinstance(name, str):
        raise InvalidTagError(f"A {what} must be a string; got {name!r}.", tag=name)
    if not name.strip():
        raise InvalidTagError(f"A {what} must not be empty; got {name!r}.", tag=name)
    found = sorted(set(name) & set(FORBIDDEN_CHARACTERS))
    if found:
        raise InvalidTagError(
            f"The {what} {name!r} has {' '.join(found)} in it, which servers refuse in names of "
            f"limits ({' '.join(FORBIDDEN_CHARACTERS)}). Rename it, for example to "
            f"{_renamed(name)!r}.",
            tag=name,
        )
    return name


def _renamed(name: str) -> str:
    return "".join("-" if character in FORBIDDEN_CHARACTERS else character for character in name)
