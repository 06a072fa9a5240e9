"""Mending what a server keeps of a lease that it has forgotten.

A server that is restarted loses its leases and keeps its counters (PROTOCOL.md, "Server defects"):
the slots of a task that was running stay taken for ever. Rules:

1. Only as many slots are given back as this process's own lease had.
2. It is certain that they are still counted where the lease was gone before it could have expired
   (an expired one was counted down by the server itself), and no release of it was carried out.
3. Most servers list the holders of a tag's slots, though not how many slots each has. That more
   slots are counted than holders must agree with rule 2. Where rule 2 does not hold, nobody at all
   may be listed: then every slot that is counted is a zombie, whoever left it. Where holders are
   not listed at all, rule 2 must hold.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from leasehold.client.wire import Fate, Request, read_release
from leasehold.concurrency.lane import RELEASE
from leasehold.exceptions import LeaseholdError

if TYPE_CHECKING:
    from leasehold.concurrency.connection import Connection
    from leasehold.concurrency.lease import Lease

log = logging.getLogger("leasehold.concurrency")

_TRIES: Final = 8
_LOOKS: Final = 3
_PAUSE_SECONDS: Final = 0.3


async def heal(lease: Lease, connection: Connection, *, sure: bool = True) -> None:
    """Lower the counters that still count a lease which the server has forgotten.

    Args:
        lease: the lease.
        connection: how to reach the server.
        sure: whether no release of it can have been carried out.
    """
    certain = sure and lease.remaining_of_grant() > 0
    for name in lease.limits:
        if await _lower(name, lease.request.slots, connection, certain=certain):
            log.info(
                "The server at %s had forgotten the lease of %s and went on counting its slot of "
                "%s; mended.",
                connection.address,
                lease.who,
                lease.request.label,
            )


async def _lower(name: str, slots: int, connection: Connection, *, certain: bool) -> bool:
    # A try without an answer may have been carried out. Looking again tells: the sign is gone then.
    for _ in range(_TRIES):
        unlisted, at_rest = await _unlisted(name, connection, certain=certain)
        if unlisted >= slots:
            request = Request(
                "POST", "/v2/concurrency_limits/decrement", {"names": [name], "slots": slots}
            )
            try:
                async with connection.lane.turn(RELEASE):
                    reply = await connection.send(request)
                if read_release(reply) is not Fate.UNKNOWN:
                    return True
            except LeaseholdError:
                pass
        elif at_rest:
            return False
        await asyncio.sleep(_PAUSE_SECONDS)
    return False


async def _unlisted(name: str, connection: Connection, *, certain: bool) -> tuple[int, bool]:
    """Count the slots in use that have no holder, and say whether they were at rest meanwhile.

    A count and a list of holders are never read in the same moment. So both are read several times:
    what nobody was listed for in any of the lists, and every count includes, is held by nobody.
    """
    looks = []
    for number in range(_LOOKS):
        if number:
            await asyncio.sleep(_PAUSE_SECONDS)
        look = await connection.look_at(name)
        if look is None or look.used is None:
            return 0, False
        if not look.used or not (look.is_listed or certain):
            return 0, True
        looks.append((look.used, frozenset(look.holders)))
    holders = frozenset[str]().union(*(listed for _, listed in looks))
    if holders and not certain:
        return 0, True
    return min(used for used, _ in looks) - len(holders), len(set(looks)) == 1
