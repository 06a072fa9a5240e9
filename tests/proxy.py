"""A proxy on 127.0.0.1 that can do to requests what networks and servers do to them.

It stands between the code under test and a real server, understands just enough HTTP to tell one
request from the next, and asks a `Plan` what to do with each. Everything runs on one thread.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import enum
import random
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from typing_extensions import Self

START_SECONDS = 10.0


class Fault(enum.Enum):
    """What may happen to a request."""

    NONE = "it is passed on"
    CUT = "the connection is cut before the server sees it"
    DROP = "the server acts, and the reply is lost"
    DELAY = "the reply takes a while"
    BLACK_HOLE = "no answer ever comes"
    IDLE_CUT = "it is answered, and the connection is cut right after"
    STATUS_429 = "too many requests"
    STATUS_500 = "internal server error"
    STATUS_503 = "service unavailable"


_ANSWERS = {
    Fault.STATUS_429: (
        b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 0.2\r\ncontent-length: 0\r\n\r\n"
    ),
    Fault.STATUS_500: b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
    Fault.STATUS_503: b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
}


@dataclass(frozen=True)
class Seen:
    """A request on its way."""

    method: str
    path: str


Plan = "Callable[[Seen], Fault]"


def passing(_: Seen) -> Fault:
    """Let everything through."""
    return Fault.NONE


def sometimes(*faults: Fault, share: float, seed: int) -> Callable[[Seen], Fault]:
    """Have faults happen to a share of the requests, by a random source of its own."""
    rng = random.Random(seed)
    return lambda _: rng.choice(faults) if rng.random() < share else Fault.NONE


@dataclass
class Proxy:
    """The proxy; used as a context manager.

    Attributes:
        target: the address of the real server's API.
        plan: what happens to each request; may be exchanged at any time.
        delay_seconds: how long `Fault.DELAY` takes.
        seen: all requests so far, with what happened to them.
        busy: those to which the server itself said 503, as it does when its own services write.
        down: whether it refuses everything.
        tls: what to encrypt with; None: nothing is encrypted.
    """

    target: str
    plan: Callable[[Seen], Fault] = passing
    delay_seconds: float = 0.5
    seen: list[tuple[Seen, Fault]] = field(default_factory=list)
    busy: list[Seen] = field(default_factory=list)
    down: bool = False
    tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        """What PREFECT_API_URL is set to."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}/api"

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._open: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        assert self._started.wait(START_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(START_SECONDS)

    def count(self, fault: Fault) -> int:
        """Say how often a fault has happened."""
        return sum(happened is fault for _, happened in self.seen)

    def requests(self, part: str) -> int:
        """Say how many requests had `part` in their path, but for those the server was busy for."""
        seen = [request for request, _ in self.seen if part in request.path]
        return len(seen) - sum(part in request.path for request in self.busy)

    def go_down(self) -> None:
        """Refuse everything from now on, and cut what is open: an outage."""
        self.down = True
        self._loop.call_soon_threadsafe(self._cut_all)

    def come_back(self) -> None:
        """End the outage."""
        self.down = False

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls)
        self._port = int(server.sockets[0].getsockname()[1])
        self._started.set()
        await self._end.wait()
        server.close()
        self._cut_all()
        await asyncio.gather(*self._open, return_exceptions=True)
        await server.wait_closed()

    def _cut_all(self) -> None:
        for task in self._open:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            while not self.down and await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; False: the connection is at its end."""
        raw = await _read_message(reader)
        method, path = raw.split(b" ", 2)[:2]
        seen = Seen(method.decode(), path.decode())
        fault = self.plan(seen)
        self.seen.append((seen, fault))
        if fault is Fault.CUT:
            return False
        if fault is Fault.BLACK_HOLE:
            await reader.read()  # until the other side has had enough
            return False
        if fault in _ANSWERS:
            writer.write(_ANSWERS[fault])
            await writer.drain()
            return True
        reply = await self._ask_server(raw)
        if b" 503 " in reply.partition(b"\r\n")[0]:
            self.busy.append(seen)
        if fault is Fault.DROP:
            return False
        if fault is Fault.DELAY:
            await asyncio.sleep(self.delay_seconds)
        writer.write(reply)
        await writer.drain()
        return fault is not Fault.IDLE_CUT

    async def _ask_server(self, raw: bytes) -> bytes:
        where = urlsplit(self.target)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        try:
            writer.write(raw)
            await writer.drain()
            return await _read_message(reader)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@dataclass
class ForwardProxy(Proxy):
    """A proxy as companies have them: clients are told of it, and name the server each time.

    Attributes:
        login: the name and the password to show, with a colon between them.
    """

    target: str = "http://127.0.0.1/anything"
    login: str = "somebody:secret"

    @property
    def url(self) -> str:
        """What HTTP_PROXY and HTTPS_PROXY are set to."""
        return f"http://{self.login}@127.0.0.1:{self._port}"

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        raw = await _read_message(reader)
        method, url = raw.decode("latin-1").split(" ", 2)[:2]
        self.seen.append((Seen(method, url), Fault.NONE))
        if base64.b64encode(self.login.encode()) not in raw:
            writer.write(b"HTTP/1.1 407 Authentication Required\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            return False
        if method == "CONNECT":
            host, _, port = url.rpartition(":")
            there, back = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            both = [
                asyncio.ensure_future(one) for one in (_copy(reader, back), _copy(there, writer))
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in both:
                    one.cancel()
                await asyncio.gather(*both, return_exceptions=True)
                back.transport.abort()
            return False
        where = urlsplit(url)
        self.target = f"{where.scheme}://{where.netloc}"
        origin = url.removeprefix(self.target)
        writer.write(await self._ask_server(raw.replace(url.encode(), origin.encode(), 1)))
        await writer.drain()
        return True


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    """Read a request or a reply whole; these servers and clients say how long it is."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":", 1)[1])
        assert not line.startswith(b"transfer-encoding:"), "the proxy knows no chunks"
    return head + (await reader.readexactly(length) if length else b"")
