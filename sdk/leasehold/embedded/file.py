"""The ledger's SQLite file: opened once per process, made whole, and never mended or replaced.

Every process has its own connection, and a forked child opens a new one. What SQLite says is
translated here, so that nothing above sees its errors.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
import uuid
from typing import TYPE_CHECKING, Final

from leasehold.exceptions import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SCHEMA_VERSION: Final = 1

#: How long to wait for another process's transaction before saying "busy", in seconds.
_BUSY_SECONDS: Final = 2.0

_SCHEMA: Final = """
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
        self._pid = 0
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction, and end it: committed after the block, undone after an error."""
        with self._lock, self._translated():
            db = self._open()
            _begin(db)
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close this process's connection."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._pid == os.getpid():
            return self._connection
        # A forked child must not touch its parent's connection, not even to close it.
        _inherited.append(self._connection)
        self._connection = None
        if not self.path.exists():
            self._create_file()
        db = _connect(self.path)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            self._check_schema(db)
        except BaseException:
            db.close()
            raise
        self._connection, self._pid = db, os.getpid()
        return db

    def _create_file(self) -> None:
        """Make the file, private to the user, whole from its first moment on.

        So a file without a schema is never one that another process is just making: it is damaged,
        and taking it for a new ledger would mean forgetting every limit.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}.new")
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            with contextlib.closing(_connect(draft)) as db:
                db.executescript(_SCHEMA)
                db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.link(draft, self.path)
        finally:
            draft.unlink()

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
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise LedgerBusyError(str(error)) from error
            raise self._unusable(error) from error
        except (sqlite3.DatabaseError, OSError) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception | str) -> LedgerError:
        return LedgerError(
            f"The embedded ledger {self.path} cannot be used: {error}. Make the file and its "
            "folder writable, or move a damaged file away and create the limits again, or set "
            "LEASEHOLD_HOME to another folder. Until then no limit on this machine is enforced, "
            "so nothing that needs one runs.",
            path=self.path,
        )


#: Connections of parent processes: collecting one would close descriptors that carry its locks.
_inherited: list[sqlite3.Connection | None] = []


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)


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
            if "locked" not in str(error) or time.monotonic() > give_up_at:
                raise
        else:
            return
        time.sleep(random.uniform(0.0002, 0.002))  # noqa: S311 - spreads waits, guards nothing
