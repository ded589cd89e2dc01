"""Snapshot x CATALOGUE -> the page: compiled once per shape, then only values are filled in.

A page is one block per table. A block whose things are the very objects of the page before (slow
and static readings, mostly) is taken over as it is; snapshots are never changed, so it still holds.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import compress
from operator import is_
from typing import Any

from exporter.catalogue import CATALOGUE, Labels, Table, owners
from exporter.gzips import gzipped
from exporter.metric import Kind, Metric, MetricVec, Row, unit_of
from exporter.snapshot import Snapshot

GZIP_LEVEL = 1  # a sixth of the time of level 9, and a quarter more bytes


class Rendered(ABC):
    """A page of metrics. Used from one thread; keeps what it made of one snapshot."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._blocks: Sequence[bytes] = ()
        # One object each for all who ask: slow clients hold on to it.
        self._plain: bytes | None = None
        self._zipped: bytes | None = None

    @abstractmethod
    def render(self, snapshot: Snapshot) -> Sequence[bytes]:
        """Return the page, in parts."""

    def plain(self, snapshot: Snapshot) -> bytes:
        """Return the page; put together once per snapshot, and only when asked for."""
        blocks = self._rendered(snapshot)
        if self._plain is None:
            self._plain = b"".join(blocks)
        return self._plain

    def zipped(self, snapshot: Snapshot) -> bytes:
        """Return the page in gzip; compressed once per snapshot, and only when asked for."""
        blocks = self._rendered(snapshot)
        if self._zipped is None:
            self._zipped = gzipped(blocks, GZIP_LEVEL)
        return self._zipped

    def _rendered(self, snapshot: Snapshot) -> Sequence[bytes]:
        if snapshot is not self._snapshot:
            self._blocks, self._snapshot = self.render(snapshot), snapshot
            self._plain = self._zipped = None
        return self._blocks


class Page(Rendered):
    """The page of the catalogue, in one exposition format."""

    def __init__(self, *, openmetrics: bool, catalogue: Sequence[Table] = CATALOGUE) -> None:
        super().__init__()
        self._tables = [_Block(table, openmetrics=openmetrics) for table in catalogue]
        self._end = b"# EOF\n" if openmetrics else b""

    def render(self, snapshot: Snapshot) -> Sequence[bytes]:
        """Return one part per table; those whose things have not changed are taken over."""
        gpus = owners(snapshot)
        return [*(table.render(snapshot, gpus) for table in self._tables), self._end]


class _Block:
    """The families of one table.

    Its shape is what its text is made of but the values: whose things there are, the label values
    of every MetricVec, and which values are absent (None if none is).
    """

    def __init__(self, table: Table, *, openmetrics: bool) -> None:
        self._table = table
        self._openmetrics = openmetrics
        self._things: list[Any] = []
        self._owners: list[Labels] = []
        self._text = b""
        self._shape: tuple[list[Labels], list[Labels], list[bool] | None] = ([], [], None)
        self._pieces: list[str] = []  # one before each value, and what ends the last line

    def render(self, snapshot: Snapshot, gpus: list[Labels]) -> bytes:
        things = self._table.things(snapshot)
        whose: list[Labels] = gpus if self._table.labels else [()]
        if whose != self._owners or not all(map(is_, things, self._things)):
            self._things, self._owners, self._text = things, whose, self._fill(things, whose)
        return self._text

    def _fill(self, things: list[Any], whose: list[Labels]) -> bytes:
        there = [thing is not None for thing in things]
        if not all(there):
            things, whose = list(compress(things, there)), list(compress(whose, there))
        values: list[Any] = []
        vectors: list[Labels] = []
        for metric in self._table.metrics:
            if isinstance(metric, Metric):
                values.extend(map(metric.value, things))
            else:
                for thing in things:
                    vector = metric.values(thing)
                    vectors.append(tuple(vector))
                    values.extend(vector.values())
        mask = _absent(values)
        if mask is not None:
            values = list(compress(values, mask))
        if (whose, vectors, mask) != self._shape:
            self._shape = (whose, vectors, mask)
            self._pieces = self._compile(whose, vectors, mask)
        if not values:
            return b""
        parts = [""] * (2 * len(values) + 1)
        parts[::2] = self._pieces
        parts[1::2] = map(repr, values)
        return "".join(parts).encode()

    def _compile(
        self, whose: list[Labels], vectors: list[Labels], mask: list[bool] | None
    ) -> list[str]:
        pieces: list[str] = []
        before = ""
        present = iter(mask) if mask is not None else None
        for metric, series in self._series(whose, iter(vectors)):
            head = _head(metric, openmetrics=self._openmetrics)
            for labels in series:
                if present is None or next(present):
                    pieces.append(f"{before}{head}{metric.name}{braces(labels)} ")
                    before, head = "\n", ""
        return [*pieces, before]

    def _series(
        self, whose: list[Labels], vectors: Iterator[Labels]
    ) -> Iterator[tuple[Row[Any], list[list[tuple[str, str]]]]]:
        """Yield each metric with the labels of all its series, in the order of _fill."""
        names = self._table.labels
        for metric in self._table.metrics:
            if isinstance(metric, MetricVec):
                series = [
                    list(zip((*names, *metric.labels), (*labels, *_tuple(own)), strict=True))
                    for labels in whose
                    for own in next(vectors)
                ]
            else:
                series = [list(zip(names, labels, strict=True)) for labels in whose]
            yield metric, series


def _absent(values: list[Any]) -> list[bool] | None:
    """Return which values are finite numbers, or None if all are."""
    try:
        if math.isfinite(sum(values)):
            return None
    except TypeError:  # a None among them
        pass
    return [value is not None and math.isfinite(value) for value in values]


def _tuple(own: str | Labels) -> Labels:
    return (own,) if isinstance(own, str) else own


def _head(metric: Row[Any], *, openmetrics: bool) -> str:
    """Return the HELP and TYPE lines (OpenMetrics: and UNIT) of a family."""
    family, kind, unit = metric.name, metric.kind.value, ""
    text = metric.help.replace("\\", "\\\\").replace("\n", "\\n")
    if openmetrics:
        text = text.replace('"', '\\"')
        unit = unit_of(metric.name)
        suffix = {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(metric.kind, "")
        family = metric.name.removesuffix(suffix)
    elif metric.kind is Kind.INFO:
        kind = Kind.GAUGE.value
    head = f"# HELP {family} {text}\n# TYPE {family} {kind}\n"
    return head + (f"# UNIT {family} {unit}\n" if unit else "")


def braces(labels: list[tuple[str, str]]) -> str:
    """Return labels as they stand behind a name, escaped; "" for none."""
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{inside}}}" if inside else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
