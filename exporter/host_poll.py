"""Reads the host's groups that are due; each fails alone."""

from __future__ import annotations

import math
import time
from typing import Any

from exporter.host import Group
from exporter.ledger import Ledger
from exporter.sampling import Tier
from exporter.snapshot import Host

# The kernel takes the longer over /proc/stat the more CPUs there are, and over disks likewise.
MEDIUM_SECONDS = 5.0


class HostPoll:
    """The host's readings between two ticks. Changed by the poller's thread alone."""

    def __init__(self, groups: tuple[Group[Any], ...], slow_seconds: float) -> None:
        self._groups = groups
        self._periods = {Tier.MEDIUM: MEDIUM_SECONDS, Tier.SLOW: slow_seconds}
        self._turns: dict[Tier, int] = {}
        self._readings: dict[str, Any] = {}

    def read(self, now: float, ledger: Ledger) -> Host:
        """Return the host: fast groups of this moment, the others of their last turn."""
        turns = {tier: math.floor(now / period) for tier, period in self._periods.items()}
        waiting = {tier for tier, turn in turns.items() if self._turns.get(tier) == turn}
        self._turns = turns
        seconds: dict[str, float] = {}
        errors: dict[str, str] = {}
        for group in self._groups:
            if group.tier not in waiting:
                started = time.perf_counter()
                try:
                    self._readings[_part(group)] = self._next(group)
                except (OSError, ValueError) as error:
                    self._readings[_part(group)] = None
                    errors[group.name] = type(error).__name__.lower()
                seconds[group.name] = time.perf_counter() - started
        ledger.durations(seconds)
        ledger.readings("host", seconds, errors)
        return Host(**self._readings)

    def _next(self, group: Group[Any]) -> object:
        before, reading = self._readings.get(_part(group)), group.read()
        if group.following is None or before is None:
            return reading
        return group.following(before, reading)


def _part(group: Group[Any]) -> str:
    """Return the attribute of snapshot.Host that a group fills."""
    return group.name.removeprefix("host_")
