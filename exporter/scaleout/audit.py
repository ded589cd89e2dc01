"""Who decided what, and what came of it: JSON lines in a file, words in the log, the newest."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from exporter.facts import facts as about
from exporter.scaleout.clock import Clock, rfc3339
from exporter.scaleout_view import AuditEntry

log = logging.getLogger("exporter.audit")

FILE = "audit.jsonl"
MAX_BYTES = 5 << 20
FILES = 10
SHOWN = 12  # lines that are remembered
TAIL_BYTES = 1 << 16  # of the file, to begin with
LONGEST = 200  # of a fact that is remembered


class Audit:
    """Appends to `<folder>/audit.jsonl`; every thread may. A file that fails stops nothing.

    The file is opened for each line: there are few, and commands write to it beside the daemon.

    Attributes:
        newest: The newest lines, newest first, those of earlier runs included; replaced whole.
    """

    def __init__(self, folder: Path | None, clock: Clock) -> None:
        self._path = None if folder is None else folder / FILE
        self.newest = () if self._path is None else _remembered(self._path)
        self._clock = clock
        self._lock = threading.Lock()
        self._problem = ""

    def write(self, what: str, **facts: object) -> None:
        """Write one line: the time, what happened, and facts that JSON can express."""
        at = self._clock.wall()
        # ASCII only, here and in the log: no label can forge a line, or speak to a terminal.
        line = json.dumps({"ts": rfc3339(at), "what": what, **facts})
        entry = _entry(at, what, facts)
        with self._lock:
            self.newest = _with(self.newest, entry)
            is_kept = self._keep(line.encode() + b"\n")
        # Deliveries tell of themselves in the log, once for the same reason.
        is_said = is_kept and bool(entry.target)
        _log(logging.DEBUG if is_said else logging.INFO, entry, str(facts.get("source", "")))

    def _keep(self, line: bytes) -> bool:
        """Append to the file, if there is to be one; return whether it is there."""
        if self._path is None:
            return False
        try:
            _append(self._path, line)
            problem = ""
        except OSError as error:
            problem = f"cannot write {self._path}: {error.strerror}"
        if problem and problem != self._problem:
            log.error("%s; the audit goes on in this log", problem)
        self._problem = problem
        return not problem


def _log(level: int, entry: AuditEntry, asked_by: str) -> None:
    whose = entry.target or entry.action or "scale-out"
    words = ", ".join(filter(None, (entry.result or entry.what, entry.detail)))
    extra = about(
        what=entry.what,
        rule=_ascii(entry.rule),
        kind=entry.kind,
        event_id=entry.event_id,
        asked_by=_ascii(asked_by),
    )
    log.log(level, "%s: %s", _ascii(whose), _ascii(words), extra=extra)


def _ascii(text: str) -> str:
    return text.encode("unicode_escape").decode()


def _entry(at: float, what: str, facts: Mapping[str, object]) -> AuditEntry:
    def text(*names: str) -> str:
        return next((str(facts[name])[:LONGEST] for name in names if facts.get(name)), "")

    return AuditEntry(
        at=at,
        what=what,
        result=text("result"),
        action=text("action"),
        rule=text("rule"),
        kind=text("kind"),
        target=text("target"),
        event_id=text("event_id"),
        detail=text("detail", "error", "reason"),
    )


def _with(entries: tuple[AuditEntry, ...], entry: AuditEntry) -> tuple[AuditEntry, ...]:
    """Put an entry in front; of the attempts at one request, only the last is remembered."""
    if entry.target:
        thread = (entry.target, entry.event_id)
        entries = tuple(old for old in entries if (old.target, old.event_id) != thread)
    return (entry, *entries[: SHOWN - 1])


def _remembered(path: Path) -> tuple[AuditEntry, ...]:
    """Return the newest entries of the file; what is not as `write` writes it is passed over."""
    entries: tuple[AuditEntry, ...] = ()
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        for line in file.read(TAIL_BYTES).splitlines():
            with suppress(ValueError, TypeError, KeyError, RecursionError):
                facts = json.loads(line)
                at = datetime.fromisoformat(str(facts["ts"]).replace("Z", "+00:00")).timestamp()
                entries = _with(entries, _entry(at, str(facts["what"])[:LONGEST], facts))
    return entries


def _append(path: Path, line: bytes) -> None:
    with suppress(FileNotFoundError):
        if path.stat().st_size + len(line) > MAX_BYTES:
            _rotate(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        written = os.write(descriptor, line)
        if written < len(line):  # half a line would spoil the next one too
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def _rotate(path: Path) -> None:
    for number in range(FILES - 2, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    path.replace(path.with_name(f"{path.name}.1"))
