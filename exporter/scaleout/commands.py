"""What `gpu-node-exporter scale-out ...` does, beside a running daemon, on its outbox."""

from __future__ import annotations

import json
import os
import pwd
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.config import Config
from exporter.scaleout import message, rows
from exporter.scaleout.clock import Clock, rfc3339
from exporter.scaleout.model import Attempt, Delivery, EventKind, Outcome, RuleEvent
from exporter.scaleout.pausing import FILE as PAUSE_FILE
from exporter.scaleout.pausing import MAX_SECONDS, PauseFile
from exporter.scaleout.receivers import Place, Target, targets
from exporter.scaleout.records import REQUESTED, Pause, Row
from exporter.scaleout.store import NewerSchemaError, Store
from exporter.schema import as_duration

DATABASE = "outbox.db"
SHOWN = 20  # requests of each sort
RETRY_SECONDS = 600.0  # for which a request that was dead is tried
GOOD = frozenset({Outcome.DELIVERED, Outcome.DEDUPLICATED, Outcome.DRY_RUN, Outcome.SUPPRESSED})


class CommandError(Exception):
    """Why a command did nothing, in one line."""


def status(storage: Path, clock: Clock) -> str:
    """Return how the outbox stands: pause, cooldowns, and what is pending or dead.

    Raises:
        CommandError: There is no outbox to be read.
    """
    now = clock.since_boot()
    by_file = PauseFile(storage, clock).look()
    with _opened(storage, clock) as store, store.reading() as db:
        counts = rows.counts(db)
        lines = [
            *_pause_lines("pause", rows.paused(db), now),
            *_pause_lines(f"file {storage / PAUSE_FILE}", by_file, now),
        ] or ["not paused"]
        lines.append(", ".join(f"{n} {state}" for state, n in sorted(counts.items())) or "empty")
        for (action, group), until in sorted(rows.limits(db).cooldown_until.items()):
            if until > now:
                lines.append(f"cooldown of {action} {group}: {_for(until - now)} more")
        for state in ("pending", "expired", "dead"):
            found = rows.in_state(db, state)
            lines += [_row_line(row, now) for row in found[-SHOWN:]]
            if len(found) > SHOWN:
                lines.append(f"... and {len(found) - SHOWN} more that are {state}")
    return "\n".join(lines) + "\n"


def pause(storage: Path, clock: Clock, *, seconds: float, reason: str) -> str:
    """Hold new requests back for a while. What is pending is still delivered.

    Raises:
        CommandError: The time is not sensible, or there is no outbox.
    """
    if not 0 < seconds <= MAX_SECONDS:
        raise CommandError(f"a pause lasts from 1ms to {as_duration(MAX_SECONDS)}")
    now = clock.since_boot()
    text = f"{reason or 'no reason given'} (by {_who()})"
    with _opened(storage, clock) as store, store.writing() as db:
        rows.set_pause(db, Pause(text, now, now + seconds))
    return f"paused until {rfc3339(clock.wall() + seconds)}\n"


def resume(storage: Path, clock: Clock) -> str:
    """End a pause.

    Raises:
        CommandError: There is no outbox.
    """
    with _opened(storage, clock) as store, store.writing() as db:
        rows.set_pause(db, None)
    if PauseFile(storage, clock).look() is not None:
        return f"resumed, but the file {storage / PAUSE_FILE} pauses too; remove it\n"
    return "resumed\n"


def retry(storage: Path, clock: Clock, event_id: str | None) -> str:
    """Try dead and expired requests again, as if they were new; None: all of them.

    Raises:
        CommandError: There is nothing to be tried again.
    """
    now = clock.since_boot()
    with _opened(storage, clock) as store, store.writing() as db:
        revived = rows.revive(db, event_id, now, now + RETRY_SECONDS)
        if not revived:
            raise CommandError(
                "nothing is dead" if event_id is None else f"no request {event_id} is dead"
            )
    return f"{revived} to be tried again, for {as_duration(RETRY_SECONDS)}\n"


def purge(storage: Path, clock: Clock) -> str:
    """Forget dead and expired requests.

    Raises:
        CommandError: There is no outbox.
    """
    with _opened(storage, clock) as store, store.writing() as db:
        return f"{rows.purge(db)} forgotten\n"


def test(config: Config, receiver: str, place: Place, clock: Clock, *, dry_run: bool) -> str:
    """Send a made-up request to each target of a receiver, once and past the outbox.

    Raises:
        CommandError: There is no such receiver, or a target did not take it.
    """
    configured = [one for one in config.receivers if one.name == receiver]
    if not configured:
        known = ", ".join(one.name for one in config.receivers) or "none"
        raise CommandError(f"there is no receiver {receiver}; configured: {known}")
    asked = targets(configured, place, clock)
    attempts = [(target, _try(config, target, place, clock, dry_run)) for target in asked]
    text = "\n".join(f"{t.receiver.target}: {_attempt_text(a)}" for t, a in attempts)
    if not all(attempt.outcome in GOOD for _, attempt in attempts):
        raise CommandError(text)
    return text + "\n"


def _try(config: Config, target: Target, place: Place, clock: Clock, dry_run: bool) -> Attempt:
    now = clock.wall()
    actions = [a for a in config.actions if a.receiver == target.receiver_name]
    if not actions:
        return Attempt(Outcome.DEAD, error="no action names its receiver")
    action = actions[0]
    event = RuleEvent(
        rule="test",
        kind=EventKind.FIRING,
        reason="a test by hand",
        scale_group=place.labels.get("scale_group", ""),
        started_at=now,
        fired_at=now,
        series=(),
        actions=(action.name,),
    )
    group = message.group_of(action, event, place.labels, place.node)
    named = {
        "event_id": message.event_id(now),
        "dedupe_key": message.dedupe_key(action, group, now),
    }
    data = {**named, **message.describe(event, action, place.labels, place.node)}
    data["dry_run"] = dry_run or action.dry_run
    if data["dry_run"] and not target.rehearses:
        return Attempt(Outcome.DRY_RUN)
    delivery = Delivery(
        **named,
        kind=REQUESTED,
        event=json.loads(json.dumps(data)),
        created=now,
        deadline=now + target.config.retry.deadline_seconds,
        attempt=1,
        plan=None,
        remember_plan=lambda _: None,
    )
    return target.receiver.deliver(delivery)


@contextmanager
def _opened(storage: Path, clock: Clock) -> Iterator[Store]:
    path = storage / DATABASE
    if not path.is_file():
        raise CommandError(f"there is no {path}; is that the daemon's --storage.path?")
    try:
        store = Store(path, clock)
        try:
            with store.reading() as db:
                db.execute("PRAGMA busy_timeout = 2000")  # the daemon's commits are short
            yield store
        finally:
            store.close()
    except (sqlite3.Error, NewerSchemaError) as error:
        raise CommandError(f"{path} cannot be used: {error}") from error


def _pause_lines(what: str, pause: Pause | None, now: float) -> Iterator[str]:
    if pause is not None and pause.until > now:
        yield f"paused for {_for(pause.until - now)} more by {what}: {pause.reason}"


def _row_line(row: Row, now: float) -> str:
    when = ""
    if row.state == "pending":
        when = f", next in {_for(row.next_at - now)}, given up in {_for(row.deadline - now)}"
    why = f": {row.last_error}" if row.last_error else ""
    created = rfc3339(row.created)
    return f"{row.event_id} {created} {row.target} {row.state}, {row.attempts} attempts{when}{why}"


def _attempt_text(attempt: Attempt) -> str:
    status = "" if attempt.status is None else f" ({attempt.status})"
    why = f": {attempt.error}" if attempt.error else ""
    return f"{attempt.outcome.value}{status}{why}"


def _for(seconds: float) -> str:
    return as_duration(float(max(round(seconds), 0)))


def _who() -> str:
    user = os.environ.get("SUDO_USER")
    if user:
        return user
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
