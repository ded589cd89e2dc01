"""The outbox's file: one daemon's at a time, moved aside when damaged, made anew when gone."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from exporter.scaleout import rows
from exporter.scaleout.clock import Clock
from exporter.scaleout.records import Row
from exporter.scaleout.store import BusyError, NewerSchemaError, Store

log = logging.getLogger(__name__)

T = TypeVar("T")

FILE = "outbox.db"
LOCK_FILE = "outbox.lock"
COMPANIONS = ("-wal", "-shm")
DAMAGED_KEPT = 3


class NoDiskError(Exception):
    """The file cannot be used now."""


class _ClaimedError(Exception):
    """Another daemon has the folder."""


class Disk:
    """The file, as far as there is one. Nothing but NoDiskError is raised because of it.

    Attributes:
        problem: Why it was last of no use; "" once it is again.
    """

    def __init__(
        self, folder: Path | None, clock: Clock, salvage: Callable[[list[Row]], None]
    ) -> None:
        """Open the file of a folder, if one is given.

        Args:
            folder: Where it is, or is made.
            clock: For times that an earlier boot has left there.
            salvage: Takes what is pending in a file that has to be let go of.
        """
        self.problem = ""
        self._folder = folder
        self._clock = clock
        self._salvage = salvage
        self._claim: int | None = None
        self._store: Store | None = None
        self._inode = 0
        self.open()

    @property
    def is_open(self) -> bool:
        """Whether there is a file."""
        return self._store is not None

    def open(self) -> bool:
        """Open the file if it is not; return whether it was opened just now."""
        if self._store is not None:
            return False
        if self._folder is None:
            self._note("there is no storage path")
            return False
        try:
            if self._claim is None:
                self._claim = _claim(self._folder)
            self._store = _open_store(self._folder, self._clock)
            self._inode = (self._folder / FILE).stat().st_ino
        except (OSError, sqlite3.Error, NewerSchemaError, _ClaimedError) as error:
            self._note(f"{self._folder / FILE} cannot be used: {error}")
            return False
        self._note("")
        return True

    def close(self) -> None:
        """Close the file for good."""
        if self._store is not None:
            self._store.close()
        claim, self._claim = self._claim, None
        if claim is not None:
            os.close(claim)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a question to the database gives.

        Raises:
            NoDiskError: It gives no answer now.
        """
        store = self._store
        if store is None:
            raise NoDiskError
        try:
            with store.reading() as db:
                return work(db)
        except BusyError as busy:
            raise NoDiskError from busy
        except sqlite3.Error as error:
            self._failed(error)
            raise NoDiskError from error

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something in one transaction.

        Raises:
            NoDiskError: Nothing was committed.
        """
        store = self._store
        if store is None:
            raise NoDiskError
        try:
            done = _in_transaction(store, work)
        except sqlite3.Error as error:
            self._failed(error)
            raise NoDiskError from error
        self._note("")
        return done

    def version(self) -> int | None:
        """Return what changes when another process writes; None if that is unknown now."""
        store = self._store
        try:
            return None if store is None else store.version()
        except sqlite3.Error:
            return None

    def check(self) -> None:
        """Let go of a file that was deleted or replaced under us."""
        if self._store is None or self._folder is None:
            return
        try:
            inode = (self._folder / FILE).stat().st_ino
        except OSError:
            inode = 0
        if inode != self._inode:
            self._note(f"{self._folder / FILE} was removed")
            self._let_go()

    def _failed(self, error: sqlite3.Error) -> None:
        if self._folder is None or isinstance(error, sqlite3.ProgrammingError):
            return  # closed by another thread
        self._note(f"{self._folder / FILE} cannot be used: {error}")
        if _is_damage(error):
            self._let_go()
            with suppress(OSError):
                _move_aside(self._folder / FILE)

    def _let_go(self) -> None:
        store, self._store = self._store, None
        if store is None:
            return
        with suppress(sqlite3.Error):
            with store.reading() as db:
                pending = rows.in_state(db, "pending")
            self._salvage(pending)
        store.close()

    def _note(self, problem: str) -> None:
        if problem == self.problem:
            return
        if problem:
            log.error("%s; requests are kept in memory alone", problem)
        else:
            log.info("the outbox is on disk again")
        self.problem = problem


def _in_transaction(store: Store, work: Callable[[sqlite3.Connection], T]) -> T:
    """Do the work; if there is no space, again after all that has ended made room."""
    try:
        with store.writing() as db:
            return work(db)
    except sqlite3.OperationalError as error:
        if "full" not in str(error):
            raise
    with store.writing() as db:
        rows.make_room(db)
    with store.writing() as db:
        return work(db)


def _claim(folder: Path) -> int:
    """Make the folder ours until the returned file descriptor is closed, or the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise _ClaimedError(f"another daemon uses {folder}") from None
    return descriptor


def _open_store(folder: Path, clock: Clock) -> Store:
    """Open the database, an empty one in place of one that is damaged."""
    path = folder / FILE
    # SQLite would leave it readable by others; its companions take over this mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    try:
        return Store(path, clock)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        log.error("%s is damaged (%s); starting with an empty one", path, error)
        _move_aside(path)
        return _open_store(folder, clock)


def _is_damage(error: sqlite3.Error) -> bool:
    """Return whether the file's content is wrong, so that no patience would help."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.OperationalError | sqlite3.ProgrammingError
    )


def _move_aside(path: Path) -> None:
    """Rename a database to `<name>.corrupt-<time>`, and keep only the latest of those."""
    aside = path.with_name(f"{path.name}.corrupt-{time.time_ns() // 1_000_000}")
    path.rename(aside)
    for suffix in COMPANIONS:
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(aside.with_name(aside.name + suffix))
    names = sorted(p.name for p in path.parent.glob(f"{path.name}.corrupt-*"))
    databases = [name for name in names if not name.endswith(COMPANIONS)]
    for old in databases[:-DAMAGED_KEPT]:
        for suffix in ("", *COMPANIONS):
            path.with_name(old + suffix).unlink(missing_ok=True)
