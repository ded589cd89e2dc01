"""Wall clock times as people read them. A clock may be anywhere; no time is an error."""

from __future__ import annotations

import time

LAST_SECOND = 253_402_300_799.0  # of the year 9999


def stamp(at: float) -> str:
    """Return seconds since the epoch as part of a file name: 20261121T105900Z."""
    return _format("%Y%m%dT%H%M%SZ", at)


def utc(at: float) -> str:
    """Return seconds since the epoch as 2026-11-21 10:59:00."""
    return _format("%Y-%m-%d %H:%M:%S", at)


def time_of_day(at: float) -> str:
    """Return seconds since the epoch as 10:59:00."""
    return _format("%H:%M:%S", at)


def day_and_time(at: float) -> str:
    """Return seconds since the epoch as 11-21 10:59."""
    return _format("%m-%d %H:%M", at)


def iso(at: float) -> str:
    """Return seconds since the epoch as 2026-11-21T10:59:00.123Z."""
    milliseconds = round(_clamped(at) * 1000)
    whole, rest = divmod(milliseconds, 1000)
    return _format(f"%Y-%m-%dT%H:%M:%S.{rest:03d}Z", whole)


def _format(form: str, at: float) -> str:
    return time.strftime(form, time.gmtime(int(_clamped(at))))


def _clamped(at: float) -> float:
    return min(max(at, 0.0), LAST_SECOND)
