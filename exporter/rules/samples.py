"""A snapshot as rules see it: the valid samples of each GPU and of the node."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from exporter.catalogue import CATALOGUE, GPU_LABELS, RULE_METRICS, RULE_ONLY, Table, watched
from exporter.config import Rule, ScaleGroup
from exporter.config.groups import indexes
from exporter.frozen import dataclass
from exporter.snapshot import Gpu, Snapshot

UTILIZATION = "gpu_utilization_ratio"

_TABLES: Mapping[str, tuple[Table, Callable[[Any], float | None]]] = MappingProxyType(
    {
        row.name: (table, value)
        for table in (*CATALOGUE, *RULE_ONLY)
        for row in table.metrics
        if row.name in RULE_METRICS and (value := watched(row)) is not None
    }
)


@dataclass(frozen=True, slots=True)
class Column:
    """One metric, and where its values stand in a snapshot; above `highest` they are no samples."""

    name: str
    is_per_gpu: bool
    things: Callable[[Snapshot], list[Any]]
    value: Callable[[Any], float | None]
    highest: float


@dataclass(frozen=True, slots=True)
class GpuTick:
    """One GPU at one tick.

    Attributes:
        key: What its states go by: the UUID, which survives a renumbering.
        owner: The label values `gpu` and `uuid`.
        group: Its scale group.
        is_healthy: False while it has a fault.
        at: Monotonic seconds of its last samples; None before the first.
        values: Valid samples by metric.
    """

    index: int
    key: str
    owner: tuple[str, str]
    group: str
    is_healthy: bool
    at: float | None
    values: Mapping[str, float]

    def with_values(self, values: Mapping[str, float]) -> GpuTick:
        """Return the same GPU with other samples; several times faster than `replace`."""
        return GpuTick(
            self.index, self.key, self.owner, self.group, self.is_healthy, self.at, values
        )


@dataclass(frozen=True, slots=True)
class Tick:
    """All samples of one snapshot.

    Attributes:
        at: Monotonic seconds at its beginning; GPUs are read a moment later.
        wall: The same in seconds since the epoch.
        gpus: By their index.
        node: The node's own valid samples by metric.
        node_group: The node's scale group.
    """

    at: float
    wall: float
    gpus: tuple[GpuTick, ...]
    node: Mapping[str, float]
    node_group: str


@dataclass(frozen=True, slots=True)
class Groups:
    """Which scale group a GPU belongs to: by UUID or index, else to `default`."""

    by_gpu: Mapping[str, str]
    default: str

    def of(self, gpu: Gpu) -> str:
        """Return the name of a GPU's scale group."""
        return self.by_gpu.get(gpu.uuid, self.by_gpu.get(str(gpu.index), self.default))


def grouping(groups: Iterable[ScaleGroup], labels: Mapping[str, str]) -> Groups:
    """Return the scale groups; a GPU of two belongs to the first, one of none to the node's."""
    by_gpu: dict[str, str] = {}
    for group in groups:
        for entry in group.gpus:
            for name in (entry, *map(str, indexes(entry))):
                by_gpu.setdefault(name, group.name)
    return Groups(by_gpu, labels.get("scale_group", ""))


def columns(rules: Iterable[Rule]) -> tuple[Column, ...]:
    """Return what must be looked up for these rules, and for the windows.

    Raises:
        KeyError: a rule names a metric that is not one of RULE_METRICS.
    """
    names = dict.fromkeys([UTILIZATION])
    for rule in rules:
        names[rule.metric] = None
        if rule.and_ is not None:
            names[rule.and_.metric] = None
    return tuple(_column(name) for name in names)


def is_per_gpu(metric: str) -> bool:
    """Tell whether a metric has a value for each GPU, not one for the node."""
    return _TABLES[metric][0].labels == GPU_LABELS


def take(snapshot: Snapshot, wall: float, wanted: Iterable[Column], groups: Groups) -> Tick:
    """Return a snapshot's samples: what is absent, NaN, negative, or a ratio above 1, is none."""
    of_gpus: list[dict[str, float]] = [{} for _ in snapshot.gpus]
    of_node: dict[str, float] = {}
    for column in wanted:
        owners = of_gpus if column.is_per_gpu else [of_node]
        name, value, highest = column.name, column.value, column.highest
        for values, thing in zip(owners, column.things(snapshot), strict=True):
            sample = None if thing is None else value(thing)
            if sample is not None and 0 <= sample <= highest:
                values[name] = sample
    gpus = [
        _gpu_tick(gpu, values, groups) for gpu, values in zip(snapshot.gpus, of_gpus, strict=True)
    ]
    gpus.sort(key=attrgetter("index"))
    return Tick(snapshot.taken_at, wall, tuple(gpus), of_node, groups.default)


def _gpu_tick(gpu: Gpu, values: Mapping[str, float], groups: Groups) -> GpuTick:
    is_healthy = gpu.fault is None
    return GpuTick(
        index=gpu.index,
        key=gpu.uuid or f"gpu {gpu.index}",
        owner=(str(gpu.index), gpu.uuid),
        group=groups.of(gpu),
        is_healthy=is_healthy,
        at=gpu.sampled_at,
        values=values if is_healthy else {},
    )


def _column(name: str) -> Column:
    table, value = _TABLES[name]
    highest = 1.0 if name.endswith("_ratio") else sys.float_info.max
    return Column(name, is_per_gpu(name), table.things, value, highest)
