"""The keeper's end of the line to the guard: starts it, tells it what is held, starts it anew.

Rules:

1. The guard is started with the first slot, or found: a process that a guarded one has started
   shares its guard, and so do the workers of one pool, although who started them may hold nothing.
   Where slots never expire it is started before, if there is a limit at all. Who of them gets the
   address starts the guard, and all others go there: so no address has two.
2. It is told of an acquire before that is sent, of a grant before anybody uses it, and of a release
   before that is sent: whenever this process dies, the guard knows what there is to give back.
3. When it is killed, another is started and told everything anew.
4. Nothing here ever blocks: what the guard has no room for yet waits in a buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import logging
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from leasehold.embedded.identity import name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from leasehold.client.wire import Request
    from leasehold.concurrency.lease import Lease
    from leasehold.settings import Settings

log = logging.getLogger("leasehold.concurrency")

#: Where the processes that this one starts find its guard. No secret: the guard asks who comes.
ADDRESS_VARIABLE: Final = "LEASEHOLD_GUARD_ADDRESS"

#: A guard that ends so soon after its start does not work here; so many in a row end the tries.
_TOO_SOON_SECONDS: Final = 5.0
_MOST_STARTS: Final = 3

#: One whose address is taken, and that is not to be reached, is coming or going: to be tried again
#: after a pause. What has the address for longer than that is no guard.
_PAUSE_SECONDS: Final = 0.05
_SEEK_SECONDS: Final = 5.0

#: How long to see a guard off that has nothing left to do, so that it does not stay as a zombie.
_END_SECONDS: Final = 0.5

#: What Python itself may need to start. Nothing else of the environment is the guard's business.
_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")

_BIG: Final = 1 << 16


class Guarding:
    """What a keeper tells the guard.

    Args:
        settings: where the server is, and whether there is to be a guard.
        loop: the keeper's.
        clock: see `lease.read_clock`; the guard reads the same.
        on_renewed: told of a lease that the guard has renewed, and when.
    """

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        on_renewed: Callable[[Lease, float], None],
    ) -> None:
        # The ledger sees for itself which processes have ended.
        self._wanted = settings.guard and settings.api_url is not None
        self._settings = settings
        self._loop = loop
        self._clock = clock
        self._on_renewed = on_renewed
        self._serial = itertools.count(1)
        self._told: dict[int, dict[str, Any]] = {}
        self._leases: dict[int, Lease] = {}
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = bytearray()
        self._rest = b""
        self._started_at = 0.0
        self._starts = 0
        self._sought_since: float | None = None
        self._next_try: asyncio.TimerHandle | None = None

    @property
    def is_there(self) -> bool:
        """Whether a guard is running, as far as we know."""
        return self._socket is not None

    @property
    def is_missing(self) -> bool:
        """Whether there is to be a guard, and none is running yet."""
        return self._wanted and not self.is_there

    # -- what there is to give back

    def expect(self, undo: Request | None, seconds: float | None) -> int:
        """Note that an acquire is about to be sent; gives the number by which to speak of it.

        Args:
            undo: what takes back whatever it may get; None where there is no way.
            seconds: when that is free again by itself; None: never.
        """
        key = next(self._serial)
        if undo is not None and self._wanted:
            times = {"seconds": seconds, "sent_at": self._clock()}
            self._tell(key, {**_message(key, undo), **times, "in_motion": True})
        return key

    def keep(self, key: int, lease: Lease) -> None:
        """Note that slots were granted; starts the guard, if it is the first time."""
        release, renewal = lease.grant.release, lease.grant.renewal
        if not self._wanted or release is None:
            return
        lease.guard_key, self._leases[key] = key, lease
        seconds = None if renewal is None else lease.request.lease_seconds
        times = {"seconds": seconds, "sent_at": lease.term.sent_at}
        once = {"once": lease.grant.counted}
        self.start()
        self._tell(key, {**_message(key, release, renewal), **times, **once})
        lease.guarded = self.is_there

    def pass_on(self, lease: Lease, heir: Lease) -> None:
        """Note that the same slots have another holder in this process."""
        if lease.guard_key in self._leases:
            heir.guard_key, heir.guarded = lease.guard_key, self.is_there
            self._leases[lease.guard_key] = heir

    def renewed(self, lease: Lease) -> None:
        """Note a renewal."""
        message = self._told.get(lease.guard_key)
        if message is not None:
            message["sent_at"] = lease.term.sent_at
            self._send({"op": "renewed", "id": lease.guard_key, "sent_at": lease.term.sent_at})

    def catch_up(self) -> None:
        """Hear now what the guard has said."""
        if self._socket is not None:
            self._hear()

    def returning(self, lease: Lease) -> None:
        """Note that a release is about to be sent."""
        message = self._told.get(lease.guard_key)
        if message is not None:
            self._tell(lease.guard_key, {**message, "in_motion": True})

    def drop(self, key: int) -> None:
        """Note that there is nothing to give back any more."""
        self._leases.pop(key, None)
        if self._told.pop(key, None) is not None:
            self._send({"op": "drop", "id": key})

    # -- the process

    def start(self) -> None:
        """Start the guard, or look for it, unless it is there or not wanted."""
        if self.is_missing:
            self._start()

    async def started(self) -> None:
        """Start the guard, and wait until it is there, or there is to be none."""
        self.start()
        while self.is_missing:  # noqa: ASYNC110 - it is looked for now and then anyway
            await asyncio.sleep(_PAUSE_SECONDS)

    def close(self) -> None:
        """Part from the guard. What was not given back yet, it gives back."""
        self._wanted = False
        self._hang_up()
        if self._process is not None:
            os.environ.pop(ADDRESS_VARIABLE, None)
            try:
                # With nothing left to do it ends at once, unless children of ours need it.
                self._process.wait(0 if self._told else _END_SECONDS)
            except subprocess.TimeoutExpired:  # it still has slots to give back
                _outliving.append(self._process)

    def forget(self) -> None:
        """Let go of the line in a forked child: it is the parent's, which may die before us."""
        self._wanted = False
        if self._socket is not None:
            self._socket.close()

    def _try_soon(self) -> None:
        """Start it, or look for it, in a moment."""
        if self._next_try is None:
            self._next_try = self._loop.call_later(_PAUSE_SECONDS, self._try)

    def _try(self) -> None:
        self._next_try = None
        self.start()

    def _start(self) -> None:
        if self._next_try is not None:
            return
        from leasehold.client.http import describe_way  # who has a guard, has a server

        try:
            way = describe_way(self._settings)
            self._socket = self._line()
        except (OSError, ValueError, AttributeError) as error:
            self._give_up(f"it cannot be started ({error})")
            return
        if self._socket is None:
            self._try_soon()
            return
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._hear)
        self._send({"op": "server", **way})
        for message in list(self._told.values()):
            self._send(message)
        for lease in self._leases.values():
            lease.guarded = self.is_there

    def _line(self) -> socket.socket | None:
        """Connect to the guard, started if there is none; None: it is coming, or going."""
        if sys.platform != "linux":  # only there are addresses without files
            return self._spawned()
        address = os.environ.setdefault(ADDRESS_VARIABLE, _address())
        with socket.socket(socket.AF_UNIX) as door:
            try:
                door.bind("\0" + address)
                door.listen(socket.SOMAXCONN)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    return self._spawned()
            else:
                return self._spawned(door)
        line = socket.socket(socket.AF_UNIX)
        line.setblocking(False)
        try:
            line.connect("\0" + address)
        except OSError:
            line.close()
            return self._spawned() if self._has_sought() else None
        peer = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if struct.unpack("3i", peer)[1] != os.getuid():  # it is about to be told keys
            line.close()
            return self._spawned()
        self._sought_since = None
        return line

    def _has_sought(self) -> bool:
        """Whether it was sought for long enough."""
        if self._sought_since is None:
            self._sought_since = self._clock()
        return self._clock() - self._sought_since > _SEEK_SECONDS

    def _spawned(self, door: socket.socket | None = None) -> socket.socket:
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as on_failure, theirs:
            on_failure.callback(ours.close)
            passed = [one.fileno() for one in (theirs, door) if one is not None]
            command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py"))]
            self._process = subprocess.Popen(  # noqa: S603 - our own file, and no shell
                [*command, *map(str, passed)],
                pass_fds=passed,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            )
            on_failure.pop_all()
        self._started_at, self._sought_since = self._clock(), None
        return ours

    def _give_up(self, why: str) -> None:
        self._wanted = False
        for lease in self._leases.values():
            lease.guarded = False
        log.warning(
            "No guard watches over this process: %s. If it is killed, its slots come back when "
            "their leases have expired; on servers without leases they do not come back.",
            why,
        )

    # -- the line

    def _tell(self, key: int, message: dict[str, Any]) -> None:
        self._told[key] = message
        self._send(message)

    def _send(self, message: dict[str, Any]) -> None:
        if self._socket is not None:
            waiting = bool(self._buffer)
            self._buffer += json.dumps(message).encode() + b"\n"
            if not waiting:
                self._flush()

    def _flush(self) -> None:
        line = self._socket
        if line is None:
            return
        self._loop.remove_writer(line)
        try:
            while self._buffer:
                del self._buffer[: line.send(self._buffer)]
        except BlockingIOError:
            self._loop.add_writer(line, self._flush)
        except OSError:
            self._lost()

    def _hear(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_BIG)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            lease = self._leases.get(message["id"])
            if lease is not None:
                self._told[message["id"]]["sent_at"] = message["sent_at"]
                self._on_renewed(lease, message["sent_at"])

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None
        self._buffer.clear()
        self._rest = b""

    def _lost(self) -> None:
        """The guard has ended before us: have another."""
        self._hang_up()
        if self._process is None:  # somebody else's, who may be quicker
            self._try_soon()
            return
        try:
            self._process.wait(_PAUSE_SECONDS)
        except subprocess.TimeoutExpired:  # it is about to end
            _outliving.append(self._process)
        self._process = None
        soon = self._clock() - self._started_at < _TOO_SOON_SECONDS
        self._starts = self._starts + 1 if soon else 1
        if self._starts > _MOST_STARTS and self._wanted:
            self._give_up(f"it ended {_MOST_STARTS} times right after its start")
        self.start()


def _address() -> str:
    """Name the guard of this process or, in a worker of `multiprocessing`, of who started it."""
    multiprocessing = sys.modules.get("multiprocessing")
    starter = multiprocessing.parent_process() if multiprocessing is not None else None
    return "leasehold " + name_of(os.getpid() if starter is None else starter.pid)


#: Guards that end later than their keeper; collecting them before that would be warned of.
_outliving: list[subprocess.Popen[bytes]] = []


def _message(key: int, release: Request, renewal: Request | None = None) -> dict[str, Any]:
    return {
        "op": "hold",
        "id": key,
        "release": [release.method, release.path, release.body],
        "renewal": renewal and [renewal.method, renewal.path, renewal.body],
        "in_motion": False,
        "once": False,
    }
