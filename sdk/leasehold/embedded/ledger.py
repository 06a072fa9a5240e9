"""The embedded ledger: limits and leases in one SQLite file, shared by the processes of a machine.

Rules:

1. A counter and the leases it counts change in one transaction, so they cannot drift apart.
2. Expired leases are given back before anything is granted or read.
3. When a limit is full, the slots of processes that have certainly ended are given back at once.
4. The lease of a process that certainly lives does not expire, however long it stands still: it may
   go on with its work at any moment. Expiry decides where nobody can tell: in another container, on
   another machine, after a reboot. So a slot that a process forgets is taken for as long as it
   lives.
5. A file that cannot be used is an error that names it. It is never mended, never replaced, and
   never taken for "there is no limit".
"""

from __future__ import annotations

import contextlib
import functools
import math
import sqlite3
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from leasehold.embedded.file import LedgerFile
from leasehold.embedded.identity import Process, lives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_LIMIT: Final = "id, name, size, active, used, denied, decay, used_at, created, updated"
_WHOSE: Final = "id, boot, namespace, pid, started"
_HELD_BY: Final = (
    f"SELECT {_LIMIT} FROM limits"
    " WHERE id IN (SELECT limit_id FROM lease_limits WHERE lease_id = ?)"
)


@dataclass(slots=True)
class Limit:
    """A row of the table of limits."""

    id: str
    name: str
    size: int
    active: bool
    used: int
    denied: int
    decay: float
    used_at: float
    created: float
    updated: float

    def used_now(self, now: float) -> int:
        """The slots in use, after decay."""
        return self.decayed(now)[0]

    def decayed(self, now: float) -> tuple[int, float]:
        """The slots in use, and since when the next one is on its way out.

        The part of a slot that has decayed already is kept: otherwise many small takings would
        decay more slowly than one. A clock that was set back starts the next slot anew.
        """
        if not self.decay or now < self.used_at:
            return self.used, now
        gone = self.decay * (now - self.used_at)
        if gone >= self.used:
            return 0, now
        return self.used - math.floor(gone), self.used_at + math.floor(gone) / self.decay

    def seconds_until_free(self, slots: int, now: float) -> float:
        """How long decay alone takes to make room for `slots`; 0 without decay."""
        if not self.decay:
            return 0.0
        used, since = self.decayed(now)
        return max((used + slots - self.size) / self.decay - (now - since), 0.0)


@dataclass(frozen=True, slots=True)
class Acquired:
    """The outcome of an acquire: which limits exist, and which of them was full, if any."""

    lease_id: str | None
    limits: list[Limit]
    full: Limit | None = None


class Ledger:
    """One ledger file.

    Example:
        >>> ledger = Ledger(Path("ledger.db"))          # doctest: +SKIP
        >>> ledger.create("tag:database", 3)

    Args:
        path: the file; it and its folder are made, private to the user, when they are missing.
        now: the clock, in seconds. Wall-clock time, because it outlives reboots.
        lives: says whether a process certainly lives, or has ended; None: it cannot be known.

    Raises:
        LedgerError: from every method, when the file cannot be used.
        LedgerBusyError: from every method, when others write for too long.
    """

    def __init__(
        self,
        path: Path,
        *,
        now: Callable[[], float] = time.time,
        lives: Callable[[Process], bool | None] = lives,
    ) -> None:
        self.path = path
        self.now = now
        self._lives = lives
        self._file = LedgerFile(path)

    def close(self) -> None:
        """Close this process's connection."""
        self._file.close()

    # -- limits

    def create(self, name: str, size: int, **values: Any) -> Limit | None:
        """Make a limit; None when the name is taken."""
        with self._writing() as (db, now):
            row = (
                str(uuid.uuid4()),
                name,
                size,
                int(values.get("active", True)),
                values.get("active_slots", 0),
                values.get("denied_slots", 0),
                float(values.get("slot_decay_per_second", 0.0)),
                now,
                now,
                now,
            )
            made = db.execute(
                f"INSERT OR IGNORE INTO limits ({_LIMIT}) VALUES (?,?,?,?,?,?,?,?,?,?)", row
            )
            return self._find(db, name) if made.rowcount else None

    def read(self, id_or_name: str) -> Limit | None:
        """Find a limit by id or name, its counter up to date."""
        with self._writing() as (db, now):
            self._expire(db, now)
            limit = self._find(db, id_or_name)
            if limit is not None and self._bury(db, [limit], now):
                limit = self._find(db, id_or_name)
            return limit

    def list_limits(self, limit: int, offset: int, prefix: str = "") -> list[Limit]:
        """List limits by name, their counters up to date."""
        with self._writing() as (db, now):
            self._expire(db, now)
            rows = self._rows(
                db,
                f"SELECT {_LIMIT} FROM limits WHERE substr(name, 1, ?) = ? ORDER BY name"
                " LIMIT ? OFFSET ?",
                (len(prefix), prefix, limit, offset),
            )
            if self._bury(db, rows, now):
                return [row for old in rows if (row := self._find(db, old.id)) is not None]
            return rows

    def update(self, id_or_name: str, **values: Any) -> bool | None:
        """Change a limit; False when there is none, None when the new name is taken."""
        columns = {
            "name": "name",
            "limit": "size",
            "active": "active",
            "active_slots": "used",
            "denied_slots": "denied",
            "slot_decay_per_second": "decay",
        }
        changes = {columns[key]: value for key, value in values.items() if value is not None}
        with self._writing() as (db, now):
            found = self._find(db, id_or_name)
            if found is None:
                return False
            if "used" in changes or "decay" in changes:
                changes.setdefault("used", found.used_now(now))
                changes["used_at"] = now
            changes["updated"] = now
            assignments = ", ".join(f"{column} = ?" for column in changes)
            try:
                db.execute(
                    f"UPDATE limits SET {assignments} WHERE id = ?", (*changes.values(), found.id)
                )
            except sqlite3.IntegrityError:
                return None
            return True

    def delete(self, id_or_name: str) -> bool:
        """Remove a limit; False when there is none. Leases on it live on, and hold one less."""
        with self._writing() as (db, _):
            found = self._find(db, id_or_name)
            if found is None:
                return False
            db.execute("DELETE FROM lease_limits WHERE limit_id = ?", (found.id,))
            db.execute("DELETE FROM limits WHERE id = ?", (found.id,))
            return True

    def reset(self, name: str, holders: Sequence[str], seconds: float) -> bool:
        """Revoke all leases on a limit, then give one to each of `holders`."""
        with self._writing() as (db, now):
            found = self._find(db, name)
            if found is None:
                return False
            self._revoke(db, self._leases_on(db, found.id), now)
            db.execute(
                "UPDATE limits SET used = ?, used_at = ? WHERE id = ?",
                (len(holders), now, found.id),
            )
            for holder in holders:
                self._lease(db, [found], 1, ("task_run", holder), seconds, None, now)
            return True

    # -- slots

    def acquire(
        self,
        names: Sequence[str],
        slots: int,
        *,
        seconds: float | None,
        holder: tuple[str, str] | None = None,
        process: Process | None = None,
        check: Callable[[list[Limit]], None] | None = None,
    ) -> Acquired:
        """Take slots on all limits in `names` that exist and are active, or on none.

        Args:
            names: the limits.
            slots: how many on each.
            seconds: the lease's duration; None: take the slots without a lease.
            holder: type and id, to be listed.
            process: with whom the lease lives and dies; None: nobody, expiry alone decides.
            check: may raise, after looking at the limits, before anything is taken.
        """
        with self._writing() as (db, now):
            self._expire(db, now)
            limits = self._named(db, names)
            if check is not None:
                check(limits)
            full = self._first_full(limits, slots, now)
            if full is not None and self._bury(db, limits, now):
                limits = self._named(db, names)
                full = self._first_full(limits, slots, now)
            if full is not None:
                if full.used_at > now:  # the clock was set back; decay must not wait for it
                    self._count(db, full, 0, now)
                return Acquired(None, limits, full)
            counted = [limit for limit in limits if limit.active]
            for limit in counted:
                self._count(db, limit, slots, now)
            lease_id = None
            if seconds is not None:
                lease_id = self._lease(db, counted, slots, holder, seconds, process, now)
            return Acquired(lease_id, limits)

    def give_back(self, names: Sequence[str], slots: int) -> list[Limit]:
        """Lower counters without a lease; gives the limits."""
        with self._writing() as (db, now):
            limits = self._named(db, names)
            for limit in limits:
                if limit.active:
                    self._count(db, limit, -slots, now)
            return limits

    def release(self, lease_id: str) -> None:
        """End a lease and lower the counters; an unknown one changes nothing."""
        with self._writing() as (db, now):
            self._revoke(db, [lease_id], now)

    def release_holder(self, names: Sequence[str], holder_id: str) -> list[Limit]:
        """End every lease of a holder on the named limits; gives the limits."""
        with self._writing() as (db, now):
            limits = self._named(db, names)
            for limit in limits:
                ids = self._column(
                    db,
                    "SELECT lease_id FROM lease_limits JOIN leases ON lease_id = id"
                    " WHERE limit_id = ? AND holder_id = ?",
                    (limit.id, holder_id),
                )
                self._revoke(db, ids, now)
            return limits

    def renew(self, lease_id: str, seconds: float) -> bool:
        """Let a lease live for `seconds` from now; False when there is none."""
        with self._writing() as (db, now):
            self._expire(db, now)
            renewed = db.execute(
                "UPDATE leases SET expires = ? WHERE id = ?", (now + seconds, lease_id)
            )
            return bool(renewed.rowcount)

    def holders(self, limit_id: str) -> list[tuple[str | None, str | None]]:
        """List type and id of a limit's holders, the oldest first."""
        with self._writing() as (db, _):
            return db.execute(
                "SELECT holder_type, holder_id FROM lease_limits JOIN leases ON lease_id = id"
                " WHERE limit_id = ? ORDER BY created",
                (limit_id,),
            ).fetchall()

    # -- inside a transaction

    @staticmethod
    def _rows(db: sqlite3.Connection, query: str, values: Sequence[Any]) -> list[Limit]:
        return [Limit(*row) for row in db.execute(query, values)]

    @staticmethod
    def _column(db: sqlite3.Connection, query: str, values: Sequence[Any]) -> list[Any]:
        return [row[0] for row in db.execute(query, values)]

    def _find(self, db: sqlite3.Connection, id_or_name: str) -> Limit | None:
        query = f"SELECT {_LIMIT} FROM limits WHERE name = ? OR id = ?"
        return next(iter(self._rows(db, query, (id_or_name, id_or_name))), None)

    def _named(self, db: sqlite3.Connection, names: Sequence[str]) -> list[Limit]:
        marks = ",".join("?" * len(names))
        query = f"SELECT {_LIMIT} FROM limits WHERE name IN ({marks}) ORDER BY name"
        return self._rows(db, query, tuple(names))

    def _leases_on(self, db: sqlite3.Connection, limit_id: str) -> list[str]:
        return self._column(db, "SELECT lease_id FROM lease_limits WHERE limit_id = ?", (limit_id,))

    @staticmethod
    def _first_full(limits: list[Limit], slots: int, now: float) -> Limit | None:
        return next(
            (one for one in limits if one.active and one.used_now(now) + slots > one.size), None
        )

    @staticmethod
    def _count(db: sqlite3.Connection, limit: Limit, change: int, now: float) -> None:
        used, since = limit.decayed(now)
        db.execute(
            "UPDATE limits SET used = ?, used_at = ? WHERE id = ?",
            (max(0, used + change), since, limit.id),
        )

    @staticmethod
    def _lease(
        db: sqlite3.Connection,
        limits: list[Limit],
        slots: int,
        holder: tuple[str, str] | None,
        seconds: float,
        process: Process | None,
        now: float,
    ) -> str:
        lease_id = str(uuid.uuid4())
        db.execute(
            "INSERT INTO leases VALUES (?,?,?,?,?,?,?,?,?,?)",
            (
                lease_id,
                slots,
                *(holder or (None, None)),
                now,
                now + seconds,
                *(process or Process("", "", 0, "")),
            ),
        )
        db.executemany(
            "INSERT INTO lease_limits VALUES (?,?)", [(limit.id, lease_id) for limit in limits]
        )
        return lease_id

    def _revoke(self, db: sqlite3.Connection, lease_ids: Sequence[str], now: float) -> None:
        """End leases, and lower the counters of what they hold, active or not by now (rule 1)."""
        for lease_id in lease_ids:
            for slots in self._column(db, "SELECT slots FROM leases WHERE id = ?", (lease_id,)):
                for limit in self._rows(db, _HELD_BY, (lease_id,)):
                    self._count(db, limit, -slots, now)
            db.execute("DELETE FROM lease_limits WHERE lease_id = ?", (lease_id,))
            db.execute("DELETE FROM leases WHERE id = ?", (lease_id,))

    def _expire(self, db: sqlite3.Connection, now: float) -> None:
        """Give back what has expired, but for what processes hold that certainly live (rule 4)."""
        expired = db.execute(f"SELECT {_WHOSE} FROM leases WHERE expires <= ?", (now,)).fetchall()
        if expired:
            self._revoke(db, [one for one, alive in self._look_at(expired) if not alive], now)

    def _bury(self, db: sqlite3.Connection, limits: list[Limit], now: float) -> bool:
        """Give back what processes that have ended hold of these limits (rule 3)."""
        held = [
            row
            for limit in limits
            for row in db.execute(
                f"SELECT {_WHOSE} FROM lease_limits JOIN leases ON lease_id = id"
                " WHERE limit_id = ? AND pid != 0",
                (limit.id,),
            )
        ]
        lost = [one for one, alive in self._look_at(held) if alive is False]
        self._revoke(db, lost, now)
        return bool(lost)

    def _look_at(self, rows: list[tuple[Any, ...]]) -> Iterator[tuple[str, bool | None]]:
        """Say of each lease whether its process lives, after one look at each process."""
        lives = functools.cache(self._lives)
        for lease_id, *who in rows:
            yield lease_id, lives(Process(*who))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[tuple[sqlite3.Connection, float]]:
        """Open a transaction, and read the clock once for all of it."""
        with self._file.writing() as db:
            yield db, self.now()
