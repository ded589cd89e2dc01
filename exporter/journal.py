"""Log records as journald's own fields: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterable

SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "gpu-node-exporter"
# A journald that is stuck may hold a log line up for this long, and no longer.
PATIENCE_SECONDS = 0.5
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
DEBUG_PRIORITY = 7


class JournalHandler(logging.Handler):
    """Sends each record as one datagram; what journald does not take goes to stderr as text."""

    def __init__(self, path: str = SOCKET) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))  # the rest has fields of its own
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(PATIENCE_SECONDS)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        try:
            self._socket.sendto(encode(_fields(self.format(record), record)), self._path)
        except OSError:  # journald restarts, or the record is too long for a datagram
            self._say(record)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()

    def _say(self, record: logging.LogRecord) -> None:
        prefix = f"<{_priority(record.levelno)}>"  # sd-daemon(3): a level for each line
        text = "".join(f"{prefix}{line}\n" for line in self.format(record).splitlines())
        sys.stderr.write(text)


def is_stderr() -> bool:
    """Return whether stderr goes to the journal, by the device and inode in JOURNAL_STREAM."""
    stream = os.environ.get("JOURNAL_STREAM")
    if not stream:
        return False
    try:
        stat = os.fstat(2)
    except OSError:
        return False
    return stream == f"{stat.st_dev}:{stat.st_ino}"


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """Return fields as a datagram; a value of several lines has its length before it."""
    parts = []
    for name, text in fields:
        value = text.encode(errors="backslashreplace")
        if b"\n" in value:
            size = len(value).to_bytes(8, "little")
            parts.append(b"%s\n%s%s\n" % (name.encode(), size, value))
        else:
            parts.append(b"%s=%s\n" % (name.encode(), value))
    return b"".join(parts)


def _fields(message: str, record: logging.LogRecord) -> list[tuple[str, str]]:
    about: dict[str, str] = getattr(record, "facts", {})
    return [
        ("MESSAGE", message),
        ("PRIORITY", str(_priority(record.levelno))),
        ("SYSLOG_IDENTIFIER", IDENTIFIER),
        ("SOURCE", record.name.removeprefix("exporter.")),
        *((name.upper(), value) for name, value in about.items()),
    ]


def _priority(level: int) -> int:
    return next((number for least, number in PRIORITIES if level >= least), DEBUG_PRIORITY)
