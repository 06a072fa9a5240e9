"""The floor: bare httpx that sends the needed requests, one at a time, and does nothing else.

``--tasks`` are spread over ``--leases``, each of which is taken once, kept while its share of the
tasks sleeps one after the other, and given back. No client that takes slots can be faster.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
import uuid
from typing import TYPE_CHECKING

from benchmarks.workers import talk

if TYPE_CHECKING:
    import httpx

BUSY = 503
BUSY_SECONDS = 0.01


def main() -> None:
    """Measure pairs, or tasks."""
    options = talk.parser()
    options.add_argument("--pairs", type=int, default=0, help="acquires and releases in a row")
    options.add_argument("--tasks", type=int, default=0)
    options.add_argument("--seconds", type=float, default=0, help="what one task takes")
    options.add_argument("--leases", type=int, default=1)
    chosen = options.parse_args()
    if chosen.pairs:
        asyncio.run(pairs(chosen.limit, chosen.pairs))
    else:
        shares = [chosen.tasks // chosen.leases * chosen.seconds] * chosen.leases
        asyncio.run(tasks(chosen.limit, shares))


class Bare:
    """The two requests."""

    def __init__(self, limit: str) -> None:
        import httpx

        url = os.environ["PREFECT_API_URL"]
        transport = None if url else _ledger()
        self._client = httpx.AsyncClient(
            base_url=url or "http://embedded/api",
            transport=transport,
            timeout=30,
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # no certificates are read for nothing
        )
        self._limit = limit
        self._one_at_a_time = asyncio.Lock()

    async def ask_version(self) -> None:
        """Ask what the server is."""
        (await self._client.get("/admin/version")).raise_for_status()

    async def take(self) -> str:
        """Take a slot; gives the lease's id."""
        holder = {"type": "task_run", "id": str(uuid.uuid4())}
        body = {"names": [self._limit], "slots": 1, "mode": "concurrency", "lease_duration": 60}
        answer = await self._post("increment-with-lease", {**body, "holder": holder})
        return str(answer["lease_id"])

    async def give_back(self, lease_id: str) -> None:
        """Give it back."""
        await self._post("decrement-with-lease", {"lease_id": lease_id})

    async def hold(self, shares: list[float]) -> None:
        """Take a lease for each share of the work, keep it for so many seconds, give it back."""

        async def one(seconds: float) -> None:
            lease_id = await self.take()
            await asyncio.sleep(seconds)
            await self.give_back(lease_id)

        await asyncio.gather(*(one(share) for share in shares))

    async def _post(self, path: str, body: dict[str, object]) -> dict[str, object]:
        async with self._one_at_a_time:  # SQLite servers answer 503 to two at once
            reply = await self._client.post(f"/v2/concurrency_limits/{path}", json=body)
            while reply.status_code == BUSY:  # its own services write now and then
                await asyncio.sleep(BUSY_SECONDS)
                reply = await self._client.post(f"/v2/concurrency_limits/{path}", json=body)
        reply.raise_for_status()
        return dict(reply.json()) if reply.content else {}


def _ledger() -> httpx.AsyncBaseTransport:
    from pathlib import Path

    from leasehold.embedded.ledger import Ledger
    from leasehold.embedded.server import LedgerServer
    from leasehold.embedded.transport import LedgerTransport

    return LedgerTransport(LedgerServer(Ledger(Path(os.environ["LEASEHOLD_HOME"]) / "ledger.db")))


async def pairs(limit: str, count: int) -> None:
    """Take and give back, one pair after the other."""
    bare = Bare(limit)
    await bare.give_back(await bare.take())
    talk.ready()
    began = time.perf_counter()
    for _ in range(count):
        await bare.give_back(await bare.take())
    seconds = (time.perf_counter() - began) / count
    talk.report(ms=1e3 * seconds, per_second=1 / seconds)


async def tasks(limit: str, shares: list[float]) -> None:
    """Take each lease once, and keep it for its share of the work."""
    bare = Bare(limit)
    talk.ready()
    began = time.perf_counter()
    await bare.hold(shares)
    talk.report(seconds=time.perf_counter() - began)


if __name__ == "__main__":
    main()
