"""The ledger's SQLite file: made whole, and never mended or replaced.

Rules:

1. A process has one connection, and none lives across a fork: a child that inherited one would
   believe that it holds its parent's locks.
2. A file that cannot be used, or that is gone from under a running process, is an error that names
   it. Only a process that has never seen a file here makes one.
3. A file that was exchanged for another is left for the new one: that is what others use now.
4. What SQLite says is translated here, so that nothing above sees its errors.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
import uuid
import weakref
from typing import TYPE_CHECKING, Final

from leasehold.exceptions import LedgerError
from leasehold.forks import awaited_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SCHEMA_VERSION: Final = 1

#: How long to wait for another process's transaction before saying "busy", in seconds.
_BUSY_SECONDS: Final = 2.0

_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
CREATE TABLE limits (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, active INTEGER NOT NULL,
    used INTEGER NOT NULL, denied INTEGER NOT NULL, decay REAL NOT NULL, used_at REAL NOT NULL,
    created REAL NOT NULL, updated REAL NOT NULL
);
CREATE TABLE leases (
    id TEXT PRIMARY KEY, slots INTEGER NOT NULL, holder_type TEXT, holder_id TEXT,
    created REAL NOT NULL, expires REAL NOT NULL,
    boot TEXT NOT NULL, namespace TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX leases_by_expiry ON leases (expires);
CREATE TABLE lease_limits (
    limit_id TEXT NOT NULL, lease_id TEXT NOT NULL, PRIMARY KEY (limit_id, lease_id)
) WITHOUT ROWID;
CREATE INDEX limits_of_lease ON lease_limits (lease_id);
"""


class LedgerBusyError(Exception):
    """Another process is writing; ask again soon."""


class LedgerFile:
    """One file, and this process's connection to it.

    Args:
        path: the file; it and its folder are made, private to the user, when they are missing.

    Raises:
        LedgerError: from every method, when the file cannot be used.
        LedgerBusyError: from `writing`, when others write for too long.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.in_use = False
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int, bool] | None = None
        with _lock:
            _files.add(self)

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction, and end it: committed after the block, undone after an error."""
        with _lock, self._translated(), self._used():
            db = self._begin()
            try:
                yield db
                self._refuse_inherited(db)
                db.execute("COMMIT")
            except BaseException:
                if db is self._connection and db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close this process's connection; the next transaction opens another."""
        with _lock:
            db, self._connection = self._connection, None
            if db is not None:
                db.close()

    def forget(self) -> None:
        """Leave this process's connection to the parent that it comes from."""
        db, self._connection = self._connection, None
        if db is not None:
            _inherited.append(db)

    @contextlib.contextmanager
    def _used(self) -> Iterator[None]:
        before, self.in_use = self.in_use, True
        try:
            yield
        finally:
            self.in_use = before

    def _refuse_inherited(self, db: sqlite3.Connection) -> None:
        """Refuse to go on where a signal handler has forked and comes back in the child."""
        if db is not self._connection:
            raise LedgerBusyError("this process was forked amid a transaction of its parent")

    def _begin(self) -> sqlite3.Connection:
        """Begin to write to the file that is at the path now."""
        while True:
            db = self._connection or self._open()
            _begin(db)
            if self._look() == self._file:
                return db
            self.close()

    def _open(self) -> sqlite3.Connection:
        file = self._look()
        if file is None:
            if self._file is not None:
                raise self._unusable("it was removed while this process used it")
            self._create()
            file = self._look()
        db = _connect(self.path, timeout=_BUSY_SECONDS)
        try:
            self._check_schema(db)
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA busy_timeout = 0")  # from here on, `_begin` waits
        except BaseException:
            db.close()
            raise
        self._connection, self._file = db, file
        return db

    def _look(self) -> tuple[int, int, bool] | None:
        """Tell which file is at the path, and whether anything is in it; None: there is none."""
        try:
            found = os.stat(self.path)  # noqa: PTH116 - half the time of Path.stat, at every call
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino, found.st_size > 0

    def _create(self) -> None:
        """Make the file, private to the user, whole from its first moment on.

        So a file without a schema is never one that another process is just making: it is damaged,
        and taking it for a new ledger would mean forgetting every limit.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._refuse_orphans()
        draft = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}.new")
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            with contextlib.closing(_connect(draft, timeout=0)) as db:
                db.executescript(f"{_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION};")
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.link(draft, self.path)
        finally:
            draft.unlink()

    def _refuse_orphans(self) -> None:
        """Refuse to put a new file beside the journal of a lost one: SQLite would mix the two."""
        journal = self.path.with_name(f"{self.path.name}-wal")
        with contextlib.suppress(FileNotFoundError):
            if journal.stat().st_size and self._look() is None:
                raise self._unusable(
                    f"the file is gone, but its journal {journal.name} is still there; put the "
                    "file back, or remove the journal too"
                )

    def _check_schema(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA_VERSION:
            raise LedgerError(
                f"The embedded ledger {self.path} was written by a newer version of leasehold "
                f"(schema {version}; this one knows {_SCHEMA_VERSION}). Upgrade leasehold, or set "
                "LEASEHOLD_HOME to another folder.",
                path=self.path,
            )
        if version < _SCHEMA_VERSION:
            raise self._unusable("it is no ledger, or it was emptied")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if _is_busy(error):
                raise LedgerBusyError(str(error)) from error
            # The next try starts afresh: the file may be mended, or another, by then.
            with contextlib.suppress(sqlite3.Error):
                self.close()
            raise self._unusable(error) from error

    def _unusable(self, error: Exception | str) -> LedgerError:
        return LedgerError(
            f"The embedded ledger {self.path} cannot be used: {error}. Make the file and its "
            "folder writable, or move a damaged file away and create the limits again, or set "
            "LEASEHOLD_HOME to another folder. Until then no limit on this machine is enforced, "
            "so nothing that needs one runs.",
            path=self.path,
        )


def _connect(path: Path, *, timeout: float) -> sqlite3.Connection:
    # "rw": a file that is missing is never made here, because it would be an empty one.
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
    )


def _is_busy(error: Exception) -> bool:
    # "locking protocol": too many others are beginning at the same moment.
    return isinstance(error, sqlite3.OperationalError) and any(
        word in str(error) for word in ("locked", "busy", "locking protocol")
    )


def _begin(db: sqlite3.Connection) -> None:
    """Begin to write, waiting for other writers.

    SQLite's own wait sleeps for longer and longer, so that whoever has waited longest is the least
    likely to be next. Ours looks again every millisecond or so.
    """
    give_up_at = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > give_up_at:
                raise
        else:
            return
        time.sleep(random.uniform(0.0002, 0.002))  # noqa: S311 - spreads waits, guards nothing


def _close_all() -> None:
    """Close what the forking thread is not in the middle of (rule 1)."""
    for file in tuple(_files):
        if not file.in_use:
            with contextlib.suppress(sqlite3.Error):
                file.close()


def _forget_all() -> None:
    """In a child that was forked amid a transaction: that is the parent's, as is its end."""
    for file in tuple(_files):
        file.forget()


_files: Final[weakref.WeakSet[LedgerFile]] = weakref.WeakSet()
_inherited: Final[list[sqlite3.Connection]] = []  # to close one would end the parent's transaction

#: Held for each transaction: a process makes one at a time, and forks wait for its end.
_lock: Final = awaited_lock(then=_close_all)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
