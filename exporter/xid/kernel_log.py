"""The kernel log as a source of XID errors: a thread that reads it, as the host lets it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from exporter.frozen import dataclass
from exporter.xid.ledger import Event, Ledger, Result, Source
from exporter.xid.line import LOOKS_LIKE, MalformedError, parse

log = logging.getLogger(__name__)

WAIT_SECONDS = 1.0  # for new lines; also how soon counts are on disk, and how soon a stop is seen
RETRY_SECONDS = 60.0
BATCH = 1000  # records, or reads, at a time
BREATH_SECONDS = 0.02  # after a full batch: a flood must not take Python from the poll
KERNEL_FACILITY = 0


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the kernel log; `microseconds` since boot, by the kernel's own stamp."""

    facility: int
    microseconds: int
    message: str


class UnreadableError(Exception):
    """This way to the kernel log is closed, or has ended; the text says why."""


class Reader(Protocol):
    """One open way to the kernel log, from its oldest record on. Used by one thread."""

    @property
    def name(self) -> str:
        """What is read, for the log."""

    @property
    def has_more(self) -> bool:
        """Whether there may be more to read at once; until it is False once: what is past."""

    @property
    def lost(self) -> int:
        """How many records were overwritten, too long or broken."""

    def read(self, seconds: float) -> list[Record]:
        """Return new records that may tell of XIDs: at most BATCH, after `seconds` at the latest.

        Raises:
            UnreadableError: there will be no more.
        """

    def close(self) -> None:
        """Let go of it."""


Opener = Callable[[], Reader]  # raises UnreadableError


class KernelLog(threading.Thread):
    """Reads the first way to the kernel log that is open, and tries again when it ends.

    A daemon thread: nobody waits for it.

    Attributes:
        is_up: Whether the log is being read.
        is_settled: Whether all that was logged before our start is counted, or cannot be.
    """

    def __init__(
        self, openers: tuple[Opener, ...], ledger: Ledger, on_idle: Callable[[], None]
    ) -> None:
        """Take the ways to try, in this order; `on_idle` is called about once a second."""
        super().__init__(name="xid-kernel-log", daemon=True)
        self.is_up = False
        self.is_settled = False
        self._openers = openers
        self._ledger = ledger
        self._on_idle = on_idle
        self._stopped = threading.Event()
        self._problem = ""

    def stop(self) -> None:
        """Let the thread end within a second or so."""
        self._stopped.set()

    def run(self) -> None:
        """Read until stopped."""
        while not self._stopped.is_set():
            reader = self._open()
            if reader is not None:
                try:
                    self._follow(reader)
                except UnreadableError as ended:
                    self._say(f"{reader.name}: {ended}")
                finally:
                    self.is_up = False
                    reader.close()
            self.is_settled = True
            deadline = time.monotonic() + RETRY_SECONDS
            while time.monotonic() < deadline and not self._stopped.wait(WAIT_SECONDS):
                self._on_idle()

    def _open(self) -> Reader | None:
        problems = []
        for opener in self._openers:
            reader = _opened(opener)
            if not isinstance(reader, str):
                return reader
            problems.append(reader)
        self._say("; ".join(problems))
        return None

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("XID errors are not taken from the kernel log: %s", problem)
            self._problem = problem

    def _follow(self, reader: Reader) -> None:
        """Take over what was logged since the state was saved, and then what comes."""
        until = self._ledger.state().kernel_microseconds
        lost = 0
        while not self._stopped.is_set():
            for record in reader.read(WAIT_SECONDS):
                if self.is_up or record.microseconds > until:
                    self._take(record)
            for _ in range(lost, reader.lost):
                self._ledger.note(Source.KERNEL_LOG, Result.DROPPED)
            lost = reader.lost
            if reader.has_more:
                self._stopped.wait(BREATH_SECONDS)
            elif not self.is_up:
                self.is_up = self.is_settled = True
                self._problem = ""
                log.info("XID errors are taken from %s", reader.name)
            self._on_idle()

    def _take(self, record: Record) -> None:
        if record.facility != KERNEL_FACILITY:
            if record.message.startswith(LOOKS_LIKE):
                self._ledger.note(Source.KERNEL_LOG, Result.USER_SPACE)
            return
        try:
            told = parse(record.message)
        except MalformedError:
            self._ledger.note(Source.KERNEL_LOG, Result.MALFORMED)
            log.debug("no XID error: %.200r", record.message)
            return
        if told is None:
            return
        now = time.monotonic()
        # The kernel's stamps drift from every other clock: they are for what is past alone.
        age = 0.0 if self.is_up else max(now - record.microseconds / 1e6, 0.0)
        self._ledger.add(
            Event(
                Source.KERNEL_LOG,
                told.pci_bus_id,
                told.xid,
                timestamp_seconds=time.time() - age,
                monotonic_seconds=now - age,
                pid=told.pid,
                is_implied=told.is_implied,
                kernel_microseconds=record.microseconds,
                message=record.message,
            )
        )


def _opened(opener: Opener) -> Reader | str:
    """Return what is open now, or why it is not."""
    try:
        return opener()
    except UnreadableError as closed:
        return str(closed)
