"""Runs workers: one side after the other, each in processes of its own, bounded in time.

Whatever is started here is ended here, by its own id, however it goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
from uv import find_uv_bin

from benchmarks.figures import merged
from benchmarks.workers.talk import READY

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from proxy import Proxy
from servers import PrefectServer, install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from typing_extensions import Self

    from benchmarks.cases import Side

ROOT: Final = Path(__file__).resolve().parents[1]
CACHE: Final = ROOT / ".cache" / "benchmarks"
PREFECT: Final = "3.8.8"

INSTALL_SECONDS: Final = 600.0

#: The server is quiet when so many requests in a row, over half a second, find it so.
QUIET_REPLIES: Final = 45
QUIET_SECONDS: Final = 300.0
BUSY: Final = 503

#: What a worker has left of its time when only its end is waited for.
END_SECONDS: Final = 10.0

TAIL: Final = 3000


class WorkerError(Exception):
    """A worker failed, or took too long; its text says what it last wrote."""


class Driver:
    """Runs sides on one server, which is started when the first one needs it.

    Example:
        >>> with Driver() as driver:                            # doctest: +SKIP
        ...     driver.prepare(side)
        ...     metrics = asyncio.run(driver.run(side))
    """

    def __init__(self) -> None:
        self._server: PrefectServer | None = None
        self._serial = itertools.count(1)
        self._pythons: dict[str, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.stop()

    def prepare(self, side: Side) -> None:
        """Install and start what a side needs."""
        if side.sdk not in self._pythons:
            self._pythons[side.sdk] = _prepared(side.sdk)
        if side.place == "server" and self._server is None:
            self._server = PrefectServer(PREFECT).start()

    async def run(self, side: Side) -> dict[str, float]:
        """Run one side once; gives its figures.

        Raises:
            WorkerError: it failed, or took too long.
        """
        with (
            tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as folder,
            self._counting(side) as counter,
        ):
            home = Path(folder)
            self._wait_for_quiet(side)
            command = [*self._command(side), "--limit", self._make_limit(side, home)]
            env = self._environment(side, home, counter.url if counter else None)
            async with contextlib.AsyncExitStack() as stack:
                workers = [
                    await stack.enter_async_context(_Worker(command, env, home / f"{number}.log"))
                    for number in range(side.copies)
                ]
                try:
                    said = await asyncio.wait_for(_measure(workers), side.timeout_seconds)
                except asyncio.TimeoutError:
                    raise workers[0].failed(f"took over {side.timeout_seconds:.0f} s") from None
            figures = merged(said)
            if counter is not None:
                figures["requests"] = len(counter.seen)
            return figures

    @contextlib.contextmanager
    def _counting(self, side: Side) -> Iterator[Proxy | None]:
        if not side.counted or self._server is None:
            yield None
            return
        with Proxy(self._server.url) as proxy:
            yield proxy

    def _command(self, side: Side) -> list[str]:
        module = f"benchmarks.workers.{side.worker}"
        return [str(self._pythons[side.sdk]), "-m", module, "--sdk", side.sdk, *side.options]

    def _environment(self, side: Side, home: Path, url: str | None) -> dict[str, str]:
        return {
            **_environment(),
            "PREFECT_HOME": str(home),
            "LEASEHOLD_HOME": str(home),
            "PREFECT_API_URL": url or self._url(side) or "",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            **side.env,
        }

    def _make_limit(self, side: Side, home: Path) -> str:
        """Make the limit for one run, under a name that no other run has used."""
        from leasehold.client import GlobalConcurrencyLimitCreate, get_client
        from leasehold.settings import Settings

        name = f"{side.worker}-{os.getpid()}-{next(self._serial)}"
        if side.limit is None:
            return name if side.tagged else ""
        settings = Settings(home=home, api_url=self._url(side), source="the benchmark")
        with get_client(sync_client=True, settings=settings) as client:
            full_name = f"tag:{name}" if side.tagged else name
            wanted = GlobalConcurrencyLimitCreate(name=full_name, limit=side.limit)
            client.create_global_concurrency_limit(wanted)
        return name

    def _wait_for_quiet(self, side: Side) -> None:
        """Wait until the server has digested what the side before has left it.

        Prefect's server records the runs of Prefect's client for long after they have ended: for
        25 s after 1,000 tasks it answered nine of ten requests with 503.
        """
        url = self._url(side)
        if url is None:
            return
        name, good = f"quiet-{os.getpid()}", 0
        slot = {"names": [name], "slots": 1, "mode": "concurrency"}
        requests = (("/", {"name": name, "limit": 1}), ("/increment", slot), ("/decrement", slot))
        give_up_at = time.monotonic() + QUIET_SECONDS
        with httpx.Client(base_url=f"{url}/v2/concurrency_limits", timeout=30) as client:
            while good < QUIET_REPLIES:
                if time.monotonic() > give_up_at:
                    raise WorkerError(f"the server was not quiet within {QUIET_SECONDS:.0f} s")
                for path, body in requests:
                    good = good + 1 if _is_answered(client, path, body) else 0
                time.sleep(0.02)

    def _url(self, side: Side) -> str | None:
        return self._server.url if self._server is not None and side.place == "server" else None


def _is_answered(client: httpx.Client, path: str, body: object) -> bool:
    try:
        return client.post(path, json=body).status_code != BUSY
    except httpx.HTTPError:
        return False


def _prepared(sdk: str) -> Path:
    """Make an environment as its users have it; gives its interpreter.

    Nothing of what only tests need is in it: httpx, for one, would import trio if it were there.
    And byte code is there for all of it, as pip leaves it.
    """
    if sdk == "prefect":
        python = install(PREFECT) / "python"
        sources = []
    else:
        python = CACHE / sdk / "bin" / "python"
        _run(
            find_uv_bin(),
            "venv",
            "--quiet",
            "--allow-existing",
            "--python",
            sys.executable,
            CACHE / sdk,
        )
        _run(find_uv_bin(), "pip", "install", "--quiet", "--python", python, "--editable", ROOT)
        sources = [ROOT / "sdk"]
    packages = python.parent.parent.glob("lib/python*/site-packages")
    # Some packages bring files that are made to be no Python: that it fails for them is no news.
    _run(python, "-m", "compileall", "-qq", *packages, *sources, check=False)
    return python


def _run(*command: str | Path, check: bool = True) -> None:
    subprocess.run(command, env=_environment(), check=check, timeout=INSTALL_SECONDS)


def _environment() -> dict[str, str]:
    """Give this process's environment, without what is set for Python and the clients."""
    own = ("PREFECT_", "LEASEHOLD_", "PYTHON")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return {**clean, "PYTHONPYCACHEPREFIX": str(CACHE / "bytecode")}


async def _measure(workers: list[_Worker]) -> list[dict[str, float]]:
    for worker in workers:
        await worker.prepared()
    for worker in workers:
        worker.go()
    return list(await asyncio.gather(*(worker.figures() for worker in workers)))


class _Worker:
    """One process, in a session of its own, so that what it starts is ended with it."""

    def __init__(self, command: list[str], env: Mapping[str, str], log: Path) -> None:
        self._command = command
        self._env = env
        self._log = log

    async def __aenter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=ROOT,
                env=self._env,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def prepared(self) -> None:
        """Wait until all is done that is not measured."""
        await self._line(lambda line: line == READY)

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def figures(self) -> dict[str, float]:
        """Wait for what it measured, and for its end."""
        found: dict[str, float] = json.loads(await self._line(lambda line: line.startswith("{")))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._process.wait(), END_SECONDS)
        if self._process.returncode:
            raise self.failed(f"ended with {self._process.returncode}")
        return found

    def failed(self, how: str) -> WorkerError:
        """Build the error: how it failed, and the end of what it wrote."""
        said = self._log.read_text(errors="replace")[-TAIL:].strip()
        return WorkerError(f"{' '.join(self._command[1:])} {how}:\n{said}")

    async def _line(self, wanted: Callable[[str], bool]) -> str:
        assert self._process.stdout is not None
        while line := (await self._process.stdout.readline()).decode().strip("\r\n"):
            if wanted(line):
                return line
        raise self.failed("ended before it was done")
