"""P99 of the requests that ended in the last minute, from a histogram that counts since ever."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from exporter.inference.page import Labels

WINDOW_SECONDS = 60.0
QUANTILE = 0.99

Gains = dict[float, float]
"""By upper bound in seconds: how many more requests took no longer."""


class Latency:
    """What the buckets have gained, reading by reading. For one thread."""

    def __init__(self) -> None:
        self._before: Mapping[Labels, float] = {}
        self._before_at = -math.inf
        self._gains: deque[tuple[float, Gains]] = deque()  # each with when it was read

    def add(self, at: float, buckets: Mapping[Labels, float]) -> float | None:
        """Take a reading at monotonic seconds; return P99, or None: nothing ended, or it lies.

        Counters that go back are those of a server that was started anew: all begins anew.
        """
        before = self._before if at - self._before_at <= WINDOW_SECONDS else {}
        self._before, self._before_at = buckets, at
        gained: Gains = {}
        for labels in buckets.keys() & before.keys():
            gain = buckets[labels] - before[labels]
            if gain < 0:
                self._gains.clear()
                return None
            _add(gained, _bound(labels), gain)
        self._gains.append((at, gained))
        while self._gains[0][0] <= at - WINDOW_SECONDS:
            self._gains.popleft()
        total: Gains = {}
        for _, gains in self._gains:
            for bound, gain in gains.items():
                _add(total, bound, gain)
        return quantile(total)


def _bound(labels: Labels) -> float:
    return float(next(value for name, value in labels if name == "le"))


def _add(gains: Gains, bound: float, gain: float) -> None:
    gains[bound] = gains.get(bound, 0.0) + gain


def quantile(counts: Mapping[float, float]) -> float | None:
    """Return where QUANTILE of a histogram lies, as histogram_quantile of PromQL finds it.

    Within a bucket it is interpolated; beyond the highest finite bound it is that bound.

    Args:
        counts: How many were at or under each upper bound; the last must be +Inf.

    Returns:
        None without any request, and for what is no histogram.
    """
    bounds = sorted(counts)
    values = [counts[bound] for bound in bounds]
    is_histogram = len(bounds) > 1 and math.isinf(bounds[-1]) and values == sorted(values)
    if not is_histogram or bounds[0] < 0 or not 0 < values[-1] < math.inf:
        return None
    rank = QUANTILE * values[-1]
    position = next(number for number, value in enumerate(values) if value >= rank)
    if position == len(bounds) - 1:
        return bounds[-2]
    low, under = (bounds[position - 1], values[position - 1]) if position else (0.0, 0.0)
    return low + (bounds[position] - low) * ((rank - under) / (values[position] - under))
