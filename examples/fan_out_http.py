"""An async fan-out: many requests to one HTTP API, a few at a time.

The API is a small server that this script starts on 127.0.0.1. Like many, it answers HTTP 429 (too
many requests) to whoever asks for more at once than it allows. The task that calls it has the tag
`api`, and the tag's limit is what the API allows: no request is refused.

    python examples/fan_out_http.py --requests 40 --seconds 0.2 --limit 5
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import httpx

from _scaffold import Meter, run, slots_in_use, summarize, tag_limit
from leasehold import flow, task
from leasehold.client import get_client

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The server counts for itself what it works on.
meter = Meter()


@task(tags=["api"])
async def price(client: httpx.AsyncClient, product: int) -> int:
    """Ask the API for a product's price, in cents."""
    reply = await client.get(f"/prices/{product}")
    reply.raise_for_status()
    cents: int = reply.json()["cents"]
    return cents


@flow
async def fetch_prices(address: str, products: int) -> list[int]:
    """Ask for all prices at once; the tag's limit does the rest."""
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        return await asyncio.gather(*(price(client, product) for product in range(products)))


@contextlib.contextmanager
def api(most_at_once: int, seconds: float) -> Iterator[str]:
    """Serve prices on 127.0.0.1 for the time of the block; gives the address.

    Args:
        most_at_once: what the API allows; more get HTTP 429.
        seconds: how long it works on one request.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with meter:
                allowed = meter.running <= most_at_once
                if allowed:
                    time.sleep(seconds)
            body = json.dumps({"cents": 100 + int(self.path.rsplit("/", 1)[1])}).encode()
            self.send_response(200 if allowed else 429)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: the summary does."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Say nothing of clients that left, as they do after Ctrl-C."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def main() -> int:
    """Run the flow, and say what the API saw of it."""
    parser = argparse.ArgumentParser(description="Call an API under a tag's limit.")
    parser.add_argument("--requests", type=int, default=40, help="how many (default: 40)")
    parser.add_argument("--seconds", type=float, default=0.2, help="of one (default: 0.2)")
    parser.add_argument("--limit", type=int, default=5, help="of tag api (default: 5)")
    options = parser.parse_args()

    with tag_limit("api", options.limit) as limit, api(limit, options.seconds) as address:
        began = time.monotonic()
        prices = asyncio.run(fetch_prices(address, options.requests))
        took = time.monotonic() - began
        with get_client(sync_client=True) as client:
            left, kept_at = slots_in_use(client, "tag:api"), client.address

    ideal = math.ceil(options.requests / limit) * options.seconds
    summarize(
        limit=f"{limit} for tag 'api'",
        peak_in_use=f"{meter.peak}, counted by the API",
        requests_served=f"{len(prices)}, none refused",
        time=f"{took:.1f} s",
        ideal_time=f"{ideal:.1f} s",
        slots_in_use_at_the_end=left,
        limits_are_kept_at=kept_at,
    )
    return 0 if meter.peak <= limit else 1


if __name__ == "__main__":
    run(main)
