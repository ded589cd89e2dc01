"""The kernel log by the journal, for those whom the kernel does not let at /dev/kmsg.

Who is in the group systemd-journal may read it, without any capability: a journalctl is run for
what was logged since boot, and another for what comes.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from typing import Any

from exporter.xid.kernel_log import KERNEL_FACILITY, Record, UnreadableError

READ_BYTES = 1 << 20
LONGEST_LINE_BYTES = 1 << 20
FIELDS = "MESSAGE,SYSLOG_FACILITY,SYSLOG_IDENTIFIER,_SOURCE_MONOTONIC_TIMESTAMP"
# A message that is no UTF-8 is a list of numbers.
MARKS = (b"NVRM", b'"MESSAGE":[')


class Journal:
    """Reads the kernel's messages of this boot: see kernel_log.Reader."""

    def __init__(self, program: str = "journalctl") -> None:
        """Begin with what was logged since boot.

        Raises:
            UnreadableError: there is no such program.
        """
        path = shutil.which(program)
        if path is None:
            raise UnreadableError(f"no {program} here")
        self.name = "the journal"
        self.has_more = True
        self.lost = 0
        self._program = path
        self._partial = b""
        self._last_line = b""
        self._is_following = False
        self._child = self._start()

    def read(self, seconds: float) -> list[Record]:
        """Return new records; at the end of the past, go on with what comes."""
        output = self._child.stdout
        if output is None or not select.select([output], [], [], seconds)[0]:
            return []
        data = os.read(output.fileno(), READ_BYTES)
        if not data:
            self._next_child()
            return []
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > LONGEST_LINE_BYTES:
            self._partial = b""
            self.lost += 1
        if lines:
            self._last_line = lines[-1]
        found = [_record(line) for line in lines if any(mark in line for mark in MARKS)]
        records = [record for record in found if record is not None]
        self.lost += len(found) - len(records)
        return records

    def close(self) -> None:
        """End the child."""
        self._child.kill()
        self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()

    def _next_child(self) -> None:
        """Follow the journal behind the last line that was there."""
        if self._is_following:
            raise UnreadableError("journalctl has ended")
        self.close()
        cursor = _object(self._last_line).get("__CURSOR")
        if not isinstance(cursor, str):
            raise UnreadableError(
                "the journal shows no kernel messages of this boot;"
                " let this user into the group systemd-journal"
            )
        self._child = self._start("--follow", "--no-tail", f"--after-cursor={cursor}")
        self._is_following, self.has_more, self._partial = True, False, b""

    def _start(self, *more: str) -> subprocess.Popen[bytes]:
        # It ends by itself when nobody reads what it writes any more.
        arguments = ["--dmesg", "--output=json", f"--output-fields={FIELDS}", "--all", "--quiet"]
        try:
            return subprocess.Popen(  # noqa: S603  the program that PATH has
                [self._program, *arguments, "--no-pager", *more],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
        except OSError as error:
            raise UnreadableError(f"{self._program}: {error.strerror}") from None


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _record(line: bytes) -> Record | None:
    """Return the record of a line of JSON, or None: it is none.

    The journal takes the word before the first colon off what user space wrote, as its identifier.
    """
    entry = _object(line)
    try:
        facility = int(entry["SYSLOG_FACILITY"])
        microseconds = int(
            entry.get("_SOURCE_MONOTONIC_TIMESTAMP") or entry["__MONOTONIC_TIMESTAMP"]
        )
        message = entry["MESSAGE"]
        if isinstance(message, list):
            message = bytes(message).decode(errors="replace")
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not isinstance(message, str):
        return None
    if facility != KERNEL_FACILITY and "SYSLOG_IDENTIFIER" in entry:
        message = f"{entry['SYSLOG_IDENTIFIER']}: {message}"
    # JSON can say half a character (a lone surrogate), which nothing else can.
    return Record(facility, microseconds, message.encode(errors="replace").decode())
