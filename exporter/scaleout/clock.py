"""The two clocks: one that people read, and one that nobody can set."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from exporter.frozen import dataclass

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Clock:
    """Time in seconds.

    Cooldowns, deadlines and pauses are measured by `since_boot`, which is the same in every
    process of a boot: whoever sets the wall clock neither ends nor prolongs them.

    Attributes:
        wall: Since the epoch; may jump.
        since_boot: Since the machine was started, suspension included; only ever grows.
        boot: Which boot that is; "" if unknown.
    """

    wall: Callable[[], float]
    since_boot: Callable[[], float]
    boot: str


def system_clock() -> Clock:
    """Return this machine's clocks."""
    try:
        boot = BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return Clock(time.time, lambda: time.clock_gettime(time.CLOCK_BOOTTIME), boot)


def rfc3339(seconds: float) -> str:
    """Return seconds since the epoch as `2026-11-21T09:40:10.123Z`."""
    milliseconds = round(seconds * 1000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{moment}.{milliseconds % 1000:03d}Z"
