"""Ids of holders: whoever reads a server's list of them can tell ours, and what they mean. Pure.

Servers know nothing of runs of this package: an id is all that they list. So the id says it: who
took the slot, when, and whether it comes back by itself. It is a UUID of version 8, which the
standard leaves to its maker (RFC 9562)::

    6924c1f0-1ea5-8e01-b3c2-9d8e7f6a5b4c
    ^        ^    ^^   ^
    |        |    ||   62 random bits
    |        |    |our mark, second half: e01 expires, e00 does not
    |        |    the version
    |        our mark, first half
    when, in seconds since 1970
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import random

_MARK: Final = 0x1EA58E00
_EXPIRES: Final = 1
_VARIANT: Final = 0b10 << 62
_RANDOM_BITS: Final = 62


class Origin(NamedTuple):
    """What one of our ids says.

    Attributes:
        since: when the slot was asked for.
        expires: whether the slot comes back when nobody reports in.
    """

    since: dt.datetime
    expires: bool


def new_id(rng: random.Random, *, now: float, expires: bool) -> uuid.UUID:
    """Make an id for one acquire.

    Args:
        rng: where the random bits come from.
        now: seconds since 1970.
        expires: see `Origin`.
    """
    marked = (int(now) & 0xFFFFFFFF) << 32 | _MARK | (_EXPIRES if expires else 0)
    return uuid.UUID(int=marked << 64 | _VARIANT | rng.getrandbits(_RANDOM_BITS))


def read_id(holder: uuid.UUID) -> Origin | None:
    """Say what an id means; None: it is not one of ours."""
    when, marked = divmod(holder.int >> 64, 1 << 32)
    if marked & ~_EXPIRES != _MARK or holder.variant != uuid.RFC_4122:
        return None
    since = dt.datetime.fromtimestamp(when, dt.timezone.utc)
    return Origin(since, expires=bool(marked & _EXPIRES))
