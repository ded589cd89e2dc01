"""Snapshots for the rules: one number per GPU and tick instead of a driver."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from exporter.config import Rule, ScaleGroup
from exporter.gpu.memory import Memory
from exporter.gpu.utilization import Utilization
from exporter.host.memory import Memory as HostMemory
from exporter.rules import Engine, Firing
from exporter.sampling import Fault
from exporter.scaleout.model import RuleEvent
from exporter.snapshot import Build, Gpu, Host, Reload, Snapshot

EPOCH = 1_800_000_000.0  # wall time at monotonic 0
SUSTAINED = Rule(
    "GpuSustainedLoad",
    "gpu_utilization_ratio",
    above=0.95,
    for_seconds=10.0,
    clear_below=0.85,
    keep_firing_for_seconds=30.0,
    actions=("record", "scale-out"),
)

Load = float | None | Fault
"""A GPU at a tick: its utilization, None where that was not read, or a fault."""


def node(
    at: float, loads: Sequence[Load], memory: float | None = None, host: float | None = None
) -> Snapshot:
    """Return a node with one GPU per load, of `memory` used, with `host` memory used (ratios)."""
    gpus = []
    for index, load in enumerate(loads):
        uuid = f"GPU-{index}"
        if isinstance(load, Fault):
            gpus.append(Gpu(index, uuid, load, sampled_at=at - 5))
            continue
        used = None if memory is None else Memory(1000, int(memory * 1000), 0, 0)
        gpus.append(Gpu(index, uuid, None, at, utilization=Utilization(at, load), memory=used))
    free = None if host is None else 1000 - int(host * 1000)
    return Snapshot(
        taken_at=at,
        now=at,
        stale_after_seconds=4.0,
        build=Build("1", "3.10", simulated=False),
        reload=Reload(successful=True, success_timestamp_seconds=0.0),
        gpus=tuple(gpus),
        host=None if free is None else Host(memory=HostMemory(1000, free, free, 0)),
    )


def engine(
    *rules: Rule,
    interval: float = 1.0,
    groups: tuple[ScaleGroup, ...] = (),
    restored: Firing | None = None,
) -> Engine:
    """Return an engine of these rules, or of SUSTAINED."""
    return Engine(rules or (SUSTAINED,), groups, {"scale_group": "llm"}, interval, restored or {})


def play(
    watcher: Engine, series: Iterable[tuple[float, Load]], since: float = 0.0
) -> list[tuple[float, RuleEvent]]:
    """Feed (time, load) of a node with one GPU; return the events with their times."""
    return [
        (at, event)
        for at, load in series
        for event in watcher.observe(node(since + at, [load]), EPOCH + at)
    ]


def seconds(*stretches: tuple[int, Load]) -> list[tuple[float, Load]]:
    """Return stretches of (how many samples, load) at 1 Hz, from 0 s on."""
    loads = [load for count, load in stretches for _ in range(count)]
    return [(float(at), load) for at, load in enumerate(loads)]


def told(events: Iterable[tuple[float, RuleEvent]]) -> list[tuple[float, str]]:
    """Return when which kind of event came."""
    return [(at, event.kind.value) for at, event in events]
