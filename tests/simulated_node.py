"""A simulated node that tests read at the times that they choose."""

from __future__ import annotations

from typing import Any

from scripted import Clock

from exporter.catalogue import GPU_READERS
from exporter.sampling import OpenDevice, Tier
from exporter.simulate import PROFILES, SimulatedDriver

NODES = sorted(set(PROFILES) - {"none"})


class Node:
    """A simulated node with all its GPUs open, read as the poller reads them."""

    def __init__(self, profile: str, max_gap_seconds: float = 3.0) -> None:
        self.clock = Clock()
        self._start = self.clock.seconds
        self.driver = SimulatedDriver(profile, self.clock)
        _, gpus = self.driver.connect()
        self.devices = [self.driver.open(gpu, GPU_READERS, max_gap_seconds) for gpu in gpus]
        self._before: list[dict[str, Any]] = [{} for _ in gpus]

    def read(self, at: float, *tiers: Tier) -> list[dict[str, Any]]:
        """Return each GPU's groups, `at` seconds after the start; all tiers unless told."""
        self.clock.seconds = self._start + at
        for device, groups in zip(self.devices, self._before, strict=True):
            groups.update(take(device, tiers or tuple(Tier), groups))
        return [dict(groups) for groups in self._before]


def take(device: OpenDevice, tiers: tuple[Tier, ...], before: dict[str, Any]) -> dict[str, Any]:
    """Read all groups of these tiers."""
    groups = {}
    for tier in tiers:
        device.begin(tier)
        for reader in GPU_READERS:
            if reader.tier is tier:
                groups[reader.group] = reader.read(device, before.get(reader.group))
    return groups


def series(profile: str, seconds: int, group: str) -> list[list[Any]]:
    """Return a group of each GPU, second by second."""
    node = Node(profile)
    ticks = [node.read(float(second), Tier.FAST) for second in range(seconds)]
    return [[tick[gpu][group] for tick in ticks] for gpu in range(len(node.devices))]
