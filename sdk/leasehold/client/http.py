"""HTTP: the one seam where httpx's clients are made and its errors become ours.

Nothing above this file sees httpx. Credentials live in `_Credentials` alone, so that they appear
in no message and no `repr`.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import ssl
import uuid
from typing import TYPE_CHECKING, Any, Final

import httpx

from leasehold import __version__
from leasehold.client.wire import Reply, Request
from leasehold.exceptions import NotAPrefectServerError, ServerUnreachableError
from leasehold.forks import put_off

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from typing_extensions import Self

    from leasehold.embedded.transport import Transport
    from leasehold.settings import Settings

#: Where the embedded ledger pretends to be. Never looked up: its transport answers.
_EMBEDDED_URL: Final = "http://embedded/api"

#: uvicorn cuts idle connections after 5 s (PROTOCOL.md, "Server defects"); we cut them before.
_KEEPALIVE_SECONDS: Final = 3.0

_FORBIDDEN: Final = 403

#: Errors after which the server certainly has not seen the request.
_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class AsyncApi:
    """One connection to the server or the ledger, for one event loop.

    Example:
        >>> async def version(settings):
        ...     async with AsyncApi(settings) as api:
        ...         return (await api.send(Request("GET", "/admin/version"))).body
    """

    def __init__(self, settings: Settings, *, transport: Transport | None = None) -> None:
        self.settings = settings
        self.address = settings.address
        self._client = httpx.AsyncClient(**_common(settings), **_network(settings, transport))
        # Taking an address apart costs httpx more than all else that it does for a request.
        self._url = functools.lru_cache(maxsize=1024)(self._join)

    def _join(self, path: str) -> httpx.URL:
        return self._client.build_request("GET", path).url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def send(self, request: Request, *, timeout_seconds: float | None = None) -> Reply:
        """Send one request, once; see `Api.send`. None: for as long as the settings say."""
        import anyio

        seconds = timeout_seconds or self.settings.request_timeout_seconds
        with _translated(self.address):
            try:
                with anyio.fail_after(seconds):
                    response = await self._client.request(
                        request.method, self._url(request.path), json=request.body, timeout=seconds
                    )
            except TimeoutError:
                raise httpx.ReadTimeout(f"no reply within {seconds:.1f} s") from None
        return _reply(response)


class SyncApi:
    """The same for callers without an event loop (administration, the CLI)."""

    def __init__(self, settings: Settings, *, transport: Transport | None = None) -> None:
        self.settings = settings
        self.address = settings.address
        self._client = httpx.Client(**_common(settings), **_network(settings, transport))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(self, request: Request, *, timeout_seconds: float | None = None) -> Reply:
        """Send one request, once; see `Api.send`."""
        seconds = timeout_seconds or self.settings.request_timeout_seconds
        with _translated(self.address):
            response = self._client.request(
                request.method, request.path, json=request.body, timeout=seconds
            )
        return _reply(response)


class _Credentials(httpx.Auth):
    """Authorization, and the CSRF token of a server that asks for one."""

    def __init__(self, settings: Settings) -> None:
        self._authorization = _authorization(settings)
        self._csrf_client = str(uuid.uuid4())
        self._csrf_token: str | None = None

    requires_response_body = True

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign the request; ask for a new CSRF token when the server says it wants one."""
        self._sign(request)
        response = yield request
        if response.status_code != _FORBIDDEN or b"CSRF" not in response.content:
            return
        url = request.url.copy_with(
            raw_path=request.url.raw_path.split(b"/api/")[0]
            + f"/api/csrf-token?client={self._csrf_client}".encode()
        )
        ask = httpx.Request("GET", url)
        self._sign(ask)
        answer = yield ask
        with contextlib.suppress(ValueError, KeyError, TypeError):
            self._csrf_token = str(answer.json()["token"])
            self._sign(request)
            yield request

    def _sign(self, request: httpx.Request) -> None:
        if self._authorization:
            request.headers["Authorization"] = self._authorization
        if self._csrf_token:
            request.headers["Prefect-Csrf-Token"] = self._csrf_token
            request.headers["Prefect-Csrf-Client"] = self._csrf_client


def describe_way(settings: Settings) -> dict[str, Any]:
    """Say how to reach the server, for a program that has nothing but the standard library.

    Full of secrets: to be passed on where nobody else can read.

    Raises:
        ValueError: there is a proxy that such a program cannot use.
    """
    import urllib.request

    url = httpx.URL(settings.api_url or _EMBEDDED_URL)
    tls = url.scheme == "https"
    address = "" if urllib.request.proxy_bypass(url.host) else _proxies().get(url.scheme, "")
    proxy = httpx.URL(address) if address else None
    if proxy is not None and proxy.scheme != "http":
        raise ValueError(f"it cannot use a proxy of the kind {proxy.scheme}")
    login = f"{proxy.username}:{proxy.password}" if proxy and proxy.userinfo else ""
    headers = _headers(settings)
    authorization = _authorization(settings)
    if authorization:
        headers["Authorization"] = authorization
    return {
        "tls": tls,
        "host": url.raw_host.decode(),
        "port": url.port or (443 if tls else 80),
        "authority": url.netloc.decode(),
        "prefix": url.raw_path.decode().rstrip("/"),
        "url": str(url).rstrip("/"),
        "proxy": proxy and [proxy.raw_host.decode(), proxy.port or 80, login and _basic(login)],
        "headers": headers,
        "cafile": _trusted_certificates(settings) if tls else None,
        "timeout_seconds": min(settings.request_timeout_seconds, 5.0),
    }


def _proxies() -> dict[str, str]:
    import urllib.request

    found = urllib.request.getproxies()
    return {scheme: found.get(scheme) or found.get("all") or "" for scheme in ("http", "https")}


def _trusted_certificates(settings: Settings) -> str:
    import certifi

    chosen = settings.api_ssl_cert_file or os.environ.get("SSL_CERT_FILE")
    return str(chosen or certifi.where())


def _authorization(settings: Settings) -> str | None:
    if settings.api_key is not None:
        return f"Bearer {settings.api_key}"
    if settings.api_auth_string is not None:
        return _basic(settings.api_auth_string)
    return None


def _basic(login: str) -> str:
    return f"Basic {base64.b64encode(login.encode()).decode()}"


def _headers(settings: Settings) -> dict[str, str]:
    return {"User-Agent": f"leasehold/{__version__}", **settings.custom_headers}


def _common(settings: Settings) -> dict[str, Any]:
    return {
        "base_url": settings.api_url or _EMBEDDED_URL,
        "auth": _Credentials(settings),
        "headers": _headers(settings),
        "follow_redirects": False,  # a redirected POST may become a GET: say so instead
    }


_stand_ins: list[Transport] = []


@contextlib.contextmanager
def standing_in(transport: Transport) -> Iterator[None]:
    """Have a transport answer instead of any server, for clients that are opened in the block.

    Not instead of the embedded ledger: set an address.

    For tests: `leasehold.testing` puts its fake server here.
    """
    _stand_ins.append(transport)
    try:
        yield
    finally:
        _stand_ins.remove(transport)


def _network(settings: Settings, transport: Transport | None) -> dict[str, Any]:
    transport = transport or next(reversed(_stand_ins), None)
    if transport is not None:
        return {"transport": transport}
    if settings.api_url is not None:
        limits = httpx.Limits(max_connections=32, keepalive_expiry=_KEEPALIVE_SECONDS)
        with put_off():  # OpenSSL has locks, too, while it sets itself up
            return {"verify": _ssl_context(settings), "limits": limits}
    from leasehold.embedded.ledger import Ledger
    from leasehold.embedded.server import LedgerServer
    from leasehold.embedded.transport import LedgerTransport

    return {"transport": LedgerTransport(LedgerServer(Ledger(settings.ledger_path)))}


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    if settings.api_ssl_cert_file is not None:
        return ssl.create_default_context(cafile=str(settings.api_ssl_cert_file))
    if (settings.api_url or "").startswith("https://"):
        return httpx.create_ssl_context()
    # Reading the system's certificates costs more than a request does. Without TLS none is
    # needed, and this context would trust nobody if it were used after all.
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@contextlib.contextmanager
def _translated(address: str) -> Iterator[None]:
    try:
        yield
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.DecodingError) as error:
        raise NotAPrefectServerError(
            f"{address} cannot be used as PREFECT_API_URL: {error}", address=address
        ) from error
    except httpx.HTTPError as error:
        raise ServerUnreachableError(
            f"The server at {address} does not answer ({_reason(error)}). Is it running, and is "
            "PREFECT_API_URL right?",
            address=address,
            delivered=not isinstance(error, _NEVER_SENT),
        ) from error


def _reason(error: Exception) -> str:
    words: dict[type[Exception], str] = {
        httpx.ConnectTimeout: "it took too long to connect",
        httpx.ReadTimeout: "no reply in time",
        httpx.RemoteProtocolError: "the connection was cut",
        httpx.ReadError: "the connection was cut",
    }
    return words.get(type(error)) or str(error) or type(error).__name__


def _reply(response: httpx.Response) -> Reply:
    return Reply(response.status_code, response.headers, response.content)
