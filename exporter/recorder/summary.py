"""What a recording amounts to: who, why, when, and each GPU's extremes. The file summary.json."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exporter.frozen import dataclass
from exporter.recorder.checks import count_from, mark_from, number_from, text_from
from exporter.recorder.decode import Decoder, read
from exporter.recorder.model import Header, Item, Mark, Sample, Series

VERSION = 1
MOST_BYTES = 1 << 22
KEY_METRICS = (
    "gpu_utilization_ratio",
    "gpu_memory_used_ratio",
    "gpu_temperature_celsius",
    "gpu_memory_temperature_celsius",
    "gpu_power_watts",
)


@dataclass(frozen=True, slots=True)
class Range:
    """Extremes and mean of the samples in which a value was there."""

    minimum: float
    mean: float
    maximum: float


@dataclass(frozen=True, slots=True)
class GpuSummary:
    """One GPU: its names, and the range of each key metric that it has."""

    gpu: str
    uuid: str
    name: str
    metrics: Mapping[str, Range]


@dataclass(frozen=True, slots=True)
class Summary:
    """One recording.

    Attributes:
        reasons: Rules, or requests from outside, for which it was made; the first began it.
        start: Wall clock of the first sample, in seconds since the epoch.
        end: Wall clock of the last one.
        seconds: Monotonic time between them.
        first_seconds: elapsed_seconds of the first sample; 0.0 unless the beginning is damaged.
        samples: How many are there.
        dropped: How many are not, because the disk did not keep up.
        damaged: Places in the file that could not be read.
        ended: Why it ended; "" if it was torn off, or still goes on.
    """

    node: str
    exporter: str
    driver: str
    simulated: bool
    interval_seconds: float
    reasons: tuple[str, ...]
    start: float
    end: float
    seconds: float
    first_seconds: float
    samples: int
    dropped: int
    damaged: int
    ended: str
    gpus: tuple[GpuSummary, ...]
    marks: tuple[Mark, ...]


@dataclasses.dataclass(slots=True)
class _Statistics:
    minimum: float = math.inf
    maximum: float = -math.inf
    mean: float = 0.0
    count: int = 0


class Tally:
    """Sums a recording up, item by item, while it is written or read."""

    def __init__(self) -> None:
        self._header: Header | None = None
        self._names: dict[tuple[str, str], str] = {}
        self._numbers: dict[Series, _Statistics] = {}
        self._marks: list[Mark] = []
        self._first: Sample | None = None
        self._last: Sample | None = None
        self._samples = 0
        self._dropped = 0
        self._ended = ""

    def add(self, item: Item) -> None:
        """Take the next item."""
        if isinstance(item, Sample):
            self._add_sample(item)
        elif isinstance(item, Header):
            self._header = item
            for gpu in item.gpus:
                self._names[gpu.gpu, gpu.uuid] = gpu.name or self._names.get(
                    (gpu.gpu, gpu.uuid), ""
                )
                for metric in KEY_METRICS:
                    self._numbers.setdefault(series_of(metric, gpu.gpu, gpu.uuid), _Statistics())
        elif isinstance(item, Mark):
            self._marks.append(item)
        else:
            self._ended, self._dropped = item.why, item.dropped

    def _add_sample(self, sample: Sample) -> None:
        self._first = self._first or sample
        self._last = sample
        self._samples += 1
        self._dropped = sample.dropped
        for series, numbers in self._numbers.items():
            value = sample.values.get(series)
            if value is not None:
                numbers.minimum = min(numbers.minimum, value)
                numbers.maximum = max(numbers.maximum, value)
                numbers.count += 1
                numbers.mean += (value - numbers.mean) / numbers.count

    def summary(self, damaged: int = 0) -> Summary | None:
        """Return what it amounts to so far; None if there is no sample."""
        header, first, last = self._header, self._first, self._last
        if header is None or first is None or last is None:
            return None
        return Summary(
            node=header.node,
            exporter=header.exporter,
            driver=header.driver,
            simulated=header.simulated,
            interval_seconds=header.interval_seconds,
            reasons=tuple(dict.fromkeys(mark.rule for mark in self._marks if mark.begins)),
            start=first.at,
            end=last.at,
            seconds=last.elapsed_seconds - first.elapsed_seconds,
            first_seconds=first.elapsed_seconds,
            samples=self._samples,
            dropped=self._dropped,
            damaged=damaged,
            ended=self._ended,
            gpus=tuple(
                GpuSummary(gpu, uuid, name, self._ranges(gpu, uuid))
                for (gpu, uuid), name in self._names.items()
            ),
            marks=tuple(self._marks),
        )

    def _ranges(self, gpu: str, uuid: str) -> dict[str, Range]:
        numbers = {metric: self._numbers[series_of(metric, gpu, uuid)] for metric in KEY_METRICS}
        return {
            metric: Range(n.minimum, n.mean, n.maximum) for metric, n in numbers.items() if n.count
        }


def series_of(metric: str, gpu: str, uuid: str) -> Series:
    """Return the series of a metric that a GPU has once."""
    return Series(metric, (("gpu", gpu), ("uuid", uuid)))


def summarise(data: Path) -> Summary | None:
    """Work the summary out from a data file; None if there is no sample in it.

    Raises:
        RecordingError: the file cannot be read, or is of an unknown version.
    """
    tally, decoder = Tally(), Decoder()
    for item in read(data, decoder):
        tally.add(item)
    return tally.summary(decoder.damaged)


def to_json(summary: Summary) -> str:
    """Return the content of summary.json."""
    return json.dumps({"version": VERSION, **asdict(summary)}, indent=1, allow_nan=False) + "\n"


def from_json(path: Path) -> Summary | None:
    """Read summary.json; None if it is not there, or not as `to_json` writes it."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(MOST_BYTES))
        if content["version"] != VERSION:
            return None
        return Summary(
            node=text_from(content["node"]),
            exporter=text_from(content["exporter"]),
            driver=text_from(content["driver"]),
            simulated=content["simulated"] is True,
            interval_seconds=number_from(content["interval_seconds"]),
            reasons=tuple(text_from(reason) for reason in content["reasons"]),
            start=number_from(content["start"]),
            end=number_from(content["end"]),
            seconds=number_from(content["seconds"]),
            first_seconds=number_from(content["first_seconds"]),
            samples=count_from(content["samples"]),
            dropped=count_from(content["dropped"]),
            damaged=count_from(content["damaged"]),
            ended=text_from(content["ended"]),
            gpus=tuple(_gpu(one) for one in content["gpus"]),
            marks=tuple(mark_from(one) for one in content["marks"]),
        )
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ):
        return None


def _gpu(one: Mapping[str, Any]) -> GpuSummary:
    return GpuSummary(
        gpu=text_from(one["gpu"]),
        uuid=text_from(one["uuid"]),
        name=text_from(one["name"]),
        metrics={
            text_from(metric): Range(
                number_from(numbers["minimum"]),
                number_from(numbers["mean"]),
                number_from(numbers["maximum"]),
            )
            for metric, numbers in one["metrics"].items()
        },
    )
