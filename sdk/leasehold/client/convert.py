"""Giving tags leases on servers 3.4.9 - 3.4.18, as plans (see `plans`).

These servers have leases, but not for the limits of tags (PROTOCOL.md, "The trap"). Once there is a
global limit `tag:<tag>` as well, `concurrency.connection` holds the tag by leases there. Rules:

- the old limit stays: clients that know nothing of leases still meet one;
- all tags or none: the slots of one task are taken together, so they must live together;
- only while no slot is held: what is held on the old path does not count on the new one.

A later upgrade of the server keeps the global limit as it is, and deletes the old one (seen on
3.4.18 -> 3.4.25). Deleting the global limit `tag:<tag>` undoes it all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leasehold.client import server as servers
from leasehold.client.models import GlobalConcurrencyLimitCreate
from leasehold.client.names import check_tag, tag_limit
from leasehold.exceptions import LimitExistsError, LimitInUseError, ServerTooOldError

if TYPE_CHECKING:
    from leasehold.client.limits import Limits
    from leasehold.client.models import ConcurrencyLimitUse
    from leasehold.client.plans import Plan


def read_unconverted_limits(limits: Limits) -> Plan[list[ConcurrencyLimitUse]]:
    """List the limits of tags that could be held by leases, and are not yet.

    Raises:
        ServerTooOldError: the server has no leases at all.
        InvalidTagError: a tag cannot be the name of a global limit; so none of them is converted.
    """
    server = yield from limits.read_server()
    if server.name == "leases":
        return []
    if not server.may_be_converted:
        raise ServerTooOldError(
            f"The server at {limits.address} has no leases to convert to: {server.why}. Upgrade "
            f"it to {servers.TAGS_ARE_LEASED_FROM} or newer, which needs no conversion.",
            address=limits.address,
            version=str(server.version),
        )
    uses = yield from limits.read_concurrency_limit_uses()
    unconverted = [use for use in uses if use.counted is None]
    for use in unconverted:
        check_tag(use.limit.tag)
    return unconverted


def convert_limits(limits: Limits) -> Plan[list[ConcurrencyLimitUse]]:
    """Have all tags held by leases from now on.

    Returns:
        The limits that were converted, as they were before.

    Raises:
        LimitInUseError: a slot is held; nothing was changed.
        ServerTooOldError: the server has no leases at all.
        InvalidTagError: a tag cannot be the name of a global limit; nothing was changed.
    """
    found = yield from read_unconverted_limits(limits)
    held = [use.limit.tag for use in found if use.used]
    if held:
        raise LimitInUseError(
            f"Slots are held of {', '.join(map(repr, held))}, and would not count any more. "
            "Nothing was converted. Let the tasks end first; `leasehold doctor` finds slots that "
            "nobody holds.",
            names=held,
        )
    for use in found:
        name = tag_limit(use.limit.tag)
        wanted = GlobalConcurrencyLimitCreate(name=name, limit=use.limit.concurrency_limit)
        try:
            yield from limits.create_global_concurrency_limit(wanted)
        except LimitExistsError:
            continue  # somebody else converts it at the same moment
    return found
