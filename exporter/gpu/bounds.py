"""What a reading can be at all: beyond it, a driver's answer is garbage, and there is no reading.

The bounds are far from any board that there is. They part readings from garbage, not good from bad.
"""

from __future__ import annotations

from typing import TypeVar

Number = TypeVar("Number", int, float)

MAX_BYTES = 1 << 50  # of memory, and per second over a link
MAX_CLOCK_MEGAHERTZ = 100_000
MAX_MILLIWATTS = 100_000_000
MAX_PSTATE = 15  # nvmlPstates_t
MAX_PCIE_GENERATION, MAX_PCIE_LANES = 15, 64
MAX_FANS, MAX_FAN_PERCENT = 32, 1000
MAX_COUNT = (1 << 63) - 1  # beyond it are "no value", and what is below 0


def within(number: Number | None, lowest: float, highest: float) -> Number | None:
    """Return the number, or None if it is not one from `lowest` to `highest`."""
    return number if number is not None and lowest <= number <= highest else None


def count(number: Number | None) -> Number | None:
    """Return what a counter can have, in whatever type the driver gives it."""
    return within(number, 0, MAX_COUNT)


def flag(number: Number | None) -> Number | None:
    """Return 0 or 1 (nvmlEnableState_t), and None for what is neither."""
    return number if number in (0, 1) else None
