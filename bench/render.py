"""Rendering by itself: our page beside prometheus_client's generate_latest, on the same values."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import node
from client import BenchError
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from exporter.exposition import Page
from exporter.snapshot import Gpu, Snapshot

COPIES = (1, 4)  # of the node's 8 GPUs


@dataclass(frozen=True, slots=True)
class Rendering:
    """CPU seconds of a page of so many series.

    usual: from one tick to the next. renewed: every reading is another object. client: by
    prometheus_client, from families that are ready to be printed.
    """

    series: int
    usual: float
    renewed: float
    client: float


def measure(seconds: float) -> list[Rendering]:
    """Render pages of several sizes, each way for `seconds`.

    Raises:
        BenchError: both renderers do not show the same.
    """
    ticks = node.ticks(2 + node.SLOW_SECONDS)[2:]  # rates are there from the second on
    return [_measure([_widened(tick, copies) for tick in ticks], seconds) for copies in COPIES]


def _measure(snapshots: Sequence[Snapshot], seconds: float) -> Rendering:
    page = Page(openmetrics=False)
    text = page.plain(snapshots[-1]).decode()
    registry = _ready(text)
    series = _series(text)
    if series != _series(generate_latest(registry).decode()):
        raise BenchError("generate_latest shows other series than our page")
    # To and fro, so that every page follows its neighbour in time.
    usual = [*snapshots, *snapshots[-2:0:-1]]
    renewed = [_renewed(snapshot) for snapshot in usual]

    def render(these: Sequence[Snapshot]) -> Callable[[], None]:
        def once() -> None:
            for snapshot in these:
                page.plain(snapshot)

        return once

    return Rendering(
        series=len(series),
        usual=_median(render(usual), seconds) / len(usual),
        renewed=_median(render(renewed), seconds) / len(renewed),
        client=_median(lambda: generate_latest(registry), seconds),
    )


def _median(work: Callable[[], object], seconds: float) -> float:
    """Return the median CPU seconds of the work, after a first time that does not count."""
    work()
    taken: list[float] = []
    until = time.monotonic() + seconds
    while len(taken) < 3 or time.monotonic() < until:
        before = time.thread_time()
        work()
        taken.append(time.thread_time() - before)
    return statistics.median(taken)


def _widened(snapshot: Snapshot, copies: int) -> Snapshot:
    """Return the snapshot with so many times as many GPUs."""
    count = len(snapshot.gpus)
    gpus = tuple(
        dataclasses.replace(gpu, index=copy * count + gpu.index, uuid=f"{gpu.uuid[:-1]}{copy:x}")
        for copy in range(copies)
        for gpu in snapshot.gpus
    )
    return dataclasses.replace(snapshot, gpus=gpus)


def _renewed(snapshot: Snapshot) -> Snapshot:
    """Return an equal snapshot that shares no reading with any other."""
    host = snapshot.host
    return dataclasses.replace(
        snapshot,
        gpus=tuple(dataclasses.replace(gpu, **_parts(gpu)) for gpu in snapshot.gpus),
        host=None if host is None else dataclasses.replace(host, **_parts(host)),
    )


def _parts(owner: Gpu | Any) -> dict[str, Any]:  # noqa: ANN401  or a Host: any dataclass
    parts = {field.name: getattr(owner, field.name) for field in dataclasses.fields(owner)}
    return {
        name: dataclasses.replace(part)
        for name, part in parts.items()
        if dataclasses.is_dataclass(part) and not isinstance(part, type)
    }


class _Ready(Collector):
    """Gives families that were made beforehand: nothing but the rendering is measured."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def _ready(text: str) -> CollectorRegistry:
    registry = CollectorRegistry()
    families = []
    for parsed in text_string_to_metric_families(text):
        names = tuple(parsed.samples[0].labels)
        family = GaugeMetricFamily(parsed.samples[0].name, parsed.documentation, labels=names)
        for sample in parsed.samples:
            family.add_metric([sample.labels[name] for name in names], sample.value)
        families.append(family)
    registry.register(_Ready(families))
    return registry


def _series(text: str) -> set[tuple[str, tuple[tuple[str, str], ...], float]]:
    return {
        (sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
