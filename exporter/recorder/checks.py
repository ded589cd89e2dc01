"""JSON as it comes from a file -> values of the type that was meant, or an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from exporter.recorder.model import Mark
from exporter.scaleout.model import SeriesSummary


def text_from(value: object) -> str:
    """Return text; raises TypeError or ValueError."""
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # half a surrogate pair could not be written anywhere
    return value


def number_from(value: object) -> float:
    """Return a finite number; raises TypeError or OverflowError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError
    return value


def count_from(value: object) -> int:
    """Return a whole number from 0 on; raises TypeError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError
    return value


def mark_from(frame: Mapping[str, Any]) -> Mark:
    """Return a mark; raises KeyError, TypeError or ValueError where it is none."""
    return Mark(
        kind=text_from(frame["kind"]),
        rule=text_from(frame["rule"]),
        reason=text_from(frame["reason"]),
        scale_group=text_from(frame["scale_group"]),
        started_at=number_from(frame["started_at"]),
        fired_at=number_from(frame["fired_at"]),
        at=number_from(frame["at"]),
        elapsed_seconds=number_from(frame["elapsed_seconds"]),
        series=tuple(_series_summary(one) for one in frame["series"]),
    )


def _series_summary(one: Mapping[str, Any]) -> SeriesSummary:
    return SeriesSummary(
        gpu=text_from(one["gpu"]),
        uuid=text_from(one["uuid"]),
        value=number_from(one["value"]),
        minimum=number_from(one["minimum"]),
        mean=number_from(one["mean"]),
        samples=count_from(one["samples"]),
        expected=count_from(one["expected"]),
    )
