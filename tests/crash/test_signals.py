"""What ends a process from inside: signals, handlers of the program's own, and the exit."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from crash.conftest import FREE_SECONDS, GRACE_SECONDS, wait_for
from proxy import Fault, Proxy, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crash.conftest import Limit, Victim

#: A program that holds a slot, in its main thread or while that waits, as a snippet each. `body`
#: says that it holds the slot, and does so for long.
WAYS = {
    "a block in the main thread": """
with concurrency(name):
    body()
""",
    "a task that the main thread calls": """
task(tags=[tag])(body)()
""",
    "a task for whose result the main thread waits": """
@flow
def work():
    task(tags=[tag])(body).submit().result()
work()
""",
    "a task that the end of a flow waits for": """
@flow
def work():
    task(tags=[tag])(body).submit()
work()
""",
    "an async task under an event loop": """
import asyncio
async def async_body():
    tell("held")
    await asyncio.sleep(60)
@flow
async def work():
    await task(tags=[tag])(async_body)()
asyncio.run(work())
""",
    "a task for which an event loop waits": """
import asyncio
@flow
async def work():
    await task(tags=[tag])(body).submit().result_async()
asyncio.run(work())
""",
    "a thread, while the main thread waits for the same slot": """
threading.Thread(target=task(tags=[tag])(body), daemon=True).start()
while not begun:
    time.sleep(0.01)
task(tags=[tag])(body)()
""",
}

BODY = """
begun = []
def body():
    begun.append(True)
    tell("held")
    wait()
name, tag = "tag:" + sys.argv[1], sys.argv[1]
"""


@pytest.fixture
def place(prefect_server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have limits live on the newest server."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server_url)


@pytest.fixture
def limit(place: None, make_limit: Callable[..., Limit]) -> Limit:
    """A tag with one slot."""
    return make_limit()


@pytest.fixture
def proxy(limit: Limit, prefect_server_url: str) -> Iterator[Proxy]:
    """A proxy for the victim alone; what is asked here goes to the server itself."""
    with Proxy(prefect_server_url) as proxy:
        yield proxy


@pytest.mark.parametrize(
    ("number", "way"),
    [*((signal.SIGTERM, way) for way in WAYS), (signal.SIGHUP, next(iter(WAYS)))],
)
def test_a_signal_gives_the_slot_back_from_inside_and_still_ends_the_process(
    number: signal.Signals, way: str, limit: Limit, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(BODY + WAYS[way], limit.name, LEASEHOLD_GUARD="0")
    assert victim.hear() == "held"
    assert limit.used() == 1
    victim.wait_until_it_handles(number)
    victim.process.send_signal(number)
    code, complaints = victim.end()
    assert (code, complaints) == (-number, "")
    limit.wait_until_free()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_a_signal_gives_back_from_inside_the_guard_does_not_give_back_again(
    number: signal.Signals, proxy: Proxy, limit: Limit, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(
        BODY + WAYS["a block in the main thread"], limit.name, PREFECT_API_URL=proxy.url
    )
    victim.hear()
    victim.wait_until_it_handles(number)
    victim.process.send_signal(number)
    assert victim.end()[0] == -number
    victim.wait_until_nothing_is_left()
    assert proxy.requests("decrement") == 1
    assert limit.used() == 0


def test_a_handler_of_the_programs_own_that_returns_lets_the_work_go_on_under_its_slot(
    limit: Limit, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(
        """
signal.signal(signal.SIGTERM, lambda *_: tell("not now"))
with concurrency("tag:" + sys.argv[1]):
    tell("held")
    sys.stdin.read()
tell("done")
""",
        limit.name,
    )
    assert victim.hear() == "held"
    victim.process.send_signal(signal.SIGTERM)
    assert victim.hear() == "not now"
    assert limit.used() == 1
    victim.close_stdin()
    assert victim.hear() == "done"
    assert victim.end() == (0, "")
    limit.wait_until_free()


@pytest.mark.parametrize(
    ("handler", "status", "complaint"),
    [("1 / 0", 1, "ZeroDivisionError"), ("sys.exit(5)", 5, "")],
    ids=["raises", "exits"],
)
def test_a_handler_of_the_programs_own_ends_it_as_before(
    handler: str, status: int, complaint: str, limit: Limit, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(
        f"""
def handle(*_):
    {handler}
signal.signal(signal.SIGTERM, handle)
with concurrency("tag:" + sys.argv[1]):
    tell("held")
    wait()
""",
        limit.name,
        LEASEHOLD_GUARD="0",
    )
    assert victim.hear() == "held"
    victim.process.send_signal(signal.SIGTERM)
    code, complaints = victim.end()
    assert code == status
    assert complaint in complaints
    limit.wait_until_free()


def test_a_handler_that_is_installed_after_the_first_slot_is_the_programs(
    limit: Limit, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(
        """
with concurrency("tag:" + sys.argv[1]):
    tell("held")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    tell("installed")
    wait()
""",
        limit.name,
        LEASEHOLD_GUARD="0",
    )
    victim.hear()
    assert victim.hear() == "installed"
    victim.process.send_signal(signal.SIGTERM)
    assert victim.end() == (5, "")
    limit.wait_until_free()


def test_a_signal_that_was_ignored_stays_ignored(
    limit: Limit, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(
        """
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
with concurrency("tag:" + sys.argv[1]):
    tell("held")
    tell(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)
""",
        limit.name,
    )
    victim.hear()
    assert victim.hear() is True
    assert victim.end() == (0, "")


@pytest.mark.parametrize("tags", ["[]", "['a tag without a limit']"])
def test_nothing_is_installed_in_a_process_that_never_held_a_slot(
    place: None, tags: str, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(
        f"""
@task(tags={tags})
def body():
    pass

@flow
def work():
    body()
    body.submit().result()

work()
from leasehold.concurrency import crash
tell([
    signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
    signal.getsignal(signal.SIGHUP) == signal.SIG_DFL,
    "LEASEHOLD_GUARD_ADDRESS" in os.environ,
    [one.name for one in threading.enumerate() if one.name != "leasehold-keeper"],
])
sys.stdin.read()
"""
    )
    assert victim.hear() == [True, True, False, ["MainThread"]]
    victim.look()
    assert victim.kin == {}
    victim.close_stdin()
    assert victim.end() == (0, "")


def black_hole_for_releases(seen: Seen) -> Fault:
    """Let no release arrive."""
    return Fault.BLACK_HOLE if "decrement" in seen.path else Fault.NONE


@pytest.mark.parametrize(
    ("first", "second"),
    [("SIGTERM", "SIGTERM"), ("SIGTERM", "SIGHUP"), ("SIGTERM", "SIGINT"), ("SIGINT", "SIGINT")],
)
def test_a_second_signal_during_the_release_ends_the_process_at_once(
    first: str, second: str, proxy: Proxy, limit: Limit, run_script: Callable[..., Victim]
) -> None:
    proxy.plan = black_hole_for_releases
    victim = run_script(
        BODY + WAYS["a block in the main thread"],
        limit.name,
        LEASEHOLD_GUARD="0",
        PREFECT_API_URL=proxy.url,
    )
    victim.hear()
    victim.process.send_signal(signal.Signals[first])
    wait_for(lambda: proxy.count(Fault.BLACK_HOLE))
    began = time.monotonic()
    victim.process.send_signal(signal.Signals[second])
    victim.process.wait(10)
    assert time.monotonic() - began < 1
    assert victim.process.returncode in {-signal.Signals[first], -signal.Signals[second]}


@pytest.mark.parametrize("guard", ["1", pytest.param("0", marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", ["exit", "SIGTERM", "flow"])
def test_a_server_that_is_out_of_reach_delays_the_end_by_two_seconds_at_most(
    way: str, guard: str, proxy: Proxy, limit: Limit, run_script: Callable[..., Victim]
) -> None:
    script = {
        "exit": "with concurrency('tag:' + sys.argv[1]):\n    body()",
        "flow": "flow(lambda: task(tags=[sys.argv[1]])(body).submit().result())()",
        "SIGTERM": "with concurrency('tag:' + sys.argv[1]):\n    body()",
    }[way]
    victim = run_script(
        "def body():\n    tell('held')\n    sys.stdin.read()\n" + script,
        limit.name,
        LEASEHOLD_GUARD=guard,
        PREFECT_API_URL=proxy.url,
    )
    victim.hear()
    proxy.go_down()
    began = time.monotonic()
    if way == "SIGTERM":
        victim.process.send_signal(signal.SIGTERM)
    else:
        victim.close_stdin()
    victim.process.wait(20)
    assert time.monotonic() - began < FREE_SECONDS + GRACE_SECONDS


@pytest.mark.parametrize("way", ["exit", "SIGTERM"])
def test_what_the_end_could_not_give_back_the_guard_gives_back_when_the_server_is_there_again(
    way: str, proxy: Proxy, limit: Limit, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(
        """
with concurrency("tag:" + sys.argv[1]):
    tell("held")
    sys.stdin.read()
""",
        limit.name,
        PREFECT_API_URL=proxy.url,
        LEASEHOLD_DIALECT="legacy",
    )
    victim.hear()
    proxy.go_down()
    if way == "SIGTERM":
        victim.process.send_signal(signal.SIGTERM)
    else:
        victim.close_stdin()
    victim.process.wait(20)
    assert limit.used() == 1
    proxy.come_back()
    limit.wait_until_free()


def test_a_grant_on_its_way_at_sigterm_is_given_back(
    proxy: Proxy, limit: Limit, make_limit: Callable[..., Limit], run_script: Callable[..., Victim]
) -> None:
    other = make_limit()
    proxy.delay_seconds = 0.7
    victim = run_script(
        """
with concurrency("tag:" + sys.argv[2]):
    tell("held")
    sys.stdin.readline()
    with concurrency("tag:" + sys.argv[1]):
        wait()
""",
        limit.name,
        other.name,
        LEASEHOLD_GUARD="0",
        PREFECT_API_URL=proxy.url,
    )
    victim.hear()
    proxy.plan = lambda seen: Fault.DELAY if "increment" in seen.path else Fault.NONE
    victim.close_stdin()
    limit.wait(1, 10)
    victim.process.send_signal(signal.SIGTERM)
    assert victim.end()[0] == -signal.SIGTERM
    limit.wait_until_free()
    other.wait_until_free()


def test_the_end_of_the_interpreter_ends_waits_of_daemon_threads(
    limit: Limit, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(
        """
def hold():
    with concurrency("tag:" + sys.argv[1]):
        tell("held")
        wait()

for _ in range(5):
    threading.Thread(target=hold, daemon=True).start()
sys.stdin.read()
""",
        limit.name,
        LEASEHOLD_GUARD="0",
    )
    assert victim.hear() == "held"
    victim.close_stdin()
    code, _ = victim.end()
    assert code == 0
    limit.wait_until_free()


def test_two_ends_at_once_end_in_good_order(
    limit: Limit, run_script: Callable[..., Victim]
) -> None:
    victim = run_script(
        """
from leasehold.concurrency.process import running_keeper
for _ in range(4):
    with concurrency("tag:" + sys.argv[1]):
        keeper = running_keeper()
        ends = [threading.Thread(target=keeper.close) for _ in range(4)]
        for end in ends:
            end.start()
        for end in ends:
            end.join()
    from leasehold.concurrency.process import shut_down
    shut_down()
""",
        limit.name,
    )
    assert victim.end(60) == (0, "")
    limit.wait_until_free()
