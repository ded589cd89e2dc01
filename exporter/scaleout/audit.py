"""Who decided what, and what came of it: JSON lines in a file, and in the log."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

from exporter.scaleout.clock import Clock, rfc3339

log = logging.getLogger("exporter.audit")

FILE = "audit.jsonl"
MAX_BYTES = 5 << 20
FILES = 10


class Audit:
    """Appends to `<folder>/audit.jsonl`; every thread may. A file that fails stops nothing.

    The file is opened for each line: there are few, and commands write to it beside the daemon.
    """

    def __init__(self, folder: Path | None, clock: Clock) -> None:
        self._path = None if folder is None else folder / FILE
        self._clock = clock
        self._lock = threading.Lock()
        self._problem = ""

    def write(self, what: str, **facts: object) -> None:
        """Write one line: the time, what happened, and facts that JSON can express."""
        # ASCII only: no label can forge a line, or speak to a terminal.
        line = json.dumps({"ts": rfc3339(self._clock.wall()), "what": what, **facts})
        log.info("%s", line)
        if self._path is None:
            return
        with self._lock:
            try:
                _append(self._path, line.encode() + b"\n")
                problem = ""
            except OSError as error:
                problem = f"cannot write {self._path}: {error.strerror}"
            if problem and problem != self._problem:
                log.error("%s; the audit goes on in this log", problem)
            self._problem = problem


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
