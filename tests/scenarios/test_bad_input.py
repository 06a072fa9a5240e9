"""What cannot work says so within 10 s, names the tag or the address, and harms no other task."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from leasehold import concurrency, flow, task
from leasehold.client import get_client
from leasehold.exceptions import (
    AuthenticationError,
    InvalidLimitError,
    InvalidTagError,
    NotAPrefectServerError,
    ServerError,
    ServerTooOldError,
    ServerUnreachableError,
    SlotsOverLimitError,
    ZeroLimitError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def serve() -> Iterator[Callable[[int, bytes], str]]:
    """Start an HTTP server that answers everything alike; give its address."""
    servers = []

    def start(status: int, body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815 - likewise

            def log_message(self, *_: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/api"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def outcome_of(tag: str) -> tuple[BaseException, str]:
    """Run one task under `tag` and one without; give the first one's error, the other's result."""

    @task(tags=[tag])
    def tagged() -> str:
        return "ran"

    @task
    def plain() -> str:
        return "the other ran"

    @flow
    def both() -> tuple[Any, str]:
        bad, good = tagged.submit(), plain.submit()
        return bad.result(raise_on_failure=False), good.result()

    began = time.monotonic()
    error, other = both()
    assert time.monotonic() - began < 10 + 1
    assert isinstance(error, BaseException), error
    return error, other


@pytest.mark.parametrize("tag", [7, None, b"x", ""])
def test_a_tag_that_is_no_string_is_refused_at_decoration(tag: Any) -> None:
    with pytest.raises(InvalidTagError, match="must be a string") as caught:
        task(tags=[tag])(print)
    assert caught.value.tag == tag


@pytest.mark.parametrize("sign", "/%&><")
def test_a_tag_that_no_server_accepts_fails_its_task_alone(backend: str, sign: str) -> None:
    error, other = outcome_of(f"data{sign}base")
    assert isinstance(error, InvalidTagError)
    assert f"data{sign}base" in str(error)
    assert other == "the other ran"


def test_a_limit_below_zero_is_refused(backend: str) -> None:
    with (
        get_client(sync_client=True) as client,
        pytest.raises(InvalidLimitError, match="below-zero"),
    ):
        client.create_concurrency_limit("below-zero", -1)


def test_more_slots_than_the_limit_has_are_refused(limit: Callable[[int], str]) -> None:
    name = f"tag:{limit(2)}"
    with pytest.raises(SlotsOverLimitError, match="its limit is 2") as caught:
        concurrency(name, occupy=3).__enter__()
    assert (caught.value.names, caught.value.occupy, caught.value.limit) == ((name,), 3, 2)


def test_a_limit_of_zero_is_a_clear_error(limit: Callable[[int], str]) -> None:
    tag = limit(0)
    error, other = outcome_of(tag)
    assert isinstance(error, ZeroLimitError)
    assert tag in str(error)
    assert other == "the other ran"


def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/api"
        monkeypatch.setenv("PREFECT_API_URL", address)
        error, other = outcome_of("database")
    assert isinstance(error, ServerUnreachableError)
    assert address in str(error)
    assert "PREFECT_API_URL" in str(error)
    assert other == "the other ran"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"<html>welcome</html>", NotAPrefectServerError),
        (404, b"", ServerError),
        (401, b"{}", AuthenticationError),
        (403, b"{}", AuthenticationError),
        (200, b'"2.20.3"', ServerTooOldError),
    ],
)
def test_a_server_that_cannot_serve_is_named(
    monkeypatch: pytest.MonkeyPatch,
    serve: Callable[[int, bytes], str],
    status: int,
    body: bytes,
    kind: type[ServerError],
) -> None:
    address = serve(status, body)
    monkeypatch.setenv("PREFECT_API_URL", address)
    error, other = outcome_of("database")
    assert isinstance(error, kind)
    assert address in str(error)
    assert other == "the other ran"
