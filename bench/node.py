"""Snapshots of a simulated node of 8 H100, a second apart by a clock of the bench."""

from __future__ import annotations

import time

from exporter.board import Plan
from exporter.catalogue import GPU_READERS
from exporter.host import GROUPS
from exporter.poll import Poller, Sources
from exporter.simulate import SimulatedDriver
from exporter.snapshot import Build, Process, Reload, Snapshot
from exporter.status import PROCESS_METRICS

PROFILE = "h100x8"
SLOW_SECONDS = 30


class _Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def ticks(count: int) -> list[Snapshot]:
    """Return so many snapshots, one after another."""
    clock = _Clock()
    poller = Poller(
        Sources(
            SimulatedDriver(PROFILE, clock),
            Build("0", "3", simulated=True),
            _process,
            clock,
        ),
        Plan(GPU_READERS, 1.0, float(SLOW_SECONDS), 5.0, 10.0),
        GROUPS,
        Reload(successful=True, success_timestamp_seconds=1.0),
    )
    snapshots = []
    for _ in range(count):
        clock.seconds += 1.0
        snapshots.append(poller.tick())
    return snapshots


def _process() -> Process:
    return Process({metric.name: time.process_time() for metric in PROCESS_METRICS})
