"""Real Prefect servers for the tests: installed once into the clone, started on 127.0.0.1.

Old releases do not run on today's newest dependencies, so each is installed as of a day on which it
was seen to start (PROTOCOL.md, "Running real servers for tests").
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import Future

ROOT: Final = Path(__file__).resolve().parent.parent
CACHE: Final = ROOT / ".cache" / "servers"

#: What to install for a version: the day as of which, and what to pin besides.
VERSIONS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "3.0.11": ("2024-11-20", ()),
    "3.4.18": ("2025-09-20", ()),
    "3.4.25": ("2025-11-07", ()),
    "3.8.8": ("2026-10-20", ("fastapi==0.139.*",)),
}

#: What has a server let nobody in without a key, and change nothing without a CSRF token.
LOCKED: Final = {
    "PREFECT_SERVER_API_AUTH_STRING": "user:word",
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
}

START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 10.0


def install(version: str) -> Path:
    """Install a release, once for all runs; give its `bin` folder."""
    home = CACHE / version
    CACHE.mkdir(parents=True, exist_ok=True)
    with _locked(CACHE / f"{version}.lock"):
        if not (home / "complete").exists():
            shutil.rmtree(home, ignore_errors=True)
            day, pins = VERSIONS[version]
            _uv("venv", "--quiet", "--python", sys.executable, str(home))
            _uv(
                *("pip", "install", "--quiet", "--python", str(home / "bin" / "python")),
                *("--exclude-newer", day, f"prefect=={version}", *pins),
            )
            (home / "complete").touch()
    return home / "bin"


def free_port() -> int:
    """Give a port that nobody listens on.

    It is below those that systems give to outgoing connections: a server takes seconds to start,
    and until then a request of another test could take one of those.
    """
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", 20_000 + secrets.randbelow(12_000)))
            return int(probe.getsockname()[1])


@dataclass
class PrefectServer:
    """One running server, with a database of its own.

    Attributes:
        version: a key of `VERSIONS`.
        env: settings beyond the usual ones.
        home: its folder; kept over a restart.
        port: its port; kept over a restart.
    """

    version: str
    env: Mapping[str, str] = field(default_factory=dict)
    home: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="prefect-server-")))
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What PREFECT_API_URL is set to."""
        return f"http://127.0.0.1:{self.port}/api"

    def start(self) -> PrefectServer:
        """Start it, and wait until it answers."""
        command = [str(install(self.version) / "prefect"), "server", "start"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(self.port)],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        atexit.register(self.stop)
        self._wait()
        return self

    def stop(self) -> None:
        """End it, and remove its folder."""
        self._end(signal.SIGTERM)
        shutil.rmtree(self.home, ignore_errors=True)

    def kill(self) -> None:
        """End it as a crash would; its database stays for `start`."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self.stop)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(STOP_SECONDS)

    def _wait(self) -> None:
        assert self._process is not None
        give_up_at = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up_at and self._process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            time.sleep(0.1)
        tail = self._log.read_text(errors="replace")[-3000:]
        self.stop()
        raise RuntimeError(f"Prefect {self.version} did not start:\n{tail}")

    @property
    def _log(self) -> Path:
        return self.home / "server.log"

    def _environment(self) -> dict[str, str]:
        clean = {
            k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "LEASEHOLD_"))
        }
        return {
            **clean,
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": "",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "1",
            # Its first start copies the UI into the installation: two at once would collide.
            "PREFECT_UI_ENABLED": "false",
            **self.env,
        }


class PrefectServers:
    """One server of each version that a run needs; all are started at once, when one is asked for.

    Args:
        needed: versions that will be asked for sooner or later.
        env: settings of all of them.
    """

    def __init__(self, needed: Iterable[str], env: Mapping[str, str] | None = None) -> None:
        self._needed = set(needed)
        self._env = env or {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=len(VERSIONS))
        self._started: dict[str, Future[PrefectServer]] = {}

    def of(self, version: str) -> PrefectServer:
        """Give the running server of a version."""
        with self._lock:
            for one in sorted({version} | self._needed):
                if one not in self._started:
                    self._started[one] = self._pool.submit(PrefectServer(one, self._env).start)
        return self._started[version].result()

    def stop(self) -> None:
        """End all of them."""
        for started in self._started.values():
            if started.exception() is None:
                started.result().stop()
        self._pool.shutdown()


def _uv(*arguments: str) -> None:
    from uv import find_uv_bin

    done = subprocess.run(
        [find_uv_bin(), *arguments], capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        raise RuntimeError(f"uv {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
