"""A flow that is process 1 of a container: whatever it had started ends with it, the guard too."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Final

import psutil
import pytest

from crash.conftest import PREAMBLE, Victim
from places import EMBEDDED, NEWEST, places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from crash.conftest import Limit

#: A PID namespace, as a container has one; by way of a user namespace, which needs no rights.
UNSHARE: Final = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")

BODY: Final = """
def body():
    tell(os.getpid())
    wait()

@flow
def work():
    task(tags=[sys.argv[1]])(body).submit()

work()
"""


@pytest.fixture
def run_as_process_1(tmp_path: Path) -> Iterator[Callable[..., Victim]]:
    """Run a script as process 1 of a PID namespace."""
    victims: list[Victim] = []

    def run(script: str, *arguments: str, **env: str) -> Victim:
        path = tmp_path / "script.py"
        path.write_text(PREAMBLE + script)
        victims.append(Victim(*UNSHARE, sys.executable, str(path), *arguments, **env))
        return victims[-1]

    yield run
    for victim in victims:
        victim.clean_up()


@pytest.mark.parametrize("place", places(EMBEDDED, NEWEST, "3.0.11"), indirect=True)
def test_sigterm_releases_from_inside_and_the_status_says_what_happened(
    place: str,
    make_limit: Callable[..., Limit],
    run_as_process_1: Callable[..., Victim],
) -> None:
    limit = make_limit()
    victim = run_as_process_1(BODY, limit.name)
    assert victim.hear() == 1
    assert limit.used() == 1
    (first,) = psutil.Process(victim.process.pid).children()
    victim.look()
    first.send_signal(signal.SIGTERM)
    code, complaints = victim.end()
    assert (code, complaints) == (128 + signal.SIGTERM, "")
    limit.wait_until_free()
    victim.wait_until_nothing_is_left()
