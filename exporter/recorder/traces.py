"""A recording -> the lines of its picture: one pass, and no more points than there are pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import field

from exporter.recorder.model import Header, Item, Sample, Series
from exporter.recorder.summary import series_of

HOLE_INTERVALS = 2.5  # a longer way between two samples is not drawn


@dataclasses.dataclass(slots=True)
class Trace:
    """One series, in pixels from the left and in its own unit. A hole parts two runs.

    Samples that fall on one pixel become their lowest and highest.
    """

    runs: list[list[tuple[float, float]]] = field(default_factory=list)
    _x: float = 0.0
    _low: float = 0.0
    _high: float = 0.0
    _pending: bool = False
    _is_open: bool = False

    def add(self, x: float, value: float | None) -> None:
        """Take the next sample; None is a hole."""
        if self._pending and value is not None and int(x) == int(self._x):
            self._low, self._high = min(self._low, value), max(self._high, value)
            return
        self.flush()
        if value is None:
            self._is_open = False
            return
        self._x, self._low, self._high, self._pending = x, value, value, True

    def flush(self) -> None:
        """Put what is held back into the run."""
        if not self._pending:
            return
        if not self._is_open:
            self.runs.append([])
        self.runs[-1].append((self._x, self._low))
        if self._high != self._low:
            self.runs[-1].append((self._x, self._high))
        self._pending, self._is_open = False, True


def traces(
    items: Iterable[Item],
    metrics: tuple[str, ...],
    first_seconds: float,
    pixels_per_second: float,
) -> dict[Series, Trace]:
    """Return the trace of every GPU for each of these metrics, where there is one."""
    found: dict[Series, Trace] = {}
    before: float | None = None
    interval = 0.0
    for item in items:
        if isinstance(item, Header):
            interval = item.interval_seconds
            for gpu in item.gpus:
                for metric in metrics:
                    found.setdefault(series_of(metric, gpu.gpu, gpu.uuid), Trace())
        elif isinstance(item, Sample):
            seconds = item.elapsed_seconds
            hole = before is not None and seconds - before > HOLE_INTERVALS * interval
            before = seconds
            x = (seconds - first_seconds) * pixels_per_second
            for series, trace in found.items():
                if hole:
                    trace.add(x, None)
                trace.add(x, item.values.get(series))
    for trace in found.values():
        trace.flush()
    return {series: trace for series, trace in found.items() if trace.runs}
