"""One SQLite database of requests and of what limits them: the schema, and safe transactions.

Times are seconds since boot (see `Clock`); only `created`, `started` and `fired` are seconds since
the epoch. The anchor in `meta` ties the two together, so that who opens the file first after a
reboot can translate.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.scaleout.clock import Clock

SCHEMA_VERSION = 1
BUSY_SECONDS = 0.05  # how long a lock, of this process or another, is waited for
MEMORY_SECONDS = 60.0  # the same for a database in memory
MAX_PAGES = 4096  # of 4 KiB

SCHEMA = """
CREATE TABLE meta(schema_version INTEGER NOT NULL, boot TEXT NOT NULL, wall REAL NOT NULL,
  since_boot REAL NOT NULL);
CREATE TABLE outbox(seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL,
  target TEXT NOT NULL, kind TEXT NOT NULL, action TEXT NOT NULL, group_key TEXT NOT NULL,
  dedupe_key TEXT NOT NULL, body BLOB NOT NULL, plan TEXT, created REAL NOT NULL,
  deadline REAL NOT NULL, next_at REAL NOT NULL, attempts INTEGER NOT NULL, state TEXT NOT NULL,
  last_status INTEGER, last_error TEXT NOT NULL, done_at REAL, UNIQUE(event_id, target));
CREATE INDEX pending ON outbox(target, action, group_key, seq) WHERE state = 'pending';
CREATE TABLE cooldown(action TEXT NOT NULL, group_key TEXT NOT NULL, until REAL NOT NULL,
  PRIMARY KEY(action, group_key)) WITHOUT ROWID;
CREATE TABLE fired(event_id TEXT PRIMARY KEY, action TEXT NOT NULL, group_key TEXT NOT NULL,
  fired_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE announced(action TEXT NOT NULL, group_key TEXT NOT NULL, rule TEXT NOT NULL,
  scale_group TEXT NOT NULL, event_id TEXT NOT NULL, fired_at REAL NOT NULL,
  PRIMARY KEY(action, group_key, rule, scale_group)) WITHOUT ROWID;
CREATE TABLE firing(rule TEXT NOT NULL, series TEXT NOT NULL, scale_group TEXT NOT NULL,
  started REAL NOT NULL, fired REAL NOT NULL, PRIMARY KEY(rule, series)) WITHOUT ROWID;
CREATE TABLE pause(reason TEXT NOT NULL, since REAL NOT NULL, until REAL NOT NULL);
"""
TIMES = (
    ("outbox", "deadline"),
    ("outbox", "next_at"),
    ("outbox", "done_at"),
    ("cooldown", "until"),
    ("fired", "fired_at"),
    ("announced", "fired_at"),
    ("pause", "since"),
    ("pause", "until"),
)


class NotOursError(sqlite3.DatabaseError):
    """A database with other tables than these."""


class NewerSchemaError(Exception):
    """The file belongs to a newer version of this program: it is left as it is."""


class BusyError(sqlite3.OperationalError):
    """Another thread has the connection, and the disk is slow."""


class Store:
    """A database in a file, or in memory. Every thread may use it."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        """Open, check and if need be create it.

        Raises:
            sqlite3.Error: It cannot be used.
            NewerSchemaError: It must not be touched.
        """
        self._clock = clock
        # In memory nothing is slow, but whoever has the connection may not get the processor.
        self._patience_seconds = MEMORY_SECONDS if path is None else BUSY_SECONDS
        self._lock = threading.RLock()
        self._db = sqlite3.connect(
            ":memory:" if path is None else path,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                "journal_size_limit = 1048576",
                f"max_page_count = {MAX_PAGES}",
                "cache_size = -256",
            ):
                self._db.execute(f"PRAGMA {pragma}")
            self._check()
            self._translate()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close it. Whoever uses it after that gets a sqlite3.ProgrammingError."""
        with self._lock:
            self._db.close()

    @contextmanager
    def reading(self, patience_seconds: float | None = None) -> Iterator[sqlite3.Connection]:
        """Give the connection, for reading; wait for it no longer than `patience_seconds`.

        Raises:
            BusyError: Another thread has it for too long.
        """
        if patience_seconds is None:
            patience_seconds = self._patience_seconds
        if not self._lock.acquire(timeout=patience_seconds):
            raise BusyError("another thread waits for the disk")
        try:
            yield self._db
        finally:
            self._lock.release()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give the connection within a transaction: all of it is committed, or nothing is.

        Raises:
            sqlite3.Error: Nothing was committed.
        """
        with self.reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("UPDATE meta SET boot = ?, wall = ?, since_boot = ?", self._anchor())
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # a full disk has already rolled it back
                    db.execute("ROLLBACK")
                raise

    def version(self) -> int:
        """Return a number that changes when another process changes the file."""
        with self.reading(patience_seconds=0.0) as db:
            version: int = db.execute("PRAGMA data_version").fetchone()[0]
            return version

    def _anchor(self) -> tuple[str, float, float]:
        return self._clock.boot, self._clock.wall(), self._clock.since_boot()

    def _check(self) -> None:
        names = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master")}
        if not names:
            with self.writing() as db:
                for statement in SCHEMA.split(";\n"):
                    db.execute(statement)
                db.execute("INSERT INTO meta VALUES(?, ?, ?, ?)", (SCHEMA_VERSION, *self._anchor()))
            return
        if "meta" not in names:
            raise NotOursError("not an outbox")
        ((version,),) = self._db.execute("SELECT schema_version FROM meta")
        if version > SCHEMA_VERSION:
            raise NewerSchemaError(f"its schema {version} is newer than {SCHEMA_VERSION}")
        ((verdict,),) = self._db.execute("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)

    def _translate(self) -> None:
        """Bring times of an earlier boot into this one's, by what the wall clock says has passed.

        Less than nothing never passes: if the clock was set back, the time between was none.
        """
        ((boot, wall, since_boot),) = self._db.execute("SELECT boot, wall, since_boot FROM meta")
        if boot == self._clock.boot != "":
            return
        passed = max(self._clock.wall() - wall, 0.0)
        shift = self._clock.since_boot() - since_boot - passed
        with self.writing() as db:
            for table, column in TIMES:
                # Table and column are constants of this module.
                db.execute(f"UPDATE {table} SET {column} = {column} + ?", (shift,))  # noqa: S608
