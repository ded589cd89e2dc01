"""Reads the host's groups that are due; each fails alone."""

from __future__ import annotations

import math
import time
from typing import Any

from exporter.host import Group
from exporter.ledger import Ledger
from exporter.sampling import Tier
from exporter.snapshot import Host


class HostPoll:
    """The host's readings between two ticks. Changed by the poller's thread alone."""

    def __init__(self, groups: tuple[Group[Any], ...], slow_seconds: float) -> None:
        self._groups = groups
        self._slow_seconds = slow_seconds
        self._slow_turn: int | None = None
        self._readings: dict[str, Any] = {}

    def read(self, now: float, ledger: Ledger) -> Host:
        """Return the host: fast groups of this moment, slow ones of their last turn."""
        turn = math.floor(now / self._slow_seconds)
        slow_due, self._slow_turn = turn != self._slow_turn, turn
        seconds: dict[str, float] = {}
        errors: dict[str, str] = {}
        for group in self._groups:
            if group.tier is Tier.FAST or slow_due:
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
