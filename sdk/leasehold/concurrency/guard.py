"""The guard: a small process that outlives a crash, and gives back what the crashed process held.

Standard library only, and run as a script (``python -I -S guard.py FD [FD]``): it must start fast,
stay small, and need nothing of the environment it is started in. The first FD is a socket to whom
it was started by; the second, where it has one, is the door at which other clients come in. Rules:

1. It learns from its clients, line by line, what they hold and how to give it back: see `Client`.
   Keys come over the socket too, and live in memory only.
2. A client is gone when its end of the socket is closed, or its process has ended, whatever comes
   first. Everything it said before is read before anything is done about it. A process that is
   ending gets a moment for that: the kernel kills its workers only then.
3. It never gives back what the client gave back, and nothing while the client lives. A client that
   had begun to give something back gets a moment: the request may be under way still.
4. It renews what a living client lets go stale: the client's interpreter stands still, or it is
   stopped. The client is told, so that it knows when it wakes.
5. One request at a time, and the ears are open between two of them.
6. It ends when it has no client left and nothing to give back: at the latest when the leases of
   the last client have expired.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import selectors
import signal
import socket
import struct
import sys
import time

TYPE_CHECKING = False  # `typing` itself is a tenth of the guard's size
if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from typing import IO, Any

    Message = dict[str, Any]

#: A client renews at 0.3 of a lease's duration, and tries again often: this late it stands still.
STALE_RATIO = 0.6

#: How long a request that a client was sending when it died may still be under way: as a rule, and
#: if it met with trouble.
MOMENT_SECONDS, LONG_MOMENT_SECONDS = 1.0, 4.0

#: How long it may take from the end of a socket to that of its process.
ENDING_SECONDS = 0.1

#: Pauses between tries to give something back: the first, doubled each time, up to the longest.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0

#: How long to try to give back what never expires.
PATIENCE_SECONDS = 600.0

_BIG = 1 << 16

_DONE, _OK, _FORBIDDEN, _GONE = 204, range(200, 300), 403, (404, 410)

_INFINITY = float("inf")


def read_clock() -> float:
    """Read the clock that all processes of a machine share, and that runs on in suspend."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Hold:
    """Something that a client holds, or may be about to get."""

    def __init__(self, message: Message) -> None:
        self.renewal: list[Any] | None = message["renewal"]
        self.release: list[Any] = message["release"]
        self.seconds: float | None = message["seconds"]
        self.sent_at: float = message["sent_at"]
        self.in_motion: bool = message["in_motion"]
        self.once: bool = message["once"]
        self.due = 0.0
        self.until = _INFINITY
        self.pause = FIRST_PAUSE_SECONDS

    def stale_at(self) -> float:
        """When to renew it for its client."""
        if self.renewal is None or self.seconds is None or self.in_motion:
            return _INFINITY
        return max(self.sent_at + STALE_RATIO * self.seconds, self.due)

    def orphaned(self, now: float) -> None:
        """Take in that its client is gone."""
        self.due = now + (MOMENT_SECONDS if self.in_motion else 0.0)
        if self.seconds is None:
            self.until = now + PATIENCE_SECONDS
        else:
            self.until = self.sent_at + self.seconds

    def failed(self, now: float) -> None:
        """Plan the next try."""
        self.due = now + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE_SECONDS)


class Client:
    """A process that holds slots, on one connection.

    It sends lines of JSON, each with an ``op``: ``server`` (how to reach the server), ``hold`` (an
    id, and how to renew and give back what it stands for; ``seconds`` after which it is free by
    itself; ``in_motion`` while a request about it is under way; ``once`` if giving back twice would
    be one too many), ``renewed`` and ``drop``.
    It gets a line for each renewal that was done for it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.process: int | None = None
        self.ended = False
        self._watch()
        self.holds: dict[int, Hold] = {}
        self.gone = False
        self._server: Message = {}
        self._tls: ssl.SSLContext | None = None
        self._csrf: dict[str, str] = {}
        self._rest = b""

    def _watch(self) -> None:
        """Open a descriptor that is readable when the process has ended, where there are such."""
        try:
            self.process = os.pidfd_open(_peer(self.sock)[0])
        except ProcessLookupError:
            self.ended = True
        except (AttributeError, OSError):
            pass

    def has_server_of(self, other: Client) -> bool:
        """Say whether both hold slots at the same server."""
        return self._server == other._server

    def wait_for_end(self, seconds: float) -> None:
        """Wait until the process has ended, but not for longer than that."""
        assert self.process is not None
        ended = select.poll()
        ended.register(self.process, select.POLLIN)
        ended.poll(1000 * seconds)

    def take_in(self, message: Message) -> None:
        """Note what it says."""
        op, key = message["op"], message.get("id", 0)
        if op == "server":
            self._server, self._tls = message, None
        elif op == "hold":
            self.holds[key] = Hold(message)
        elif op == "renewed" and key in self.holds:
            self.holds[key].sent_at = message["sent_at"]
        elif op == "drop":
            self.holds.pop(key, None)

    def hear(self) -> list[Message]:
        """Read what there is; gives messages, and sets `gone` at the end."""
        messages: list[Message] = []
        while not self.gone:
            try:
                data = self.sock.recv(_BIG)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.gone = True
            *lines, self._rest = (self._rest + data).split(b"\n")
            messages += [json.loads(line) for line in lines]
        return messages

    def tell(self, message: Message) -> None:
        """Send a line; one that finds no room is left out, since the client does not read."""
        with contextlib.suppress(OSError):
            self.sock.send(json.dumps(message).encode() + b"\n")

    def send(self, request: list[Any]) -> int | None:
        """Send one request to the client's server; gives the status, None without an answer."""
        method, path, body = request
        try:
            status, text = self._send(method, path, body)
            if status == _FORBIDDEN and "CSRF" in text:
                client = os.urandom(16).hex()
                _, answer = self._send("GET", f"/csrf-token?client={client}", None)
                token = json.loads(answer)["token"]
                self._csrf = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": client}
                status, _ = self._send(method, path, body)
        except Exception:  # noqa: BLE001 - no answer, or none that makes sense: tried again later
            return None
        return status

    def _send(self, method: str, path: str, body: Any) -> tuple[int, str]:
        server = self._server
        url, headers = server["prefix"] + path, {**server["headers"], **self._csrf}
        if server["proxy"] and not server["tls"]:
            url, headers = server["url"] + path, {**headers, **_proxy_headers(server)}
        text = b"" if body is None else json.dumps(body).encode()
        headers["Content-Length"] = str(len(text))
        with self._connect() as sock:
            return _exchange(sock, _head(method, url, server["authority"], headers) + text)

    def _connect(self) -> socket.socket:
        """Open a connection to the server, through its proxy if there is one."""
        server = self._server
        proxy, seconds = server["proxy"], server["timeout_seconds"]
        # Hosts are bytes: for text, Python loads what knows the letters of all the world's names.
        host, port = server["host"].encode(), server["port"]
        first = (proxy[0].encode(), proxy[1]) if proxy else (host, port)
        with contextlib.ExitStack() as on_failure:
            sock = on_failure.enter_context(socket.create_connection(first, seconds))
            if server["tls"]:
                if proxy:
                    _tunnel(sock, server)
                tls = self._context().wrap_socket(sock, server_hostname=host)
                sock = on_failure.enter_context(tls)
            on_failure.pop_all()
        return sock

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            import ssl  # only when there is something to do

            self._tls = ssl.create_default_context(cafile=self._server["cafile"])
        return self._tls


# What there is in the library for HTTP reads mail as well, and is half the guard's size.


def _head(method: str, url: str, authority: str, headers: dict[str, str]) -> bytes:
    told = {"host": authority, "content-type": "application/json"}
    told.update({name.lower(): value for name, value in headers.items()})
    told["connection"] = "close"
    lines = [f"{method} {url} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())]
    return "\r\n".join([*lines, "\r\n"]).encode()


def _exchange(sock: socket.socket, request: bytes) -> tuple[int, str]:
    """Send a request and read the reply; gives its status and the beginning of its body."""
    sock.sendall(request)
    with sock.makefile("rb") as reply:
        status, headers = _read_head(reply)
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = b"".join(_read_chunks(reply))
        else:
            body = reply.read(min(int(headers.get("content-length", _BIG)), _BIG))
    return status, body.decode("utf-8", "replace")


def _read_head(reply: IO[bytes] | socket.SocketIO) -> tuple[int, dict[str, str]]:
    status = 100
    headers: dict[str, str] = {}
    while status < _OK.start:  # what comes before that is about the reply to come
        status, headers = int(reply.readline(_BIG).split()[1]), {}
        while line := reply.readline(_BIG).decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
    if status == _DONE:
        headers["content-length"] = "0"
    return status, headers


def _read_chunks(reply: IO[bytes]) -> Iterator[bytes]:
    left = _BIG
    while left > 0 and (size := int(reply.readline(_BIG).partition(b";")[0], 16)):
        yield reply.read(min(size, left))
        reply.readline(_BIG)
        left -= size


def _tunnel(sock: socket.socket, server: Message) -> None:
    """Have a proxy pass everything on to the server."""
    target = server["authority"]
    if not target.endswith(f":{server['port']}"):
        target = f"{target}:{server['port']}"
    sock.sendall(_head("CONNECT", target, target, _proxy_headers(server)))
    with sock.makefile("rb", buffering=0) as reply:  # nothing beyond its head is to be read
        status, _ = _read_head(reply)
    if status not in _OK:
        raise ConnectionRefusedError(status)


def _proxy_headers(server: Message) -> dict[str, str]:
    proxy = server["proxy"]
    return {"Proxy-Authorization": proxy[2]} if proxy and proxy[2] else {}


class Guard:
    """All clients, and the one loop that serves them."""

    def __init__(self, sock: socket.socket, door: socket.socket | None = None) -> None:
        self._clients: set[Client] = set()
        self._selector = selectors.DefaultSelector()
        self._door = door
        if door is not None:
            door.setblocking(False)
            self._selector.register(door, selectors.EVENT_READ, None)
        self._welcome(sock)

    def run(self) -> None:
        """Serve until nobody and nothing is left."""
        while self._clients:
            wait = max(self._next_due() - read_clock(), 0.0)
            for key, _ in self._selector.select(None if wait == _INFINITY else wait):
                if key.data is None:
                    self._answer_door()
                elif not key.data.gone:
                    self._listen(key.data, ended=key.fileobj is not key.data.sock)
            self._act()
            if not self._clients and self._door is not None:
                self._answer_door()  # whoever came at the last moment
        if self._door is not None:
            self._door.close()  # at once: who comes now is to have another guard

    def _welcome(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        client = Client(sock)
        self._clients.add(client)
        self._selector.register(sock, selectors.EVENT_READ, client)
        if client.process is not None:
            self._selector.register(client.process, selectors.EVENT_READ, client)
        if client.ended:  # before we were there; its line may be open all the same
            self._listen(client, ended=True)

    def _listen(self, client: Client, *, ended: bool) -> None:
        for message in client.hear():
            client.take_in(message)
        if client.gone or ended:
            self._part_from(client)

    def _part_from(self, client: Client) -> None:
        client.gone = True
        self._selector.unregister(client.sock)
        client.sock.close()
        if client.process is not None:
            self._selector.unregister(client.process)
            client.wait_for_end(ENDING_SECONDS)
            os.close(client.process)
        for hold in client.holds.values():
            hold.orphaned(read_clock())
        if not client.holds:
            self._clients.discard(client)

    def _answer_door(self) -> None:
        """Let in all who are waiting: a request may keep us for long after that."""
        assert self._door is not None
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._door.accept()
                if _peer(sock)[1] == os.getuid():
                    self._welcome(sock)
                else:
                    sock.close()

    def _next_due(self) -> float:
        return min((at for at, _, _, _ in self._plans()), default=_INFINITY)

    def _plans(self) -> Iterator[tuple[float, int, Client, int]]:
        """List what is to be done: when, for which client, about what."""
        for client in self._clients:
            for key, hold in client.holds.items():
                yield hold.due if client.gone else hold.stale_at(), id(hold), client, key

    def _act(self) -> None:
        """Do the one thing that has been due for longest."""
        plan = min(self._plans(), default=None)
        if plan is None or plan[0] > read_clock():
            return
        _, _, client, key = plan
        if client.gone:
            self._give_back(client, key)
        else:
            self._renew(client, key)

    def _give_back(self, client: Client, key: int) -> None:
        """Try to give back what a client that is gone held."""
        hold = client.holds[key]
        status, now = client.send(hold.release), read_clock()
        settled = status in _OK or status in _GONE
        if settled and hold.in_motion and not hold.once:  # the client's own may arrive after ours
            hold.in_motion, hold.due = False, now + LONG_MOMENT_SECONDS
        elif settled:
            self._drop(client, key)
        elif status is None:  # a silent server is not asked about each: it would cost a time-out
            for other in tuple(self._clients):
                if other.gone and other.has_server_of(client):
                    for number in tuple(other.holds):
                        self._failed(other, number, now)
        else:
            self._failed(client, key, now)

    def _failed(self, client: Client, key: int, now: float) -> None:
        hold = client.holds[key]
        if now >= hold.until:
            self._drop(client, key)
        elif now >= hold.due:
            hold.failed(now)

    def _drop(self, client: Client, key: int) -> None:
        del client.holds[key]
        if not client.holds:
            self._clients.discard(client)

    def _renew(self, client: Client, key: int) -> None:
        """Renew what a living client lets go stale."""
        hold = client.holds[key]
        sent_at = read_clock()
        assert hold.renewal is not None
        status = client.send(hold.renewal)
        if status == _DONE:
            hold.sent_at, hold.pause = sent_at, FIRST_PAUSE_SECONDS
            client.tell({"op": "renewed", "id": key, "sent_at": sent_at})
        elif status in _GONE:
            hold.due = _INFINITY  # its client will find out, and decide
        else:
            hold.failed(read_clock())


def _peer(sock: socket.socket) -> tuple[int, int, int]:
    """Say who is at the other end: pid, uid, gid."""
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid, gid


def main() -> None:
    """Run the guard on the sockets whose descriptors are the arguments."""
    with contextlib.suppress(ValueError, OSError):  # each client takes two descriptors
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Ctrl-C, a hang-up or the end of a service are for the clients. The guard ends after them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Guard(*(socket.socket(fileno=int(number)) for number in sys.argv[1:])).run()


if __name__ == "__main__":
    main()
