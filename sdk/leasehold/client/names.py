"""Which names and numbers a limit may have. Pure, and imports next to nothing.

They are checked here, before anything is sent, because servers do not agree on them: a tag with a
slash gets 422 on one path and 500 on another, and a tag's limit of -2 is taken (PROTOCOL.md).
"""

from __future__ import annotations

import math
from typing import Final
from urllib.parse import quote

from leasehold.exceptions import InvalidLimitError, InvalidTagError

#: A name with one of these is refused by every server from 3.4.19 on (PROTOCOL.md).
FORBIDDEN_CHARACTERS: Final = "/%&><"

#: What a tag's limit is called among the global limits, from 3.4.19 on.
TAG_PREFIX: Final = "tag:"

#: A server on PostgreSQL keeps a limit in 32 bits.
LARGEST_SIZE: Final = 2**31 - 1


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
    if isinstance(name, str) and name.startswith(TAG_PREFIX):
        check_tag(name.removeprefix(TAG_PREFIX))
        return name
    return _checked(name, "limit name")


def check_size(size: object, name: str) -> int:
    """Check a limit's size, or its number of slots in use.

    Raises:
        InvalidLimitError: it is no whole number from 0 to 2,147,483,647.
    """
    if isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= LARGEST_SIZE:
        return size
    raise InvalidLimitError(
        f"{size!r} cannot be the limit of {name!r}: a limit is a whole number from 0 to "
        f"{LARGEST_SIZE}.",
        name=name,
        value=size,
    )


def check_decay(decay: object, name: str) -> float:
    """Check a rate limit's decay, in slots per second.

    Raises:
        InvalidLimitError: it is no number, negative, or not finite.
    """
    if isinstance(decay, (int, float)) and math.isfinite(decay) and decay >= 0:
        return float(decay)
    raise InvalidLimitError(
        f"{decay!r} cannot be the slot decay of {name!r}: a decay is a number of slots per second, "
        "0 or more.",
        name=name,
        value=decay,
    )


def in_path(name: object, what: str) -> str:
    """Quote a name for use in a URL's path.

    Looking up is more lenient than creating: an old server may have a limit of a name that could
    not be given to a new one, and it must be possible to delete that.

    Raises:
        InvalidTagError: it is no string, or empty.
    """
    quoted = quote(_text(name, what), safe="")
    # "." and ".." would be taken for "this folder" and "the one above".
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def tag_limit(tag: object) -> str:
    """Name the global limit that is a tag's limit, from 3.4.19 on.

    Raises:
        InvalidTagError: the tag is no string, or empty.
    """
    return TAG_PREFIX + _text(tag, "tag")


def _text(name: object, what: str) -> str:
    if not isinstance(name, str):
        raise InvalidTagError(f"A {what} must be a string; got {name!r}.", tag=name)
    if not name.strip():
        raise InvalidTagError(f"A {what} must not be empty; got {name!r}.", tag=name)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidTagError(
            f"The {what} {name!r} cannot be written as UTF-8.", tag=name
        ) from None
    return name


def _checked(name: object, what: str) -> str:
    text = _text(name, what)
    found = sorted(set(text) & set(FORBIDDEN_CHARACTERS))
    if found:
        raise InvalidTagError(
            f"The {what} {text!r} has {' '.join(found)} in it, which servers refuse in names of "
            f"limits ({' '.join(FORBIDDEN_CHARACTERS)}). Rename it, for example to "
            f"{_renamed(text)!r}.",
            tag=name,
        )
    return text


def _renamed(name: str) -> str:
    return "".join("-" if character in FORBIDDEN_CHARACTERS else character for character in name)
