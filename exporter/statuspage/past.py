"""The last five minutes of a few readings, and since when what is wrong has been wrong.

Not taken from the recorder's ring: that one is as long as the config says, none for some, and holds
whole snapshots. Here a GPU takes 3.5 KiB, whatever is configured.
"""

from __future__ import annotations

import math
import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Generic, TypeVar

from exporter.frozen import dataclass
from exporter.gpu.identity import Identity
from exporter.snapshot import Gpu, Host, Snapshot
from exporter.statuspage.problems import Key, find

T = TypeVar("T")

SPANS = 50
LEAST_SPAN_SECONDS = 6.0
SAMPLES_PER_SPAN = 2  # at least, so that a late poll leaves no gap
START_SECONDS = 35.0  # by then all that is read now and then has been read once


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A reading that is kept: its name, and where it stands."""

    name: str
    value: Callable[[T], float | None]


GPU_COLUMNS: tuple[Column[Gpu], ...] = (
    Column("utilization_ratio", lambda g: g.utilization.gpu_ratio if g.utilization else None),
    Column("memory_used_ratio", lambda g: g.memory.used_ratio if g.memory else None),
    Column("temperature_celsius", lambda g: g.temperature.core_celsius if g.temperature else None),
    Column("power_watts", lambda g: g.power.draw_watts if g.power else None),
    Column(
        "pcie_transmit_bytes_per_second",
        lambda g: g.pcie.transmit_bytes_per_second if g.pcie else None,
    ),
    Column(
        "pcie_receive_bytes_per_second",
        lambda g: g.pcie.receive_bytes_per_second if g.pcie else None,
    ),
    Column(
        "nvlink_transmit_bytes_per_second",
        lambda g: g.nvlink.transmit_bytes_per_second if g.nvlink else None,
    ),
    Column(
        "nvlink_receive_bytes_per_second",
        lambda g: g.nvlink.receive_bytes_per_second if g.nvlink else None,
    ),
)
HOST_COLUMNS: tuple[Column[Host], ...] = (
    Column("memory_used_ratio", lambda h: h.memory.used_ratio if h.memory else None),
    Column(
        "swap_used_ratio",
        lambda h: h.swap.used_bytes / h.swap.total_bytes if h.swap and h.swap.total_bytes else None,
    ),
)


@dataclass(frozen=True, slots=True)
class Band:
    """The lowest and the highest sample of each span, oldest first; None for a span without any."""

    lowest: tuple[float | None, ...]
    highest: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Since:
    """Since when something is wrong, in seconds since the epoch.

    `is_from_start`: it was so when the exporter began to look, and may have been before.
    """

    at: float
    is_from_start: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """All of it at one instant.

    Attributes:
        wall_offset: Seconds since the epoch at monotonic 0, by the clocks of the last poll.
        step_seconds: Length of a span.
        until: When the last span ends, monotonic.
        gpus: By key, in the order of GPU_COLUMNS.
        identities: By key, also of a GPU that does not answer now: who it is has not changed.
        host: In the order of HOST_COLUMNS.
        since: By problem.
    """

    wall_offset: float = 0.0
    step_seconds: float = LEAST_SPAN_SECONDS
    until: float = 0.0
    gpus: Mapping[str, tuple[Band, ...]] = field(default_factory=dict)
    identities: Mapping[str, Identity] = field(default_factory=dict)
    host: tuple[Band, ...] = ()
    since: Mapping[Key, Since] = field(default_factory=dict)


class _Track(Generic[T]):
    """The spans of one thing, by column and then by the span's number modulo SPANS."""

    __slots__ = ("_columns", "_highest", "_lowest")

    def __init__(self, columns: Sequence[Column[T]]) -> None:
        self._columns = columns
        nothing = [math.nan] * (SPANS * len(columns))
        self._lowest, self._highest = array("f", nothing), array("f", nothing)

    def clear(self, slot: int) -> None:
        for place in range(slot, len(self._lowest), SPANS):
            self._lowest[place] = self._highest[place] = math.nan

    def add(self, slot: int, thing: T) -> None:
        lowest, highest = self._lowest, self._highest
        place = slot
        for column in self._columns:
            value = column.value(thing)
            if value is not None:
                # False for NaN too: the first sample of a span is both.
                if not lowest[place] <= value:
                    lowest[place] = value
                if not highest[place] >= value:
                    highest[place] = value
            place += SPANS

    def bands(self, last: int) -> tuple[Band, ...]:
        first = (last + 1) % SPANS
        return tuple(
            Band(_span(self._lowest, place, first), _span(self._highest, place, first))
            for place in range(0, len(self._lowest), SPANS)
        )


class Past:
    """Takes every snapshot in the poller's thread; any thread may look.

    A GPU's samples go with it when it leaves the driver's list.
    """

    def __init__(self, fast_seconds: float) -> None:
        """Keep spans that hold two polls or more."""
        self._lock = threading.Lock()
        self._step_seconds = self._span = 0.0
        self._gpus: dict[str, _Track[Gpu]] = {}
        self._identities: dict[str, Identity] = {}
        self._host = _Track(HOST_COLUMNS)
        self._since: dict[Key, Since] = {}
        self._started_at: float | None = None
        self._wall_offset = 0.0
        self._last = 0
        self.configure(fast_seconds)

    def configure(self, fast_seconds: float) -> None:
        """Go on with another time between two polls; if spans change with it, begin anew."""
        step = max(LEAST_SPAN_SECONDS, SAMPLES_PER_SPAN * fast_seconds)
        with self._lock:
            if step != self._step_seconds:
                self._step_seconds = step
                self._gpus, self._host = {}, _Track(HOST_COLUMNS)
                self._last = 0

    def add(self, snapshot: Snapshot, wall: float) -> None:
        """Take what a poll has read, at this wall clock (seconds since the epoch)."""
        problems = [problem.key for problem in find(snapshot, wall)]
        with self._lock:
            if self._started_at is None:
                self._started_at = snapshot.taken_at
            is_start = snapshot.taken_at - self._started_at < START_SECONDS
            new = Since(wall, is_from_start=is_start)
            self._since = {key: self._since.get(key, new) for key in problems}
            self._wall_offset = wall - snapshot.taken_at
            self._add(snapshot)

    def seen(self) -> Seen:
        """Return all there is."""
        with self._lock:
            return Seen(
                wall_offset=self._wall_offset,
                step_seconds=self._step_seconds,
                until=(self._last + 1) * self._step_seconds,
                gpus={key: track.bands(self._last) for key, track in self._gpus.items()},
                identities=self._identities,
                host=self._host.bands(self._last),
                since=self._since,
            )

    def _add(self, snapshot: Snapshot) -> None:
        here = {key_of(gpu): gpu for gpu in snapshot.gpus}
        tracks, known = self._gpus, self._identities
        self._identities = {
            key: identity
            for key, gpu in here.items()
            if (identity := gpu.identity or known.get(key)) is not None
        }
        self._gpus = {key: tracks.get(key) or _Track(GPU_COLUMNS) for key in here}
        span = int(snapshot.taken_at // self._step_seconds)
        for passed in range(max(self._last + 1, span - SPANS + 1), span + 1):
            self._host.clear(passed % SPANS)
            for track in self._gpus.values():
                track.clear(passed % SPANS)
        self._last = max(span, self._last)
        slot = self._last % SPANS
        for key, gpu in here.items():
            self._gpus[key].add(slot, gpu)
        if snapshot.host is not None:
            self._host.add(slot, snapshot.host)


def key_of(gpu: Gpu) -> str:
    """Return what a GPU's samples go by: its UUID, which survives a renumbering."""
    return gpu.uuid or f"gpu {gpu.index}"


def _span(values: array[float], place: int, first: int) -> tuple[float | None, ...]:
    """Return the SPANS values from a place on, turned so that the slot `first` comes first."""
    part = values[place : place + SPANS]
    return tuple(None if value != value else value for value in part[first:] + part[:first])  # noqa: PLR0124  NaN
