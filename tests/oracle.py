"""The same snapshot by prometheus_client: what our page must mean."""

from __future__ import annotations

import math
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from exporter.catalogue import CATALOGUE, Table
from exporter.metric import Kind, Metric, Row, unit_of
from exporter.snapshot import Snapshot

Sample = tuple[str, tuple[tuple[str, str], ...], float]
Meaning = dict[str, tuple[str, str, str, frozenset[Sample]]]


class SnapshotCollector(Collector):
    """A snapshot as prometheus_client's families, straight from the catalogue."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Family]:
        """Yield the families that have samples."""
        for table in CATALOGUE:
            for metric in table.metrics:
                family = _family(table, metric, self._snapshot)
                if family.samples:
                    yield family


def _family(table: Table, metric: Row[object], snapshot: Snapshot) -> Family:
    samples: list[tuple[dict[str, str], float]] = []
    for labels, thing in table.rows(snapshot):
        common = dict(zip(table.labels, labels, strict=True))
        names: tuple[str, ...] = ()
        values: dict[tuple[str, ...], float | None]
        if isinstance(metric, Metric):
            values = {(): metric.value(thing)}
        else:
            names = metric.labels
            values = {
                (own,) if isinstance(own, str) else own: value
                for own, value in metric.values(thing).items()
            }
        samples += [
            ({**common, **dict(zip(names, own, strict=True))}, value)
            for own, value in values.items()
            if value is not None and math.isfinite(value)
        ]
    unit = unit_of(metric.name)
    if metric.kind is Kind.INFO:
        family: Family = InfoMetricFamily(metric.name.removesuffix("_info"), metric.help)
    elif metric.kind is Kind.COUNTER:
        family = CounterMetricFamily(metric.name, metric.help, labels=[], unit=unit)
    else:
        family = GaugeMetricFamily(metric.name, metric.help, labels=[], unit=unit)
    for named, value in samples:
        family.add_sample(metric.name, named, value)
    return family


def oracle(snapshot: Snapshot, *, openmetrics: bool) -> str:
    """Return the page as prometheus_client writes it."""
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(snapshot))
    generate = generate_openmetrics if openmetrics else generate_latest
    page: bytes = generate(registry)
    return page.decode()


def meaning(page: str, *, openmetrics: bool) -> Meaning:
    """Return what a page says: family name to type, unit, help and samples."""
    families = list((parse_openmetrics if openmetrics else parse_text)(page))
    said = {
        family.name: (
            family.type,
            family.unit,
            family.documentation,
            frozenset(
                (s.name, tuple(sorted(s.labels.items())), float(s.value)) for s in family.samples
            ),
        )
        for family in families
    }
    assert len(said) == len(families), "a family stands on the page twice"
    return said
