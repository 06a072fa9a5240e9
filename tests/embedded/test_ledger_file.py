"""The ledger's file: what happens to it, and what is said. Never silently unlimited."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sqlite3
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from leasehold.embedded import file as ledger_file
from leasehold.embedded.file import LedgerBusyError
from leasehold.embedded.ledger import Ledger
from leasehold.exceptions import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY: Final = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    """A ledger in use, whose limit `a` is full."""
    ledger = Ledger(path)
    ledger.create("a", 1)
    assert take(ledger)
    yield ledger
    ledger.close()


def take(ledger: Ledger) -> bool:
    """Say whether a slot was to be had."""
    got = ledger.acquire(["a"], 1, seconds=60)
    assert got.limits, "the limit is not known: a task would run unlimited"
    return got.full is None


def refuses(ledger: Ledger, reason: str | None = None) -> None:
    with pytest.raises(LedgerError, match=reason) as caught:
        take(ledger)
    assert caught.value.path == ledger.path
    assert str(ledger.path) in str(caught.value)
    assert "LEASEHOLD_HOME" in str(caught.value)


@contextlib.contextmanager
def as_a_user() -> Iterator[None]:
    """Be somebody whom mode bits stop; tests may run as root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder whose own parents let everybody through."""
    folder = Path(tempfile.mkdtemp(prefix="leasehold-public-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


# -- made


def test_file_and_folder_are_private_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        ledger = Ledger(path)
        ledger.create("a", 1)
    finally:
        os.umask(before)
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
    assert set(modes) == {"ledger.db", "ledger.db-wal", "ledger.db-shm"}, "no draft is left"
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    ledger.close()


def test_what_is_written_is_there_for_the_next_process(ledger: Ledger) -> None:
    assert not take(Ledger(ledger.path))


def test_a_ledger_may_be_reached_through_a_link(ledger: Ledger, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(ledger.path)
    assert not take(Ledger(link))


# -- damaged


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def text(path: Path) -> None:
    path.write_text("Dear diary", encoding="utf-8")


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def another_database(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE limits (name)")


def without_its_tables(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE limits")


def from_the_future(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere.db"))


def below_a_file(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_text("a file")


@pytest.mark.parametrize(
    "damage",
    [
        garbage,
        text,
        emptied,
        cut_in_half,
        another_database,
        without_its_tables,
        from_the_future,
        a_folder,
        a_link_to_nowhere,
        below_a_file,
    ],
)
def test_a_damaged_ledger_is_an_error_that_names_it_and_stays_as_it_is(
    ledger: Ledger, damage: Callable[[Path], None]
) -> None:
    ledger.close()
    damage(ledger.path)
    before = ledger.path.read_bytes() if ledger.path.is_file() else None
    for _ in range(2):
        refuses(Ledger(ledger.path))
    assert (ledger.path.read_bytes() if ledger.path.is_file() else None) == before
    assert not ledger.path.with_name("nowhere.db").exists()


def test_a_newer_ledger_asks_for_a_newer_leasehold(ledger: Ledger) -> None:
    ledger.close()
    from_the_future(ledger.path)
    refuses(Ledger(ledger.path), "newer version.*schema 99.*Upgrade")


# -- in the hands of somebody else while a process uses it


def test_a_ledger_removed_under_a_running_process_is_an_error_until_it_is_back(
    ledger: Ledger, tmp_path: Path
) -> None:
    aside = tmp_path / "aside"
    ledger.path.parent.rename(aside)
    for _ in range(2):
        refuses(ledger, "removed while this process used it")
    assert not ledger.path.exists()
    aside.rename(ledger.path.parent)
    assert not take(ledger)


def test_a_running_process_goes_over_to_the_ledger_that_others_use_now(
    ledger: Ledger, tmp_path: Path
) -> None:
    other = Ledger(tmp_path / "other" / "ledger.db")
    other.create("a", 2)
    other.close()
    for suffix in ("-wal", "-shm"):
        ledger.path.with_name(ledger.path.name + suffix).unlink()
    other.path.replace(ledger.path)
    assert take(ledger)
    assert take(Ledger(ledger.path))
    assert not take(ledger)


def test_a_ledger_emptied_under_a_running_process_is_an_error(ledger: Ledger) -> None:
    os.truncate(ledger.path, 0)
    refuses(ledger)
    refuses(Ledger(ledger.path))


def test_no_new_ledger_is_made_beside_the_journal_of_a_lost_one(ledger: Ledger) -> None:
    ledger.path.unlink()
    refuses(Ledger(ledger.path), "journal ledger.db-wal is still there")
    assert not ledger.path.exists()


# -- not to be written


def test_a_read_only_file_is_an_error(public: Path) -> None:
    path = public / "ledger.db"
    with contextlib.closing(Ledger(path)) as ledger:
        ledger.create("a", 1)
    path.chmod(0o444)
    public.chmod(0o777)
    with as_a_user():
        refuses(Ledger(path))


def test_a_file_in_a_read_only_folder_is_an_error(public: Path) -> None:
    path = public / "ledger.db"
    with contextlib.closing(Ledger(path)) as ledger:
        ledger.create("a", 1)
    path.chmod(0o666)
    public.chmod(0o555)
    with as_a_user():
        refuses(Ledger(path))


def test_a_folder_that_cannot_be_made_is_an_error(public: Path) -> None:
    public.chmod(0o555)
    with as_a_user():
        refuses(Ledger(public / "home" / "ledger.db"), "Permission denied")


def test_a_disk_that_takes_no_more_is_an_error_and_nothing_is_half_done(ledger: Ledger) -> None:
    ledger.update("a", limit=1000)
    before = ledger.read("a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        refuses(ledger)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ledger.read("a") == before
    assert take(ledger)


# -- busy


def test_a_ledger_that_others_write_to_for_too_long_is_busy_not_broken(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_file, "_BUSY_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for one in (ledger, Ledger(ledger.path)):
            with pytest.raises(LedgerBusyError):
                take(one)
        other.execute("COMMIT")
    assert not take(ledger)


def test_an_error_inside_a_transaction_undoes_it(ledger: Ledger) -> None:
    def refuse(_: object) -> None:
        raise ZeroDivisionError

    ledger.update("a", limit=5)
    with pytest.raises(ZeroDivisionError):
        ledger.acquire(["a"], 1, seconds=60, check=refuse)
    limit = ledger.read("a")
    assert limit is not None
    assert limit.used == 1
