"""The heart: names of limits become leases.

The path of one lease: `hold` (what callers use) → `process` (which keeper is this process's) →
`keeper` (the one thread that does the I/O), which asks `turnstile` (who goes next) and `lease`
(what may be believed), and has `tending` keep and return what it got over one `connection`.
`healing` mends what a server forgot, `herald` tells people why work waits, `events` tells programs.

This package can be called: ``from leasehold import concurrency`` means `hold.concurrency`, while
``leasehold.concurrency.sync`` and ``leasehold.concurrency.asyncio`` are the import paths that flow
authors know.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leasehold.concurrency.events import on_event as on_event
    from leasehold.concurrency.hold import concurrency as concurrency
    from leasehold.concurrency.hold import current_lease as current_lease
    from leasehold.concurrency.lease import Lease as Lease
    from leasehold.concurrency.process import leases as leases

_EXPORTS = {
    "Lease": "lease",
    "concurrency": "hold",
    "current_lease": "hold",
    "leases": "process",
    "on_event": "events",
}

__all__ = ["Lease", "concurrency", "current_lease", "leases", "on_event"]


def __getattr__(name: str) -> Any:
    if name == "__signature__":
        import inspect

        return inspect.signature(__getattr__("concurrency"))
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from leasehold.forks import put_off

    with put_off():
        value = getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


class _CallablePackage(types.ModuleType):
    """Lets one name be both the package and the context manager."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.concurrency(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
