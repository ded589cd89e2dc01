"""Where the ticks of an axis stand, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Iterator

from exporter.recorder.clock import day_and_time, time_of_day

DAY = 86_400
TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, DAY)
MOST_TIME_TICKS = 11
EPSILON = 1e-9


def step(span: float, most: int) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that divides a span into at most `most`.

    A span that is not above 0 counts as 1.
    """
    rough = (span if span > 0 else 1.0) / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= rough * (1 - EPSILON))


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers from low to high."""
    size = step(high - low, most)
    first = math.ceil(low / size - EPSILON)
    last = math.floor(high / size + EPSILON)
    return [number * size for number in range(first, last + 1)]


def around(low: float, high: float, least: float) -> tuple[float, float]:
    """Return round ends of an axis that holds low and high, and spans `least` or more."""
    size = step(max(high - low, least), 4)
    bottom = math.floor(low / size + EPSILON) * size
    top = max(math.ceil(high / size - EPSILON) * size, bottom + least)
    return bottom, top


def times(start: float, end: float) -> Iterator[tuple[float, str]]:
    """Yield round times between two wall clocks (seconds since the epoch), and their text."""
    span = end - start
    most = MOST_TIME_TICKS
    size = next((s for s in TIME_STEPS if span / s <= most), math.ceil(span / most / DAY) * DAY)
    for number in range(math.ceil(start / size), math.floor(end / size) + 1):
        at = float(number * size)
        yield at, time_of_day(at) if size < DAY else day_and_time(at)
