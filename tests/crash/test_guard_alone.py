"""The guard's own decisions, with a client that only says what it would hold."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from leasehold.client.http import describe_way
from leasehold.concurrency import guard
from leasehold.settings import Settings
from servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass
class Stub:
    """A server that notes what is asked for, and answers with `status`."""

    status: int = 204
    asked: list[tuple[float, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    port: int = 0

    def paths(self) -> list[str]:
        """Give what was asked for."""
        return [path for _, path in self.asked]


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A stub that runs."""
    stub = Stub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            stub.asked.append((time.monotonic(), self.path))
            stub.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(stub.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stub.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield stub
        server.shutdown()
        thread.join()


def way_to(port: int) -> dict[str, Any]:
    """Say how to reach the stub."""
    return {
        "op": "server",
        "tls": False,
        "host": "127.0.0.1",
        "port": port,
        "authority": f"127.0.0.1:{port}",
        "prefix": "/api",
        "url": "",
        "proxy": None,
        "headers": {},
        "cafile": None,
        "timeout_seconds": 2.0,
    }


def a_hold(key: int, seconds: float | None) -> dict[str, Any]:
    """Describe something that is held."""
    return {
        "release": ["POST", f"/release/{key}", {}],
        "renewal": ["POST", f"/renew/{key}", {}] if seconds else None,
        "seconds": seconds,
        "sent_at": guard.read_clock(),
        "in_motion": False,
        "once": False,
    }


class Line:
    """A guard, and our end of its line; or another line to one that is there."""

    def __init__(self, port: int, beside: Line | None = None) -> None:
        if beside is None:
            self.address = f"\0leasehold-test-{uuid.uuid4()}"
            self._ours, theirs = socket.socketpair()
            with theirs, socket.socket(socket.AF_UNIX) as door:
                door.bind(self.address)
                door.listen()
                passed = [theirs.fileno(), door.fileno()]
                self.process = subprocess.Popen(
                    [sys.executable, "-I", "-S", guard.__file__, *map(str, passed)],
                    pass_fds=passed,
                    env={},
                    stderr=subprocess.PIPE,
                )
        else:
            self.process = beside.process
            self._ours = socket.socket(socket.AF_UNIX)
            self._ours.connect(beside.address)
        self.say(**way_to(port))

    def say(self, **message: Any) -> None:
        """Send a line."""
        self._ours.sendall(json.dumps(message).encode() + b"\n")

    def hold(self, key: int = 1, seconds: float | None = 60.0, **changes: Any) -> None:
        """Say that something is held."""
        self.say(op="hold", id=key, **{**a_hold(key, seconds), **changes})

    def hear(self, seconds: float) -> Any:
        """Wait for a line."""
        self._ours.settimeout(seconds)
        return json.loads(self._ours.recv(1 << 16))

    def hang_up(self) -> None:
        """End the line, as a client's death does."""
        self._ours.close()

    def clean_up(self) -> None:
        """Kill the guard."""
        self.hang_up()
        self.process.kill()
        _, complaints = self.process.communicate()
        assert complaints == b""


@pytest.fixture
def connect() -> Iterator[Callable[[int], Line]]:
    """Start guards; they are killed at the end of the test."""
    lines: list[Line] = []

    def connect(port: int) -> Line:
        lines.append(Line(port))
        return lines[-1]

    yield connect
    for line in lines:
        line.clean_up()


def test_what_was_held_at_the_end_is_released_once_and_the_guard_ends(
    stub: Stub, connect: Callable[[int], Line]
) -> None:
    line = connect(stub.port)
    line.hold(1)
    line.hold(2)
    line.hold(3)
    line.say(op="drop", id=2)
    line.hang_up()
    assert line.process.wait(10) == 0
    assert sorted(stub.paths()) == ["/api/release/1", "/api/release/3"]


def test_it_goes_through_a_proxy_that_asks_who_comes(
    stub: Stub, connect: Callable[[int], Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://user:p%40ss@127.0.0.1:{stub.port}")
    line = connect(stub.port)
    line.say(op="server", **describe_way(Settings(api_url="http://flows.example/api")))
    line.hold()
    line.hang_up()
    assert line.process.wait(10) == 0
    assert stub.paths() == ["http://flows.example/api/release/1"]
    login = base64.b64encode(b"user:p@ss").decode()
    assert stub.headers[0]["proxy-authorization"] == f"Basic {login}"


IN_CHUNKS = "5;x=y\r\n{start}\r\n{rest_length:x}\r\n{rest}\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "how",
    [
        "Content-Length: {length}\r\n\r\n{body}",
        "Transfer-Encoding: chunked\r\n\r\n" + IN_CHUNKS,
        "Connection: close\r\n\r\n{body}",
    ],
    ids=["length", "chunks", "until the end"],
)
def test_it_understands_replies_in_all_forms(how: str, connect: Callable[[int], Line]) -> None:
    """A server that wants tokens, and sends hints ahead of its replies."""
    seen: list[bytes] = []

    def answer(request: bytes) -> bytes:
        status, body = "204 No Content", ""
        if b"csrf-token?client=" in request:
            status, body = "200 OK", json.dumps({"token": "T" * 40})
        elif b"\r\nprefect-csrf-token: " + b"T" * 40 not in request:
            status, body = "403 Forbidden", "Missing CSRF token"
        hints = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
        parts = {"length": len(body), "start": body[:5], "rest": body[5:]}
        rest = how.format(body=body, rest_length=len(body[5:]), **parts) if body else "\r\n"
        return f"{hints}HTTP/1.1 {status}\r\n{rest}".encode()

    with contextlib.ExitStack() as at_the_end:
        server = at_the_end.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.settimeout(10)
        line = connect(server.getsockname()[1])
        line.hold()
        line.hang_up()
        for _ in range(3):
            connection, _ = server.accept()
            at_the_end.enter_context(connection)  # some do not hang up, whatever they are asked
            seen.append(connection.recv(1 << 16))
            connection.sendall(answer(seen[-1]))
            if how.startswith("Connection"):
                connection.close()
        assert line.process.wait(10) == 0
    starts = [request.split(b"?")[0].split(b" HTTP")[0] for request in seen]
    assert starts == [b"POST /api/release/1", b"GET /api/csrf-token", b"POST /api/release/1"]
    assert seen[-1].endswith(b"\r\n\r\n{}")


def test_headers_of_the_settings_take_the_place_of_its_own(
    connect: Callable[[int], Line],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        port = server.getsockname()[1]
        line = connect(port)
        line.say(**{**way_to(port), "headers": {"Host": "flows.example", "X-Team": "data"}})
        line.hold()
        line.hang_up()
        connection, _ = server.accept()
        with connection:
            head = connection.recv(1 << 16).lower().split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert line.process.wait(10) == 0
    names = [one.split(b":")[0] for one in head]
    assert sorted(names) == sorted(set(names))
    assert {b"host: flows.example", b"x-team: data"} <= set(head)


def test_a_proxy_that_it_does_not_understand_gets_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("https_proxy", "https://user:word@proxy.example")
    with pytest.raises(ValueError, match="a proxy of the kind https"):
        describe_way(Settings(api_url="https://flows.example/api"))


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1", b"SSH-2.0-OpenSSH_9.6\r\n", b"\xff\x00" * 9])
def test_what_is_no_reply_counts_as_none(reply: bytes, connect: Callable[[int], Line]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        line = connect(server.getsockname()[1])
        line.hold()
        line.hang_up()
        for answer in (reply, b"HTTP/1.1 204 No Content\r\n\r\n"):
            connection, _ = server.accept()
            with connection:
                assert connection.recv(1 << 16)
                connection.sendall(answer)
        assert line.process.wait(10) == 0


def test_nothing_is_released_while_the_client_lives(
    stub: Stub, connect: Callable[[int], Line]
) -> None:
    line = connect(stub.port)
    line.hold()
    time.sleep(1)
    assert stub.asked == []
    assert line.process.poll() is None


def test_a_last_word_that_was_cut_short_does_not_count(
    stub: Stub, connect: Callable[[int], Line]
) -> None:
    line = connect(stub.port)
    line.hold(1)
    line._ours.sendall(b'{"op": "drop", "id"')
    line.hang_up()
    assert line.process.wait(10) == 0
    assert stub.paths() == ["/api/release/1"]


def test_what_a_client_was_asking_for_when_it_died_is_undone_after_a_moment_and_once_more(
    stub: Stub, connect: Callable[[int], Line]
) -> None:
    line = connect(stub.port)
    line.hold(in_motion=True, renewal=None)
    line.hang_up()
    ended_at = time.monotonic()
    assert line.process.wait(20) == 0
    (first, _), (second, _) = stub.asked
    assert first - ended_at > 0.5
    assert second - first > guard.LONG_MOMENT_SECONDS - 0.5


def test_what_must_not_be_released_twice_is_released_once(
    stub: Stub, connect: Callable[[int], Line]
) -> None:
    line = connect(stub.port)
    line.hold(seconds=None, in_motion=True, once=True)
    line.hang_up()
    assert line.process.wait(10) == 0
    assert stub.paths() == ["/api/release/1"]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_release_that_fails_is_tried_again(
    status: int, stub: Stub, connect: Callable[[int], Line]
) -> None:
    stub.status = status
    line = connect(stub.port)
    line.hold()
    line.hang_up()
    ends_at = time.monotonic() + 10
    while len(stub.asked) < 3 and time.monotonic() < ends_at:
        time.sleep(0.02)
    stub.status = 204
    assert line.process.wait(10) == 0
    assert len(stub.asked) > 3


@pytest.mark.parametrize("in_motion", [False, True])
def test_without_a_server_it_ends_when_the_leases_have_expired(
    in_motion: bool,  # noqa: FBT001 - a parameter of the test
    connect: Callable[[int], Line],
) -> None:
    line = connect(free_port())
    line.hold(seconds=3.0, in_motion=in_motion)
    began = time.monotonic()
    line.hang_up()
    with pytest.raises(subprocess.TimeoutExpired):
        line.process.wait(1.5)
    assert line.process.wait(10) == 0
    assert time.monotonic() - began < 3.0 + guard.LONGEST_PAUSE_SECONDS + 1


@pytest.mark.parametrize(("clients", "leases"), [(1, 20), (8, 1)])
def test_a_server_that_never_answers_is_not_asked_about_each_of_many_leases(
    clients: int, leases: int, connect: Callable[[int], Line]
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        port = silent.getsockname()[1]
        line = connect(port)
        lines = [line, *(Line(port, beside=line) for _ in range(clients - 1))]
        for one in lines:
            for key in range(leases):
                one.hold(key, seconds=3.0)
        began = time.monotonic()
        for one in lines:
            one.hang_up()
        assert line.process.wait(40) == 0
    timeout = way_to(0)["timeout_seconds"]
    assert 3.0 <= time.monotonic() - began < 3.0 + guard.LONGEST_PAUSE_SECONDS + timeout + 1


def test_it_renews_what_a_living_client_lets_go_stale_and_says_so(
    stub: Stub, connect: Callable[[int], Line]
) -> None:
    line = connect(stub.port)
    line.hold(seconds=2.0)
    told = line.hear(10)
    assert told["op"] == "renewed"
    assert stub.paths()[0] == "/api/renew/1"


def test_it_does_not_renew_what_the_client_renews(
    stub: Stub, connect: Callable[[int], Line]
) -> None:
    line = connect(stub.port)
    line.hold(seconds=4.0)
    for _ in range(3):
        time.sleep(1)
        line.say(op="renewed", id=1, sent_at=guard.read_clock())
    assert stub.asked == []


def test_it_does_not_insist_on_a_lease_that_is_gone(
    stub: Stub, connect: Callable[[int], Line]
) -> None:
    stub.status = 410
    line = connect(stub.port)
    line.hold(seconds=1.0)
    time.sleep(2)
    assert stub.paths() == ["/api/renew/1"]


def test_it_sees_the_end_of_a_process_whose_line_somebody_inherited(
    stub: Stub, tmp_path: Path
) -> None:
    """As when a library in C forks: the line stays open although the client is dead."""
    told = tmp_path / "told"
    hold = {"op": "hold", "id": 1, **a_hold(1, 60.0)}
    told.write_text("".join(json.dumps(one) + "\n" for one in (way_to(stub.port), hold)))
    subprocess.run(
        [sys.executable, "-c", CLIENT_WITH_AN_HEIR, guard.__file__, str(told)], check=True
    )
    ends_at = time.monotonic() + 3
    while not stub.asked and time.monotonic() < ends_at:
        time.sleep(0.02)
    assert stub.paths() == ["/api/release/1"]


#: Starts a guard, tells it what is in a file, and dies; its child keeps the line for a while.
CLIENT_WITH_AN_HEIR = """
import os, socket, subprocess, sys, time
ours, theirs = socket.socketpair()
command = [sys.executable, "-I", "-S", sys.argv[1], str(theirs.fileno())]
subprocess.Popen(command, pass_fds=[theirs.fileno()])
theirs.close()
ours.sendall(open(sys.argv[2], "rb").read())
if os.fork():
    os._exit(0)
time.sleep(5)
"""


def test_it_imports_nothing_but_the_standard_library() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import runpy; runpy.run_path({guard.__file__!r})"],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
