"""Counts XID errors: each once, whoever tells of it. The only thing that threads share here."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from enum import Enum

from exporter.facts import facts
from exporter.frozen import dataclass
from exporter.xid.line import OFF_THE_BUS
from exporter.xid.table import xid

log = logging.getLogger(__name__)

WINDOW_SECONDS = 30.0  # between what two sources say of one error
QUIET_SECONDS = 60.0  # between two lines in our log about the same XID of a GPU
BURST_SECONDS = 1.0  # the lines that the driver writes of one error come within this
MAX_PAIRS = 1024  # of GPU and XID
MAX_UNMATCHED = 256  # of a pair and source that the other source has not told of yet
MAX_BURSTS = 4096

Pair = tuple[str, int]  # PCI address, XID


class Source(Enum):
    """Who tells of an error: the label `source`."""

    NVML = "nvml"
    KERNEL_LOG = "kernel_log"


class Result(Enum):
    """What became of what a source told: the label `result`."""

    COUNTED = "counted"
    DUPLICATE = "duplicate"
    MALFORMED = "malformed"
    USER_SPACE = "user_space"
    DROPPED = "dropped"


RESULTS = {
    Source.NVML: (Result.COUNTED, Result.DUPLICATE, Result.DROPPED),
    Source.KERNEL_LOG: tuple(Result),
}


@dataclass(frozen=True, slots=True)
class Event:
    """One error as one source tells it.

    `timestamp_seconds` is since the epoch, `monotonic_seconds` of a clock that nobody can set.
    `kernel_microseconds` is the kernel's own stamp of a line of its log, since boot.
    """

    source: Source
    pci_bus_id: str
    xid: int
    timestamp_seconds: float
    monotonic_seconds: float
    pid: str = ""
    is_implied: bool = False
    kernel_microseconds: int = 0
    message: str = ""  # for our log


@dataclass(frozen=True, slots=True)
class Count:
    """How often a GPU had an XID, and when last, in seconds since the epoch."""

    total: int
    last_seconds: float


@dataclass(frozen=True, slots=True)
class State:
    """All that is to be remembered until the machine is started anew.

    Lines of the kernel log up to `kernel_microseconds` have been counted.
    """

    counts: dict[Pair, Count]
    kernel_microseconds: int = -1


class Ledger:
    """Counts by GPU and XID, and by source and result. Any thread may call."""

    def __init__(self, state: State | None = None) -> None:
        """Go on from a state of this boot, or from nothing."""
        known = state or State({})
        self._lock = threading.Lock()
        self._counts = dict(known.counts)
        self._kernel_microseconds = known.kernel_microseconds
        self._results = Counter({(s, r): 0 for s, results in RESULTS.items() for r in results})
        self._unmatched: dict[tuple[Pair, Source], deque[float]] = {}
        self._bursts: dict[tuple[Pair, str], float] = {}  # when the first line of it came
        self._lost: dict[Pair, float] = {}  # when a line without number last told of it
        self._told: dict[Pair, float] = {}  # when anybody last told of it
        self._logged: dict[Pair, float] = {}
        self.version = 0  # grows with every change

    def add(self, event: Event) -> Result:
        """Count an error, unless it is known already."""
        with self._lock:
            self._kernel_microseconds = max(self._kernel_microseconds, event.kernel_microseconds)
            result = self._judge(event)
            if result is Result.COUNTED:
                pair = event.pci_bus_id, event.xid
                before = self._counts.get(pair, Count(0, event.timestamp_seconds))
                last = max(before.last_seconds, event.timestamp_seconds)
                self._counts[pair] = Count(before.total + 1, last)
                self._log(event, before.total + 1)
            self._results[event.source, result] += 1
            self.version += 1
            return result

    def note(self, source: Source, result: Result) -> None:
        """Count what a source told that was no error."""
        with self._lock:
            self._results[source, result] += 1
            self.version += 1

    def state(self) -> State:
        """Return a copy of what is to be remembered."""
        with self._lock:
            return State(dict(self._counts), self._kernel_microseconds)

    def results(self) -> dict[tuple[Source, Result], int]:
        """Return a copy of how often each source had each result."""
        with self._lock:
            return dict(self._results)

    def _log(self, event: Event, total: int) -> None:
        pair = event.pci_bus_id, event.xid
        if _is_near(self._logged.get(pair), event.monotonic_seconds, QUIET_SECONDS):
            return
        self._logged[pair] = event.monotonic_seconds
        row = xid(event.xid)
        text = f"XID {row.number} ({row.mnemonic}, {row.action}) on {event.pci_bus_id}, no. {total}"
        about = facts(xid=event.xid, pci_bus_id=event.pci_bus_id)
        log.warning("%s%.300s", text, f": {event.message}" if event.message else "", extra=about)

    def _judge(self, event: Event) -> Result:
        pair, now = (event.pci_bus_id, event.xid), event.monotonic_seconds
        if pair not in self._counts and len(self._counts) >= MAX_PAIRS:
            return Result.DROPPED
        told, self._told[pair] = self._told.get(pair), now
        if event.is_implied:
            self._lost[pair] = now
            if _is_near(told, now, WINDOW_SECONDS):
                return Result.DUPLICATE
        elif event.source is Source.KERNEL_LOG and self._is_repeated(event, pair):
            return Result.DUPLICATE
        if self._is_matched(pair, event.source, now):
            return Result.DUPLICATE
        self._unmatched.setdefault((pair, event.source), deque(maxlen=MAX_UNMATCHED)).append(now)
        return Result.COUNTED

    def _is_repeated(self, event: Event, pair: Pair) -> bool:
        """Whether the kernel log has just told of this error: it may take several lines."""
        now, burst = event.monotonic_seconds, (pair, event.pid)
        if event.xid == OFF_THE_BUS and _is_near(self._lost.get(pair), now, WINDOW_SECONDS):
            return True
        if _is_near(self._bursts.get(burst), now, BURST_SECONDS):
            return True
        if len(self._bursts) >= MAX_BURSTS:
            self._bursts.clear()
        self._bursts[burst] = now
        return False

    def _is_matched(self, pair: Pair, source: Source, now: float) -> bool:
        """Whether the other source has told of this error already: each of its errors once."""
        other = Source.NVML if source is Source.KERNEL_LOG else Source.KERNEL_LOG
        waiting = self._unmatched.get((pair, other))
        while waiting and now - waiting[0] > WINDOW_SECONDS:
            waiting.popleft()
        if not waiting or waiting[0] - now > WINDOW_SECONDS:
            return False
        waiting.popleft()
        return True


def _is_near(before: float | None, now: float, seconds: float) -> bool:
    return before is not None and abs(now - before) < seconds
