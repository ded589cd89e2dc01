"""Lines that panels draw where an alert of alerts/ fires; the tests compare the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.models import dashboard

ANY = 1.0  # for counts of what should not be there at all
GOOD = "green"


@dataclass(frozen=True, slots=True)
class Limit:
    """Where an alert fires: at and above the value, or below it."""

    alert: str
    value: float
    color: str
    below: bool = False


def critical(alert: str, value: float, *, below: bool = False) -> Limit:
    """Return the limit of an alert that pages."""
    return Limit(alert, value, "red", below)


def warning(alert: str, value: float, *, below: bool = False) -> Limit:
    """Return the limit of an alert that makes a ticket."""
    return Limit(alert, value, "orange", below)


def info(alert: str, value: float) -> Limit:
    """Return the limit of an alert that no person is told of."""
    return Limit(alert, value, "blue")


def thresholds(limits: Sequence[Limit], base: str = GOOD) -> builder.ThresholdsConfig:
    """Return Grafana's thresholds: a base color, and the color from each value on."""
    steps = [dashboard.Threshold(value=None, color=base)]
    for limit in sorted(limits, key=lambda limit: limit.value):
        if limit.below:
            steps[-1].color = limit.color
        color = base if limit.below else limit.color
        steps.append(dashboard.Threshold(value=limit.value, color=color))
    return builder.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)
