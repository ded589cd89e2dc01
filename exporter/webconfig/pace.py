"""A limit of requests, by a bucket of tokens."""

from __future__ import annotations

import time
from collections.abc import Callable

from exporter.webconfig.model import RateLimit


class Pace:
    """Counts the requests of all clients together."""

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._tokens = float(limit.burst)
        self._counted_at = clock()

    def allows(self) -> bool:
        """Count one request, and return whether it may be answered."""
        interval = self._limit.interval_seconds
        if not interval:
            return True
        now = self._clock()
        earned = (now - self._counted_at) / interval
        self._tokens = min(float(self._limit.burst), self._tokens + earned)
        self._counted_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
