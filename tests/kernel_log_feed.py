"""A kernel log that a test writes: as /dev/kmsg shows it, and as a journalctl that is a script."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from exporter.xid.kernel_log import KernelLog, Opener
from exporter.xid.ledger import Ledger, Result, Source

PATIENCE_SECONDS = 30.0
KERNEL, USER = 4, 12  # priorities: a warning of the kernel, and one of user space

# Prints what is there, and with --follow what comes; both from files beside it, a line each.
_JOURNALCTL = """#!{python}
import os, pathlib, sys, time
folder = pathlib.Path(__file__).parent
(folder / "calls").open("a").write(" ".join(sys.argv[1:]) + "\\n")
if "--follow" not in sys.argv:
    sys.stdout.write((folder / "past").read_text())
    sys.exit(int((folder / "code").read_text()))
seen = 0
while not (folder / "end").exists() and os.getppid() != 1:
    text = (folder / "coming").read_text()
    sys.stdout.write(text[seen:])
    sys.stdout.flush()
    seen = len(text)
    time.sleep(0.02)
"""


def xid_line(xid: int, gpu: str = "0000:3b:00", pid: str = "'<unknown>'") -> str:
    """Return the driver's message of an XID."""
    return f"NVRM: Xid (PCI:{gpu}): {xid}, pid={pid}, name=<unknown>, and so on"


def kmsg(message: str, microseconds: int | None = None, priority: int = KERNEL) -> str:
    """Return a record of /dev/kmsg, of now if no other time is given."""
    stamp = round(time.monotonic() * 1e6) if microseconds is None else microseconds
    escaped = message.replace("\n", "\\x0a")
    return f"{priority},{stamp % 100_000},{stamp},-;{escaped}\n SUBSYSTEM=pci\n"


def entry(message: str, number: int, facility: int = 0) -> str:
    """Return a line of the journal's JSON, `number` seconds after boot."""
    fields = {
        "__CURSOR": f"cursor-{number}",
        "__MONOTONIC_TIMESTAMP": str(number * 1_000_000 + 7),
        "_SOURCE_MONOTONIC_TIMESTAMP": str(number * 1_000_000),
        "SYSLOG_FACILITY": str(facility),
        "MESSAGE": message,
    }
    return json.dumps(fields) + "\n"


class FakeJournal:
    """A journalctl in a folder; `program` is its path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.program = folder / "journalctl"
        self.program.write_text(_JOURNALCTL.format(python=sys.executable))
        self.program.chmod(0o755)
        self.past()
        (folder / "coming").write_text("")

    def past(self, *lines: str, code: int = 0) -> None:
        """Set what was logged before, and how journalctl ends."""
        (self._folder / "past").write_text("".join(lines))
        (self._folder / "code").write_text(str(code))

    def add(self, *lines: str) -> None:
        """Log more, for who follows."""
        with (self._folder / "coming").open("a") as file:
            file.write("".join(lines))

    def end(self) -> None:
        """Let who follows see the end."""
        (self._folder / "end").touch()

    def calls(self) -> list[str]:
        """Return how it was called."""
        return (self._folder / "calls").read_text().splitlines()


class Fifo:
    """A FIFO in the place of /dev/kmsg, held open for writing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR)

    def write(self, *records: str) -> None:
        """Log these records."""
        os.write(self._fd, "".join(records).encode())

    def close(self) -> None:
        """Have no writer any more."""
        os.close(self._fd)


@contextlib.contextmanager
def reading(ledger: Ledger, *openers: Opener) -> Iterator[KernelLog]:
    """Read a kernel log for a ledger until the test is over."""
    log = KernelLog(openers, ledger, lambda: None)
    log.start()
    try:
        yield log
    finally:
        log.stop()
        log.join(PATIENCE_SECONDS)
        assert log not in threading.enumerate()


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


def told(ledger: Ledger) -> dict[str, int]:
    """Return what the kernel log told, by what became of it, without zeros."""
    results = ledger.results()
    return {r.value: results[Source.KERNEL_LOG, r] for r in Result if results[Source.KERNEL_LOG, r]}
