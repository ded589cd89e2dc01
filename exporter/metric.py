"""What a metric row is: a name, a help text, and where in a reading its value stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Generic, TypeVar

from exporter.frozen import dataclass

T = TypeVar("T")

# Longest first: "_bytes_per_second" also ends in "_second".
UNITS = (
    "bytes_per_second",
    "celsius",
    "joules",
    "seconds",
    "bytes",
    "hertz",
    "ratio",
    "watts",
)


class Kind(Enum):
    """Metric types of the Prometheus exposition formats that this project uses."""

    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"


def unit_of(name: str) -> str:
    """Return the base unit that a metric's name ends with, or "" for a bare number."""
    stem = name.removesuffix("_total")
    return next((unit for unit in UNITS if stem.endswith("_" + unit)), "")


@dataclass(frozen=True, slots=True)
class Metric(Generic[T]):
    """One number of a reading `T`.

    `value` returns None where the board has no such reading: no series, never 0.
    """

    name: str
    help: str
    value: Callable[[T], float | None]
    kind: Kind = Kind.GAUGE


@dataclass(frozen=True, slots=True)
class MetricVec(Generic[T]):
    """Several numbers of a reading `T` under one name, told apart by labels of their own.

    `values` maps label values to numbers: the bare value where there is one label, a tuple in
    the order of `labels` where there are more.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    values: Callable[[T], Mapping[Any, float | None]]
    kind: Kind = Kind.GAUGE


Row = Metric[T] | MetricVec[T]
