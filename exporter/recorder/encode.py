"""Snapshot x catalogue -> frames: JSON objects, one to a gzip member. docs/recordings.md.

A sample holds only what changed since the sample before. After a header everything counts as
changed, so that a reader can start there.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, replace
from typing import Any

from exporter.catalogue import CATALOGUE, Labels, Table, owners
from exporter.gzips import gzipped
from exporter.metric import Kind, Metric, Row, unit_of
from exporter.recorder.model import FORMAT, VERSION, End, Mark
from exporter.recorder.ring import Seen
from exporter.snapshot import Gpu, Snapshot

HEADER_EVERY = 60  # samples; what a damaged frame may cost
GZIP_LEVEL = 6
LARGEST = sys.float_info.max
# The exporter's own state tells nothing of the node.
OWN = ("gpu_exporter_", "gpu_recorder_", "process_", "scaleout_")

Frame = dict[str, Any]
_Key = tuple[int, Labels]  # position of the metric in its table, values of its own labels


def recorded(catalogue: Sequence[Table]) -> tuple[Table, ...]:
    """Return the tables with the metrics that are recorded: numbers of the GPUs and the host."""
    kept = (
        replace(table, metrics=tuple(metric for metric in table.metrics if _is_recorded(metric)))
        for table in catalogue
    )
    return tuple(table for table in kept if table.metrics)


def pack(frame: Frame) -> bytes:
    """Return a frame as it stands in the file: one line of JSON in a gzip member of its own."""
    line = json.dumps(frame, separators=(",", ":"), allow_nan=False) + "\n"
    return gzipped([line.encode()], GZIP_LEVEL)


def mark_frame(mark: Mark) -> Frame:
    """Return the frame of a mark."""
    return {"frame": "mark", **asdict(mark)}


def end_frame(end: End) -> Frame:
    """Return the last frame."""
    return {"frame": "end", **asdict(end)}


@dataclasses.dataclass(slots=True)
class _Slot:
    """One thing of a table, as the sample before had it."""

    thing: object = None
    columns: dict[_Key, int] = field(default_factory=dict)


class Encoder:
    """Makes the frames of one recording, in order."""

    def __init__(
        self, node: str, interval_seconds: float, catalogue: Sequence[Table] = CATALOGUE
    ) -> None:
        self._node = node
        self._interval_seconds = interval_seconds
        self._tables = recorded(catalogue)
        self._began_at: float | None = None
        self._owners: list[Labels] = []
        self._slots: dict[tuple[int, Labels], _Slot] = {}
        self._values: list[float | None] = []
        self._metrics: set[str] = set()
        self._number = 0
        self._block = 0

    def elapsed_seconds(self, taken_at: float) -> float:
        """Return the time since the first sample at this monotonic clock; 0.0 before it."""
        return 0.0 if self._began_at is None else round(taken_at - self._began_at, 6)

    def sample(self, seen: Seen, dropped: int) -> list[Frame]:
        """Return the frames of a snapshot: a sample, and now and then a header before it."""
        snapshot = seen.snapshot
        if self._began_at is None:
            self._began_at = snapshot.taken_at
        frames = []
        whose = owners(snapshot)
        if self._number % HEADER_EVERY == 0 or whose != self._owners:
            self._owners = whose
            self._block += 1
            self._slots, self._values, self._metrics = {}, [], set()
            frames.append(self._header(snapshot))
        frame: Frame = {
            "frame": "sample",
            "block": self._block,
            "n": self._number,
            "at": seen.at,
            "elapsed_seconds": self.elapsed_seconds(snapshot.taken_at),
            "dropped": dropped,
            "metrics": {},
            "series": [],
            "columns": [],
            "values": [],
        }
        for position, table in enumerate(self._tables):
            names = whose if table.labels else [()]
            for labels, thing in zip(names, table.things(snapshot), strict=True):
                slot = self._slots.setdefault((position, labels), _Slot())
                if thing is not slot.thing:
                    slot.thing = thing
                    self._compare(table, labels, slot, frame)
        self._number += 1
        return [*frames, {key: value for key, value in frame.items() if value not in ({}, [])}]

    def _header(self, snapshot: Snapshot) -> Frame:
        driver = snapshot.driver
        return {
            "frame": "header",
            "format": FORMAT,
            "version": VERSION,
            "block": self._block,
            "exporter": snapshot.build.version,
            "node": self._node,
            "driver": driver.driver_version if driver else "",
            "simulated": snapshot.build.simulated,
            "interval_seconds": self._interval_seconds,
            "gpus": [
                {"gpu": str(gpu.index), "uuid": gpu.uuid, "name": _product(gpu)}
                for gpu in snapshot.gpus
            ],
        }

    def _compare(self, table: Table, labels: Labels, slot: _Slot, frame: Frame) -> None:
        """Put into the frame what a thing changed; a value that is gone is null."""
        now = {} if slot.thing is None else _flat(table, slot.thing)
        for key, column in slot.columns.items():
            value = now.pop(key, None)
            if value != self._values[column]:
                self._values[column] = value
                frame["columns"].append(column)
                frame["values"].append(value)
        for key, value in now.items():
            if value is not None:
                position, own = key
                self._define(table, table.metrics[position], frame)
                slot.columns[key] = len(self._values)
                frame["series"].append([table.metrics[position].name, *labels, *own])
                frame["columns"].append(len(self._values))
                frame["values"].append(value)
                self._values.append(value)

    def _define(self, table: Table, metric: Row[Any], frame: Frame) -> None:
        if metric.name not in self._metrics:
            self._metrics.add(metric.name)
            own = () if isinstance(metric, Metric) else metric.labels
            frame["metrics"][metric.name] = {
                "kind": metric.kind.value,
                "unit": unit_of(metric.name),
                "labels": [*table.labels, *own],
            }


def _is_recorded(metric: Row[Any]) -> bool:
    return metric.kind is not Kind.INFO and not metric.name.startswith(OWN)


def _flat(table: Table, thing: object) -> dict[_Key, float | None]:
    """Return all numbers of a thing; None where there is none, or no finite one."""
    flat: dict[_Key, float | None] = {}
    for position, metric in enumerate(table.metrics):
        values: Mapping[Any, float | None]
        values = {(): metric.value(thing)} if isinstance(metric, Metric) else metric.values(thing)
        for own, value in values.items():
            finite = value is not None and -LARGEST <= value <= LARGEST
            flat[position, (own,) if isinstance(own, str) else own] = value if finite else None
    return flat


def _product(gpu: Gpu) -> str:
    return gpu.identity.name if gpu.identity else ""
