"""The guard as a process: what it is, what it costs, and how long it lives."""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import psutil
import pytest
import trustme

from crash.conftest import FREE_SECONDS, GRACE_SECONDS, wait_for
from places import NEWEST, places
from proxy import Fault, ForwardProxy, Proxy, Seen
from servers import PrefectServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crash.conftest import Limit, Victim

MOST_MEGABYTES = 20

HOLD = """
with concurrency("tag:" + sys.argv[1]):
    tell("held")
    sys.stdin.read()
"""


@pytest.fixture
def limit(
    prefect_server_url: str, monkeypatch: pytest.MonkeyPatch, make_limit: Callable[..., Limit]
) -> Limit:
    """A tag with 32 slots on the newest server."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server_url)
    return make_limit(32)


@pytest.fixture
def proxy(limit: Limit, prefect_server_url: str) -> Iterator[Proxy]:
    """A proxy for the victim alone; what is asked here goes to the server itself."""
    with Proxy(prefect_server_url) as proxy:
        yield proxy


def only_guard(victim: Victim) -> psutil.Process:
    wait_for(lambda: len(victim.look()) == 1)
    return victim.look()[0]


def descriptors(process: psutil.Process) -> list[str]:
    found = []
    for path in sorted(Path(f"/proc/{process.pid}/fd").iterdir(), key=lambda path: int(path.name)):
        with contextlib.suppress(FileNotFoundError):  # closed since a moment ago
            found.append(str(path.readlink()))
    return found


def megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 1e6)


def test_it_has_a_session_of_its_own_and_no_descriptor_but_its_line(
    limit: Limit, run_script: Callable[..., Victim], tmp_path: Path
) -> None:
    (tmp_path / "open").touch()
    victim = run_script(
        f"os.set_inheritable(os.open({str(tmp_path / 'open')!r}, os.O_RDONLY), True)\n" + HOLD,
        limit.name,
    )
    victim.hear()
    guard = only_guard(victim)
    assert os.getsid(guard.pid) == guard.pid
    # Its line, what it waits with and for, and the door for children, which is its last step.
    expected = ["anon_inode", "anon_inode", "socket", "socket"]
    wait_for(lambda: sorted(link.split(":")[0] for link in descriptors(guard)[3:]) == expected)
    assert descriptors(guard)[:3] == ["/dev/null"] * 3
    assert guard.cwd() == "/"


def test_no_secret_is_on_its_command_line_in_its_environment_or_in_what_is_logged(
    limit: Limit, run_script: Callable[..., Victim]
) -> None:
    secrets = {
        "PREFECT_API_KEY": "key-4711",
        "PREFECT_API_AUTH_STRING": "user:word-4711",
        "PREFECT_CLIENT_CUSTOM_HEADERS": '{"X-Token": "header-4711"}',
    }
    victim = run_script(HOLD, limit.name, LEASEHOLD_LOGGING_LEVEL="DEBUG", **secrets)
    victim.hear()
    guard = Path(f"/proc/{only_guard(victim).pid}")
    assert b"4711" not in (guard / "cmdline").read_bytes()
    environment = (guard / "environ").read_bytes()
    assert {one.split(b"=")[0] for one in environment.split(b"\0")} <= {
        *(b"", b"PATH", b"LD_LIBRARY_PATH", b"LC_CTYPE")  # Python sets the last one itself
    }
    victim.close_stdin()
    assert "4711" not in victim.end()[1]


def test_it_uses_no_cpu_while_idle_and_little_memory(
    limit: Limit, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(HOLD, limit.name)
    victim.hear()
    guard = only_guard(victim)
    time.sleep(1)  # to have started
    before = guard.cpu_times()
    time.sleep(3)
    after = guard.cpu_times()
    assert (after.user, after.system) == (before.user, before.system)
    assert megabytes(guard) < MOST_MEGABYTES


def test_it_stays_small_when_it_had_something_to_do(
    limit: Limit, run_script: Callable[..., Victim]
) -> None:
    guard = guard_that_has_acted(limit, run_script)
    assert megabytes(guard) < MOST_MEGABYTES


def guard_that_has_acted(
    limit: Limit, run_script: Callable[..., Victim], **env: str
) -> psutil.Process:
    """Kill one of two processes that share a guard, and see its slot come back."""
    victim = run_script(
        """
import subprocess
with concurrency("tag:" + sys.argv[1]):
    subprocess.Popen([sys.executable, *sys.argv, "child"]) if len(sys.argv) == 2 else None
    tell(os.getpid())
    wait()
""",
        limit.name,
        **env,
    )
    pids = {victim.hear(), victim.hear()}
    limit.wait(2, 10)
    guard = only_guard(victim)
    (child,) = pids - {victim.process.pid}
    os.kill(child, signal.SIGKILL)
    limit.wait(1, FREE_SECONDS + GRACE_SECONDS)
    assert guard.is_running()
    return guard


@pytest.mark.parametrize("through_proxy", [False, True], ids=["direct", "through a proxy"])
def test_it_speaks_tls_and_stays_small(
    *,
    through_proxy: bool,
    limit: Limit,
    prefect_server_url: str,
    run_script: Callable[..., Victim],
    tmp_path: Path,
) -> None:
    authority, trusted = trustme.CA(), tmp_path / "trusted.pem"
    # All that is trusted as a rule, too, since that is what takes room.
    trusted.write_bytes(Path(certifi.where()).read_bytes() + authority.cert_pem.bytes())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with Proxy(prefect_server_url, tls=tls) as server, ForwardProxy() as company:
        env = {"HTTPS_PROXY": company.url} if through_proxy else {}
        guard = guard_that_has_acted(
            limit, run_script, PREFECT_API_URL=server.url, SSL_CERT_FILE=str(trusted), **env
        )
        assert server.requests("decrement") == 1
        assert {seen.method for seen, _ in company.seen} == ({"CONNECT"} if env else set())
        assert megabytes(guard) < MOST_MEGABYTES


def test_a_server_that_nobody_vouches_for_gets_no_keys(
    limit: Limit, prefect_server_url: str, run_script: Callable[..., Victim]
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    with Proxy(prefect_server_url, tls=tls) as server:
        victim = run_script(HOLD, limit.name, PREFECT_API_URL=server.url)
        code, complaints = victim.end(60)
        assert code == 1
        assert "CERTIFICATE_VERIFY_FAILED" in complaints
        assert server.seen == []


@pytest.mark.parametrize(
    "method",
    [
        "fork",
        pytest.param("spawn", marks=pytest.mark.slow),
        pytest.param("forkserver", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("parent", ['concurrency("tag:" + sys.argv[1])', "nullcontext()"])
def test_one_guard_serves_a_process_and_its_16_workers(
    parent: str, method: str, limit: Limit, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(
        f"""
from contextlib import nullcontext

def hold(_):
    with concurrency("tag:" + sys.argv[1]):
        tell("held")
        wait()

if __name__ == "__main__":
    with {parent}:
        tell("ready")
        with multiprocessing.get_context({method!r}).Pool(16) as pool:
            pool.map(hold, range(16), chunksize=1)
""",
        limit.name,
    )
    for _ in range(17):
        victim.hear(90)  # so many imports at once take their time
    assert limit.used() == (16 if parent == "nullcontext()" else 17)
    guard = only_guard(victim)
    assert megabytes(guard) < MOST_MEGABYTES
    victim.look()
    os.killpg(victim.process.pid, signal.SIGKILL)
    victim.process.wait(10)
    limit.wait_until_free()
    victim.wait_until_nothing_is_left()


def test_it_releases_nothing_that_the_owner_released(
    proxy: Proxy, limit: Limit, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(
        """
for _ in range(5):
    with concurrency("tag:" + sys.argv[1]):
        pass
with concurrency("tag:" + sys.argv[1]):
    tell("held")
    os._exit(0)
""",
        limit.name,
        PREFECT_API_URL=proxy.url,
        LEASEHOLD_HANDOVER_SECONDS="0",
    )
    victim.hear()
    victim.process.wait(10)
    limit.wait_until_free()
    victim.wait_until_nothing_is_left()
    assert proxy.requests("increment-with-lease") == 6
    assert proxy.requests("decrement") == 6


def test_what_the_server_could_not_answer_is_not_given_back(
    proxy: Proxy, limit: Limit, run_script: Callable[..., Victim]
) -> None:
    def plan(seen: Seen) -> Fault:
        is_early = "increment" in seen.path and proxy.requests("increment") < 3
        return Fault.STATUS_503 if is_early else Fault.NONE

    proxy.plan = plan
    victim = run_script(HOLD, limit.name, PREFECT_API_URL=proxy.url)
    victim.hear()
    assert proxy.count(Fault.STATUS_503) == 3
    victim.process.kill()
    victim.process.wait(10)
    limit.wait_until_free()
    victim.wait_until_nothing_is_left(GRACE_SECONDS)
    assert proxy.requests("decrement") == 1


def test_it_ends_with_a_process_that_has_given_everything_back(
    proxy: Proxy, limit: Limit, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(HOLD, limit.name, PREFECT_API_URL=proxy.url)
    victim.hear()
    victim.look()
    victim.close_stdin()
    assert victim.end() == (0, "")
    victim.wait_until_nothing_is_left(GRACE_SECONDS)
    assert proxy.requests("decrement") == 1


def test_one_that_is_killed_has_a_successor_and_nothing_is_lost(
    limit: Limit, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(HOLD, limit.name)
    victim.hear()
    for _ in range(2):
        guard = only_guard(victim)
        guard.kill()
        psutil.wait_procs([guard], timeout=10)
        victim.kin.clear()
        wait_for(victim.look)
    assert limit.used() == 1
    victim.process.kill()
    victim.process.wait(10)
    limit.wait_until_free()


@pytest.mark.slow
def test_workers_find_the_successor_of_a_guard_that_was_killed(
    limit: Limit, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(
        """
def hold():
    with concurrency("tag:" + sys.argv[1]):
        tell("held")
        wait()

if __name__ == "__main__":
    with concurrency("tag:" + sys.argv[1]):
        tell("held")
        for _ in range(3):
            multiprocessing.get_context("spawn").Process(target=hold).start()
        wait()
""",
        limit.name,
    )
    for _ in range(4):
        victim.hear()
    guard = only_guard(victim)
    guard.kill()
    psutil.wait_procs([guard], timeout=10)
    victim.kin.clear()
    wait_for(victim.look)
    time.sleep(2)  # whoever did not find it has one of its own by now
    victim.kin.clear()
    assert len(victim.look()) == 1
    os.killpg(victim.process.pid, signal.SIGKILL)
    victim.process.wait(10)
    limit.wait_until_free()


def test_leasehold_guard_0_starts_none(limit: Limit, run_script: Callable[..., Victim]) -> None:
    victim = run_script(HOLD, limit.name, LEASEHOLD_GUARD="0")
    victim.hear()
    assert victim.look() == []
    victim.close_stdin()
    assert victim.end() == (0, "")
    limit.wait_until_free()


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/false"])
def test_where_it_cannot_start_one_warning_says_what_that_means(
    python: str, limit: Limit, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(
        f"""
sys.executable = {python!r}
for number in range(3):
    with concurrency("tag:" + sys.argv[1]) as lease:
        time.sleep(0.5)
tell(lease.crash_safe)
""",
        limit.name,
        LEASEHOLD_HANDOVER_SECONDS="0",
    )
    assert victim.hear() is True
    code, complaints = victim.end()
    assert code == 0
    assert complaints.startswith("No guard watches over this process")
    assert len(complaints.splitlines()) == 1
    limit.wait_until_free()


@pytest.mark.parametrize("place", places(NEWEST, "3.0.11"), indirect=True)
def test_a_first_acquire_whose_reply_the_process_does_not_live_to_see_is_undone(
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    make_limit: Callable[..., Limit],
    run_script: Callable[..., Victim],
) -> None:
    monkeypatch.setenv("LEASEHOLD_DIALECT", "legacy")
    limit = make_limit()
    with Proxy(os.environ["PREFECT_API_URL"], delay_seconds=20) as proxy:
        proxy.plan = lambda seen: Fault.DELAY if "increment" in seen.path else Fault.NONE
        victim = run_script(
            "task(tags=[sys.argv[1]])(wait)()", limit.name, PREFECT_API_URL=proxy.url
        )
        limit.wait(1, 20)
        assert victim.look() != []
        victim.process.kill()
        victim.process.wait(10)
        limit.wait_until_free()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("server_env", "client_env"),
    [
        ({"PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true"}, {}),
        (
            {"PREFECT_SERVER_API_AUTH_STRING": "user:word"},
            {"PREFECT_API_AUTH_STRING": "user:word"},
        ),
    ],
    ids=["csrf", "auth"],
)
@pytest.mark.server
def test_it_gets_through_to_servers_that_ask_who_comes(
    server_env: dict[str, str],
    client_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    make_limit: Callable[..., Limit],
    run_script: Callable[..., Victim],
) -> None:
    for name, value in client_env.items():
        monkeypatch.setenv(name, value)
    server = PrefectServer("3.8.8", env=server_env).start()
    try:
        monkeypatch.setenv("PREFECT_API_URL", server.url)
        limit = make_limit()
        victim = run_script(HOLD, limit.name)
        victim.hear()
        assert limit.used() == 1
        victim.process.kill()
        victim.process.wait(10)
        limit.wait_until_free()
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_for_90_s_it_renews_what_stands_still_and_without_it_a_lease_ends_by_itself(
    limit: Limit, make_limit: Callable[..., Limit], run_script: Callable[..., Victim]
) -> None:
    # Three processes at once, because all that is done here is wait: one that is stopped, one in
    # which a call in C holds the interpreter, and one that is killed together with its guard.
    script = """
import ctypes
with concurrency("tag:" + sys.argv[1], lease_duration=60) as lease:
    tell("held")
    if sys.argv[2] == "hold":
        ctypes.PyDLL(None).sleep(90)  # unlike CDLL, PyDLL keeps the lock
    else:
        ctypes.CDLL(None).usleep(30_000_000)
    tell([lease.lost, lease.lost_reason])
"""
    left_alone, mine = make_limit(), {"stop": limit, "hold": make_limit()}
    victims = {how: run_script(script, one.name, how) for how, one in mine.items()}
    killed = run_script(script, left_alone.name, "stop")
    for victim in (*victims.values(), killed):
        victim.hear()
    began = time.monotonic()
    victims["stop"].process.send_signal(signal.SIGSTOP)
    guard = only_guard(killed)
    killed.process.send_signal(signal.SIGSTOP)  # so that it cannot start another
    guard.kill()
    killed.process.kill()
    killed.process.wait(10)
    freed_after = None
    while time.monotonic() - began < 88:
        assert [one.used() for one in mine.values()] == [1, 1]
        if freed_after is None and not left_alone.used():
            freed_after = time.monotonic() - began
        time.sleep(1)
    assert freed_after is not None
    assert freed_after < 60 + 1 + 5  # the lease, the reaper's round in the tests, and grace
    victims["stop"].process.send_signal(signal.SIGCONT)
    for how, victim in victims.items():
        assert victim.hear() == [False, None]
        assert victim.end() == (0, "")
        mine[how].wait_until_free()
