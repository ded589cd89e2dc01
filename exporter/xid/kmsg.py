"""The kernel log by /dev/kmsg: the kernel's Documentation/ABI/testing/dev-kmsg."""

from __future__ import annotations

import os
import re
import select
import time
from pathlib import Path

from exporter.xid.kernel_log import BATCH, Record, UnreadableError

RECORD_BYTES = 16 << 10  # more than the kernel makes
LONGEST_LINE_BYTES = 64 << 10
MARK = b"NVRM:"
END_SECONDS = 0.1  # between two looks where a file ends
FACILITY_SHIFT = 3  # the level has the bits below

_HEADER = re.compile(rb"(\d{1,9}),\d{1,20},(\d{1,20})[^;]*;")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


class Kmsg:
    """Reads /dev/kmsg, or a file or FIFO of the same format: see kernel_log.Reader."""

    def __init__(self, path: Path) -> None:
        """Open it at its oldest record.

        Raises:
            UnreadableError: it is not there, or not for us.
        """
        self.name = str(path)
        self.has_more = True
        self.lost = 0
        self._partial = b""
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise UnreadableError(f"{path}: {error.strerror}") from None
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def read(self, seconds: float) -> list[Record]:
        """Return new records; one read of the device gives one."""
        if not self.has_more and not self._poll.poll(seconds * 1000):
            return []
        records: list[Record] = []
        for _ in range(BATCH):
            data = self._read()
            if data is None:
                self.has_more = False
                return records
            records += self._records(data)
        self.has_more = True
        return records

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _read(self) -> bytes | None:
        """Return what is there, or None: nothing more for now."""
        try:
            data = os.read(self._fd, RECORD_BYTES)
        except BlockingIOError:
            return None
        except BrokenPipeError:  # overwritten before we came; the next read goes on behind
            self.lost += 1
            return b""
        except OSError as error:
            raise UnreadableError(error.strerror or str(error)) from None
        if data:
            return data
        # The end of a file, or of what a FIFO's writer had to say: poll() would not wait there.
        if not self.has_more:
            time.sleep(END_SECONDS)
        return None

    def _records(self, data: bytes) -> list[Record]:
        if not data:
            return []
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > LONGEST_LINE_BYTES:
            self._partial = b""
            self.lost += 1
        # Lines that begin with a space tell more of the record before.
        found = [record_of(line) for line in lines if MARK in line and not line.startswith(b" ")]
        records = [record for record in found if record is not None]
        self.lost += len(found) - len(records)
        return records


def record_of(line: bytes) -> Record | None:
    r"""Return the record of `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;MESSAGE`, or None: it is none.

    The kernel writes what is no printable ASCII as \xNN.
    """
    header = _HEADER.match(line)
    if header is None:
        return None
    message = _ESCAPED.sub(lambda byte: bytes([int(byte[1], 16)]), line[header.end() :])
    priority, microseconds = int(header[1]), int(header[2])
    return Record(priority >> FACILITY_SHIFT, microseconds, message.decode(errors="replace"))
