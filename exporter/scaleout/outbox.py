"""The requests that wait to be sent: on disk, and in memory while the disk cannot be used.

Nothing here raises because of the disk: `problem` says what is wrong with it.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TypeVar

from exporter.scaleout import rows
from exporter.scaleout.clock import Clock
from exporter.scaleout.disk import Disk, NoDiskError
from exporter.scaleout.records import Change, Firing, Row
from exporter.scaleout.rows import OutboxFullError
from exporter.scaleout.store import Store

T = TypeVar("T")
U = TypeVar("U")

TEND_SECONDS = 10.0  # between two looks at the disk, and two attempts to use it again
PRUNE_SECONDS = 600.0


class Recorded(Enum):
    """Where a decision was written."""

    DISK = "disk"
    MEMORY = "memory"
    NOWHERE = "nowhere"  # too much is pending


class OutboxUnavailableError(Exception):
    """The disk took no request, or gave none."""


class Outbox:
    """Rows by event id and target. Every thread may use it.

    A row that is in memory counts, and not what the disk may still hold of it.

    Attributes:
        revision: Another number whenever rows may have changed.
    """

    def __init__(self, folder: Path | None, clock: Clock) -> None:
        """Open the outbox of a folder; None for one that lives in memory alone."""
        self.revision = 0
        self._revisions = itertools.count(1)
        self._clock = clock
        self._memory = Store(None, clock)
        self._disk = Disk(folder, clock, self._hold)
        self._version: int | None = None
        self._tended_at = self._pruned_at = clock.since_boot()

    @property
    def problem(self) -> str:
        """Why not everything is on disk; "" if it is."""
        in_memory = "some requests are in memory alone" if self._in_memory() else ""
        return self._disk.problem or in_memory

    def close(self) -> None:
        """Close it. Rows on disk stay there; whoever comes now gets sqlite3.ProgrammingError."""
        self._disk.close()
        self._memory.close()

    def record(self, changes: Sequence[Change], firing: Firing | None = None) -> Recorded:
        """Write decisions, and what fires: all of it, or nothing and NOWHERE."""
        now = self._clock.since_boot()

        def work(db: sqlite3.Connection) -> None:
            rows.record(db, changes, now)
            if firing is not None:
                rows.set_firing(db, firing)

        try:
            self._disk.write(work)
            recorded = Recorded.DISK
            if self._in_memory():
                with self._memory.writing() as db:
                    for row in (row for change in changes for row in change.rows):
                        rows.supersede(db, row, now)
        except OutboxFullError:
            recorded = Recorded.NOWHERE
        except NoDiskError:
            recorded = self._record_in_memory(work)
        self._touch()
        return recorded

    def next_row(self, target: str) -> Row | None:
        """Return the row of a target that is due first, now or later.

        Raises:
            OutboxUnavailableError: The disk does not tell now.
        """
        with self._memory.reading() as db:
            found = rows.next_of(db, target, 1)
            held = rows.names(db)
        try:
            on_disk = self._disk.read(lambda db: rows.next_of(db, target, len(held) + 1))
        except NoDiskError:
            if self._disk.is_open:
                raise OutboxUnavailableError(self.problem) from None
        else:
            found += [row for row in on_disk if (row.event_id, row.target) not in held]
        return min(found, key=lambda row: row.next_at, default=None)

    def update(self, row: Row) -> None:
        """Write what has changed of a row."""
        with self._memory.writing() as db:
            is_held = rows.update(db, row) > 0
        if not is_held:
            try:
                self._disk.write(lambda db: rows.update(db, row))
            except NoDiskError:
                self._hold([row])
        self._touch()

    def end_strangers(self, targets: Collection[str]) -> list[str]:
        """End what is pending for targets that are not configured; return those."""
        now = self._clock.since_boot()
        with self._memory.writing() as db:
            strangers = rows.end_strangers(db, targets, now)
        with suppress(NoDiskError):
            strangers += self._disk.write(lambda db: rows.end_strangers(db, targets, now))
        self._touch()
        return sorted(set(strangers))

    def ask(self, question: Callable[[sqlite3.Connection], T], otherwise: U) -> T | U:
        """Return the disk's answer to a question; `otherwise` if it gives none."""
        try:
            return self._disk.read(question)
        except NoDiskError:
            return otherwise

    def waiting(self, otherwise: set[str]) -> set[str]:
        """Return the targets that something is pending for; `otherwise` too if that is unknown."""
        with self._memory.reading() as db:
            held = rows.waiting(db)
        return held | self.ask(rows.waiting, otherwise)

    def counts(self) -> dict[str, int] | None:
        """Return how many rows there are in each state that has any; None if that is unknown."""
        with self._memory.reading() as db:
            total, held = rows.counts(db), rows.names(db)
        try:
            total += self._disk.read(lambda db: rows.counts(db, without=held))
        except NoDiskError:
            if self._disk.is_open:
                return None
        return dict(total)

    def changed(self) -> bool:
        """Return whether another process may have written since the last call."""
        version = self._disk.version()
        if version is None or version == self._version:
            return False
        self._version = version
        self._touch()
        return True

    def tend(self) -> bool:
        """Do, now and then, what keeps the outbox well; return whether it opened a file."""
        now = self._clock.since_boot()
        if now - self._tended_at < TEND_SECONDS:
            return False
        self._tended_at = now
        self._disk.check()
        opened = self._disk.open()
        if self.problem and self._disk.is_open:
            self._bring_home()
        if now - self._pruned_at >= PRUNE_SECONDS:
            self._pruned_at = now
            with self._memory.writing() as db:
                rows.prune(db, now)
            with suppress(NoDiskError):
                self._disk.write(lambda db: rows.prune(db, now))
            self._touch()
        return opened

    def _record_in_memory(self, work: Callable[[sqlite3.Connection], None]) -> Recorded:
        try:
            with self._memory.writing() as db:
                work(db)
        except (OutboxFullError, sqlite3.OperationalError):
            return Recorded.NOWHERE
        return Recorded.MEMORY

    def _hold(self, held: list[Row]) -> None:
        """Keep rows in memory, but for those that are there already."""
        with self._memory.writing() as db:
            known = rows.names(db)
            rows.insert(db, [row for row in held if (row.event_id, row.target) not in known])

    def _bring_home(self) -> None:
        """Write to the disk what is in memory alone; what changes meanwhile stays there."""
        with self._memory.reading() as db:
            content = rows.dump(db)
        with suppress(NoDiskError):
            self._disk.write(lambda db: rows.load(db, content))
            with self._memory.writing() as db:
                rows.forget(db, content)
        self._touch()

    def _in_memory(self) -> bool:
        with self._memory.reading() as db:
            return bool(rows.names(db))

    def _touch(self) -> None:
        self.revision = next(self._revisions)
