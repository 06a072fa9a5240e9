"""One keeper per process, what a fork makes of it, and who else wants to know.

Rules (LEASES.md, 9):

1. The keeper is started by the first work that needs a slot, and ends with the process.
2. A forked child has no part in what its parent holds: it starts with nothing, and takes its own.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import TYPE_CHECKING, Final

from leasehold.concurrency import crash, unlimited
from leasehold.concurrency.keeper import Keeper
from leasehold.concurrency.lease import held
from leasehold.forks import awaited_lock, put_off

if TYPE_CHECKING:
    from leasehold.concurrency.lease import Lease
    from leasehold.settings import Settings

_lock: Final = awaited_lock()
_keeper: Keeper | None = None
_left_behind: Final[list[Keeper]] = []


def current_keeper() -> Keeper:
    """The process's keeper, started by the first call.

    Raises:
        SettingsError: a setting that cannot be used.
    """
    global _keeper  # noqa: PLW0603 - one per process is the point
    keeper = _keeper
    if keeper is not None:
        return keeper
    with put_off(), _lock:
        settings = _loaded_settings()
        if _keeper is None:  # nor has a signal handler made one meanwhile
            _keeper = Keeper(settings, unlimited=unlimited.known)
            _close_at_exit(_keeper)
        return _keeper


def _loaded_settings() -> Settings:
    """Read the settings, and import what keepers and their callers import on demand."""
    from leasehold.client.api import import_all
    from leasehold.settings import load

    settings = load()
    import_all(settings)
    return settings


def running_keeper() -> Keeper | None:
    """The process's keeper, if one was started."""
    return _keeper


def leases() -> list[Lease]:
    """List the leases that this process holds now.

    Example:
        >>> for lease in leases():                      # doctest: +SKIP
        ...     print(lease.who, lease.age(), lease.remaining(), lease.last_error)
    """
    keeper = _keeper
    return [] if keeper is None else keeper.leases()


def shut_down() -> None:
    """Give everything back and end the keeper; the next work starts another with new settings."""
    global _keeper
    with _lock:
        keeper, _keeper = _keeper, None
    unlimited.known.forget()  # the next settings may name another server
    if keeper is not None:
        keeper.close()
        atexit.unregister(keeper.close)


def _close_at_exit(keeper: Keeper) -> None:
    atexit.register(keeper.close)
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        # Its forked workers end without `atexit`, but not before all threads that are no daemons.
        threading.Thread(
            target=_close_after_all_others, args=(keeper,), name="leasehold-end", daemon=False
        ).start()


def _close_after_all_others(keeper: Keeper) -> None:
    threading.main_thread().join()  # it goes on being listed
    ourselves = {threading.main_thread(), threading.current_thread()}
    while others := {one for one in threading.enumerate() if not one.daemon} - ourselves:
        others.pop().join()
    keeper.close()


def _after_fork_in_child() -> None:
    """Start anew: the parent's thread, loop and leases are the parent's."""
    global _keeper  # noqa: PLW0603 - one per process is the point
    crash.disarm()
    held.set(())
    if _keeper is not None:
        _keeper.after_fork()
        _left_behind.append(_keeper)  # collecting it would touch descriptors that are shared
        _keeper = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
