"""What "for 10 s" means: rules and windows both ask here."""

from __future__ import annotations

import math

ROUNDING_SECONDS = 1e-6  # differences of clock readings are not exact


def has_lasted(elapsed_seconds: float, wanted_seconds: float) -> bool:
    """Tell whether the time from the first sample to the last is long enough."""
    return elapsed_seconds >= wanted_seconds - ROUNDING_SECONDS


def is_hole(elapsed_seconds: float, max_gap_seconds: float) -> bool:
    """Tell whether neighbouring samples are too far apart to speak for the time between them."""
    return elapsed_seconds > max_gap_seconds + ROUNDING_SECONDS


def expected_samples(elapsed_seconds: float, interval_seconds: float) -> int:
    """Return how many samples there should be from the first to the last, both counted."""
    return round(elapsed_seconds / interval_seconds) + 1


def is_covered(samples: int, expected: int, min_coverage: float) -> bool:
    """Tell whether enough samples are valid.

    The share counts in whole samples: 90 % of the 11 samples in 10 s are 9.
    """
    return samples >= math.floor(min_coverage * expected)
