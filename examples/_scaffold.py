"""What the examples share and what is not their point: their limits, a witness, a clean end.

A limit that exists already is used as it is. One that an example makes is removed at its end, so
that nothing stays behind on a server that others use too.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from leasehold.client import GlobalConcurrencyLimitCreate, get_client
from leasehold.exceptions import LeaseholdError, LimitNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from typing_extensions import Self

    from leasehold.client import SyncClient

#: What releases that are still on their way get before a limit counts as used by others.
GRACE_SECONDS: Final = 2.0


class Meter:
    """Counts how many bodies run at once.

    It is entered inside the bodies and knows nothing of limits, so it can bear witness for them.

    Example:
        >>> with meter:                                 # doctest: +SKIP
        ...     insert(rows)

    Attributes:
        running: how many run now.
        peak: the most that ever ran at once.
        total: how many began.
    """

    def __init__(self) -> None:
        self.running = self.peak = self.total = 0
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        with self._changed:
            self.running += 1
            self.total += 1
            self.peak = max(self.peak, self.running)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self.running -= 1
            self._changed.notify_all()

    def wait_until_idle(self, seconds: float = 10.0) -> None:
        """Wait until no body runs, or for `seconds`: after Ctrl-C those that run end their work."""
        with self._changed:
            self._changed.wait_for(lambda: not self.running, seconds)


@contextlib.contextmanager
def tag_limit(tag: str, size: int) -> Iterator[int]:
    """See to it that a tag has a limit, for the time of the block; gives the limit's real size.

    Args:
        tag: whose limit.
        size: how many may run at once, if there is no limit yet.
    """
    with get_client(sync_client=True) as client:
        try:
            found = client.read_concurrency_limit_by_tag(tag).concurrency_limit
        except LimitNotFoundError:
            client.create_concurrency_limit(tag, size)
        else:
            print(f"Tag {tag!r} has a limit already: {found}. It is used as it is.")
            yield found
            return
        try:
            yield size
        finally:
            if slots_in_use(client, f"tag:{tag}"):
                print(f"Others use the limit of tag {tag!r} now: it stays.")
            else:
                client.delete_concurrency_limit_by_tag(tag)


@contextlib.contextmanager
def global_limit(name: str, size: int, *, slot_decay_per_second: float = 0.0) -> Iterator[int]:
    """See to it that a global limit exists, for the time of the block; gives its real size.

    Args:
        name: of the limit.
        size: how many slots it gets, if there is no such limit yet.
        slot_decay_per_second: how many come back by themselves; above 0 for a rate limit.
    """
    wanted = GlobalConcurrencyLimitCreate(
        name=name, limit=size, slot_decay_per_second=slot_decay_per_second
    )
    with get_client(sync_client=True) as client:
        try:
            found = client.read_global_concurrency_limit_by_name(name).limit
        except LimitNotFoundError:
            client.create_global_concurrency_limit(wanted)
        else:
            print(f"Global limit {name!r} exists already: {found}. It is used as it is.")
            yield found
            return
        try:
            yield size
        finally:
            # The slots of a rate limit come back with time only, whoever used them.
            if not slot_decay_per_second and slots_in_use(client, name):
                print(f"Others use the global limit {name!r} now: it stays.")
            else:
                client.delete_global_concurrency_limit_by_name(name)


def slots_in_use(client: SyncClient, name: str) -> int:
    """Read how many slots of a limit are in use, after what is being released has come back."""
    give_up_at = time.monotonic() + GRACE_SECONDS
    while True:
        used = client.read_global_concurrency_limit_by_name(name).active_slots
        if not used or time.monotonic() > give_up_at:
            return used
        time.sleep(0.1)


def summarize(**lines: object) -> None:
    """Print the end of an example: one line for each fact."""
    print()
    for name, value in lines.items():
        print(f"  {name.replace('_', ' '):<24} {value}")


def run(main: Callable[[], int]) -> None:
    """Run an example to its exit code; Ctrl-C and a server's trouble end it with one line."""
    try:
        code = main()
    except KeyboardInterrupt:
        print("\nStopped. What was taken is given back.", file=sys.stderr)
        code = 130
    except LeaseholdError as error:
        print(f"\nError: {error}", file=sys.stderr)
        code = 1
    sys.exit(code)
