"""How low one GPU's utilization was in the last 10 s: kept up sample by sample, never searched.

A window is the shortest stretch of samples that spans at least 10 s, so that a rule `for: 10s`
and the minimum agree on every sample. Tuples stand for rings: states are never changed in place.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from exporter.frozen import dataclass
from exporter.rules.sustained import ROUNDING_SECONDS, expected_samples, is_covered, is_hole
from exporter.rules_view import Window

Ring = tuple[tuple[float, float], ...]  # (monotonic seconds, value)

WINDOW_SECONDS = 10.0
HISTORY_SECONDS = 60.0
MAX_GAP_SECONDS = 3.0
MIN_COVERAGE = 0.9


@dataclass(frozen=True, slots=True)
class Track:
    """One GPU's samples, as far as windows need them; times are monotonic.

    Attributes:
        first_at: Of the first sample ever.
        times: Of the samples of the last 60 s.
        run_at: Of the first sample since the last hole; None while the GPU has a fault.
        lows: Samples lower than all later ones: the first is the minimum.
        minimum: Of the window that ends with the last sample; None where that is not covered.
        peaks: Minima higher than all later ones: the first is the peak.
    """

    first_at: float
    times: tuple[float, ...] = ()
    run_at: float | None = None
    lows: Ring = ()
    minimum: float | None = None
    peaks: Ring = ()


def add(track: Track | None, at: float, value: float, interval: float) -> Track:
    """Take one more sample."""
    if track is None:
        track = Track(first_at=at)
    run_at, lows = track.run_at, track.lows
    if run_at is None or not track.times or is_hole(at - track.times[-1], MAX_GAP_SECONDS):
        run_at, lows = at, ()
    times = (*track.times[bisect_right(track.times, at - HISTORY_SECONDS) :], at)
    end = len(lows)
    while end and lows[end - 1][1] >= value:
        end -= 1
    lows = (*lows[:end], (at, value))
    peaks, minimum = track.peaks, None
    first = bisect_right(times, at - WINDOW_SECONDS + ROUNDING_SECONDS) - 1
    if first >= 0 and times[first] >= run_at:
        lows = _since(lows, times[first])
        expected = expected_samples(at - times[first], interval)
        if is_covered(len(times) - first, expected, MIN_COVERAGE):
            minimum = lows[0][1]
            peaks = _with_peak(peaks, at, minimum)
    return Track(track.first_at, times, run_at, lows, minimum, peaks)


def broken(track: Track) -> Track:
    """Take a fault: no window goes across it."""
    return Track(track.first_at, track.times, peaks=track.peaks)


def window(track: Track, now: float, interval: float) -> Window:
    """Return what is known of the last 10 s and 60 s at `now`."""
    samples = len(track.times) - bisect_right(track.times, now - HISTORY_SECONDS)
    peak = bisect_left(track.peaks, (now - HISTORY_SECONDS,))
    is_current = samples > 0 and not is_hole(now - track.times[-1], MAX_GAP_SECONDS)
    expected = max(1, round(min(HISTORY_SECONDS, now - track.first_at + interval) / interval))
    return Window(
        minimum_ratio=track.minimum if is_current else None,
        peak_minimum_ratio=track.peaks[peak][1] if peak < len(track.peaks) else None,
        coverage_ratio=min(1.0, samples / expected),
    )


def _with_peak(peaks: Ring, at: float, minimum: float) -> Ring:
    peaks = _since(peaks, at - HISTORY_SECONDS)
    end = len(peaks)
    while end and peaks[end - 1][1] <= minimum:
        end -= 1
    return (*peaks[:end], (at, minimum))


def _since(ring: Ring, at: float) -> Ring:
    return ring[bisect_left(ring, (at,)) :]
