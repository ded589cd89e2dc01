"""What the outbox's database holds, and every statement that is said about it. Times as there."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple, fields

from exporter.scaleout.records import (
    REQUESTED,
    RESOLVED,
    Change,
    Firing,
    Key,
    Limits,
    Pause,
    Row,
)

MAX_PENDING = 1000
MAX_ENDED = 1000  # rows kept of each sort
DONE_KEPT_SECONDS = 24 * 3600.0
DEAD_KEPT_SECONDS = 7 * 24 * 3600.0
FIRED_KEPT_SECONDS = 3600.0

DEAD = "state IN ('dead', 'expired')"
DONE = "state NOT IN ('pending', 'dead', 'expired')"

COLUMNS = ", ".join(field.name for field in fields(Row))
PLACES = ", ".join("?" for _ in fields(Row))
# In its group, a request waits for those before it: what is resolved was requested first.
NEXT = f"""SELECT {COLUMNS} FROM outbox AS o WHERE state = 'pending' AND target = ?
 AND NOT EXISTS (SELECT 1 FROM outbox AS e WHERE e.state = 'pending' AND e.target = o.target
 AND e.action = o.action AND e.group_key = o.group_key AND e.seq < o.seq)
 ORDER BY next_at, seq LIMIT ?"""  # noqa: S608  the names of our own fields
FORGET = """DELETE FROM outbox WHERE {0} AND (done_at < ? OR seq <= (SELECT seq FROM outbox
 WHERE {0} ORDER BY seq DESC LIMIT 1 OFFSET ?))"""
FORGET_DONE, FORGET_DEAD = FORGET.format(DONE), FORGET.format(DEAD)

LIMIT_TABLES = ("fired", "cooldown", "announced", "firing")

Content = tuple[list[Row], dict[str, list[tuple[object, ...]]]]


class OutboxFullError(Exception):
    """As many requests are pending as may be."""


def insert(db: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Add rows; one that is there already is replaced."""
    statement = f"INSERT OR REPLACE INTO outbox({COLUMNS}) VALUES({PLACES})"
    db.executemany(statement, [astuple(row) for row in rows])


def record(db: sqlite3.Connection, changes: Sequence[Change], now: float) -> None:
    """Write decisions.

    Raises:
        OutboxFullError: Too many are pending.
    """
    for change in changes:
        for row in change.rows:
            supersede(db, row, now)
        insert(db, change.rows)
        _record_limits(db, change, (change.action, change.group_key))
    ((pending,),) = db.execute("SELECT COUNT(*) FROM outbox WHERE state = 'pending'")
    if pending > MAX_PENDING:
        raise OutboxFullError


def _record_limits(db: sqlite3.Connection, change: Change, key: Key) -> None:
    if change.fired is not None:
        event_id, fired_at = change.fired
        fired: tuple[object, ...] = (event_id, *key, fired_at)
        db.execute("INSERT OR REPLACE INTO fired VALUES(?, ?, ?, ?)", fired)
        if change.announced is not None:
            announced = (*key, *change.announced, event_id, fired_at)
            db.execute("INSERT OR REPLACE INTO announced VALUES(?, ?, ?, ?, ?, ?)", announced)
    if change.cooldown_until is not None:
        cooldown = (*key, change.cooldown_until)
        db.execute("INSERT OR REPLACE INTO cooldown VALUES(?, ?, ?)", cooldown)
    if change.withdrawn is not None:
        db.execute(
            "DELETE FROM announced WHERE action = ? AND group_key = ? AND rule = ?"
            " AND scale_group = ?",
            (*key, *change.withdrawn),
        )


def supersede(db: sqlite3.Connection, row: Row, now: float) -> None:
    """End what still waits for the same target and group, so that an outage piles nothing up.

    A request that is resolved is still wanted, so RESOLVED replaces only its like.
    """
    kinds = (RESOLVED,) if row.kind == RESOLVED else (RESOLVED, REQUESTED)
    for kind in kinds:
        db.execute(
            "UPDATE outbox SET state = 'superseded', done_at = ? WHERE state = 'pending'"
            " AND target = ? AND action = ? AND group_key = ? AND kind = ?",
            (now, row.target, row.action, row.group_key, kind),
        )


def find(db: sqlite3.Connection, event_id: str, target: str) -> Row | None:
    """Return one row."""
    statement = f"SELECT {COLUMNS} FROM outbox WHERE event_id = ? AND target = ?"  # noqa: S608  fields
    found = db.execute(statement, (event_id, target)).fetchone()
    return None if found is None else Row(*found)


def next_of(db: sqlite3.Connection, target: str, limit: int) -> list[Row]:
    """Return the rows of a target that may be sent next, the first due one first."""
    return [Row(*values) for values in db.execute(NEXT, (target, limit))]


def waiting(db: sqlite3.Connection) -> set[str]:
    """Return the targets that something is pending for."""
    found = db.execute("SELECT DISTINCT target FROM outbox WHERE state = 'pending'").fetchall()
    return {target for (target,) in found}


def in_state(db: sqlite3.Connection, state: str) -> list[Row]:
    """Return the rows in a state, in their order."""
    statement = f"SELECT {COLUMNS} FROM outbox WHERE state = ? ORDER BY seq"  # noqa: S608  fields
    return [Row(*values) for values in db.execute(statement, (state,))]


def names(db: sqlite3.Connection) -> set[tuple[str, str]]:
    """Return event id and target of all rows."""
    return set(db.execute("SELECT event_id, target FROM outbox").fetchall())


def dump(db: sqlite3.Connection) -> Content:
    """Return everything but the pause, which only the disk holds."""
    select = f"SELECT {COLUMNS} FROM outbox ORDER BY seq"  # noqa: S608  fields
    tables = {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in LIMIT_TABLES}  # noqa: S608  constants
    return [Row(*values) for values in db.execute(select)], tables


def load(db: sqlite3.Connection, content: Content) -> None:
    """Add what `dump` returned; what is there already is replaced."""
    requests, tables = content
    insert(db, requests)
    for name, table in tables.items():
        for values in table:
            places = ", ".join("?" for _ in values)
            db.execute(f"INSERT OR REPLACE INTO {name} VALUES({places})", values)


def forget(db: sqlite3.Connection, content: Content) -> None:
    """Remove what `dump` returned, but for what has changed since."""
    requests, tables = content
    for row in requests:
        if find(db, row.event_id, row.target) == row:
            key = (row.event_id, row.target)
            db.execute("DELETE FROM outbox WHERE event_id = ? AND target = ?", key)
    for name, table in tables.items():
        columns = db.execute(f"SELECT * FROM {name} LIMIT 0").description  # noqa: S608  a constant
        condition = " AND ".join(f"{column} = ?" for column, *_ in columns)
        db.executemany(f"DELETE FROM {name} WHERE {condition}", table)  # noqa: S608  constants


def update(db: sqlite3.Connection, row: Row) -> int:
    """Write what has changed of a row; return how many rows there were of it.

    What was superseded meanwhile is not tried again.
    """
    return db.execute(
        "UPDATE outbox SET plan = ?, attempts = ?, next_at = ?, last_status = ?, last_error = ?,"
        " done_at = COALESCE(?, done_at), state = CASE WHEN ? = 'pending' THEN state ELSE ? END"
        " WHERE event_id = ? AND target = ?",
        (
            *(row.plan, row.attempts, row.next_at, row.last_status, row.last_error),
            *(row.done_at, row.state, row.state),
            *(row.event_id, row.target),
        ),
    ).rowcount


def counts(db: sqlite3.Connection, without: Collection[tuple[str, str]] = ()) -> Counter[str]:
    """Return how many rows there are in each state, some left out by event id and target."""
    found = Counter[str](
        dict(db.execute("SELECT state, COUNT(*) FROM outbox GROUP BY state").fetchall())
    )
    left_out = (find(db, event_id, target) for event_id, target in without)
    found.subtract(row.state for row in left_out if row is not None)
    return +found


def prune(db: sqlite3.Connection, now: float) -> None:
    """Forget what is old, and the oldest of what is too much."""
    db.execute(FORGET_DONE, (now - DONE_KEPT_SECONDS, MAX_ENDED))
    db.execute(FORGET_DEAD, (now - DEAD_KEPT_SECONDS, MAX_ENDED))
    db.execute("DELETE FROM fired WHERE fired_at < ?", (now - FIRED_KEPT_SECONDS,))
    db.execute("DELETE FROM announced WHERE fired_at < ?", (now - DEAD_KEPT_SECONDS,))
    db.execute("DELETE FROM cooldown WHERE until < ?", (now,))


def make_room(db: sqlite3.Connection) -> int:
    """Forget all that has ended; return how many rows that was."""
    return db.execute("DELETE FROM outbox WHERE state != 'pending'").rowcount


def revive(db: sqlite3.Connection, event_id: str | None, now: float, deadline: float) -> int:
    """Make what is dead pending again, all of it or one request; return how many rows."""
    return db.execute(
        "UPDATE outbox SET state = 'pending', next_at = ?, deadline = ?, attempts = 0,"  # noqa: S608  a constant
        f" done_at = NULL WHERE {DEAD} AND (event_id = ? OR ? IS NULL)",
        (now, deadline, event_id, event_id),
    ).rowcount


def purge(db: sqlite3.Connection) -> int:
    """Forget what is dead; return how many rows that was."""
    return db.execute(f"DELETE FROM outbox WHERE {DEAD}").rowcount  # noqa: S608  a constant


def end_strangers(db: sqlite3.Connection, targets: Collection[str], now: float) -> list[str]:
    """End what is pending for targets that are not configured; return those."""
    strangers = sorted(waiting(db) - set(targets))
    for target in strangers:
        db.execute(
            "UPDATE outbox SET state = 'dead', done_at = ?, last_error = 'target not configured'"
            " WHERE state = 'pending' AND target = ?",
            (now, target),
        )
    return strangers


def limits(db: sqlite3.Connection) -> Limits:
    """Return what limits further requests."""
    found = Limits()
    for action, group_key, until in db.execute("SELECT action, group_key, until FROM cooldown"):
        found.cooldown_until[action, group_key] = until
    for action, group_key, at in db.execute("SELECT action, group_key, fired_at FROM fired"):
        found.fired_at.setdefault((action, group_key), []).append(at)
    for action, group_key, rule, scale_group, event_id in db.execute(
        "SELECT action, group_key, rule, scale_group, event_id FROM announced"
    ):
        found.announced[(action, group_key), (rule, scale_group)] = event_id
    return found


def firing(db: sqlite3.Connection) -> Firing:
    """Return what fired when that was last written."""
    columns = "rule, series, scale_group, started, fired"
    return {
        (rule, series): (scale_group, started, fired)
        for rule, series, scale_group, started, fired in db.execute(f"SELECT {columns} FROM firing")  # noqa: S608  a constant
    }


def set_firing(db: sqlite3.Connection, firing: Firing) -> None:
    """Replace what fires."""
    db.execute("DELETE FROM firing")
    values = [(*key, *value) for key, value in firing.items()]
    db.executemany("INSERT INTO firing VALUES(?, ?, ?, ?, ?)", values)


def last_delivered(db: sqlite3.Connection) -> dict[str, float]:
    """Return when each target last took a request."""
    return dict(
        db.execute(
            "SELECT target, MAX(done_at) FROM outbox WHERE state = 'delivered' GROUP BY target"
        ).fetchall()
    )


def paused(db: sqlite3.Connection) -> Pause | None:
    """Return the pause that was ordered last, also if it is over."""
    found = db.execute("SELECT reason, since, until FROM pause").fetchone()
    return None if found is None else Pause(*found)


def set_pause(db: sqlite3.Connection, pause: Pause | None) -> None:
    """Replace the pause, or end it."""
    db.execute("DELETE FROM pause")
    if pause is not None:
        db.execute("INSERT INTO pause VALUES(?, ?, ?)", astuple(pause))
