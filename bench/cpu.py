"""What a process with all its children costs: CPU time and memory, read from outside."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psutil

KIB = 1024
# include/linux/posix-timers.h: the clock of a process is its id, inverted, over these bits.
CPUCLOCK_SCHED = 2
CPUCLOCK_BITS = 3


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in bytes; PSS counts a page that n processes share as its nth part."""

    rss_bytes: int
    pss_bytes: int


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process and its children have used, to the nanosecond.

    The process's own CPU clock: that of threads which have ended included, as /proc/PID/task has
    not, and unlike /proc/PID/stat not in ticks of 10 ms.

    Raises:
        OSError: there is no such process.
    """
    return sum(time.clock_gettime(~one << CPUCLOCK_BITS | CPUCLOCK_SCHED) for one in _tree(pid))


def memory(pid: int) -> Memory:
    """Return the memory of a process and its children, from /proc/PID/smaps_rollup.

    Raises:
        OSError: there is no such process, or it is another user's.
    """
    rss = pss = 0
    for one in _tree(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii").splitlines():
            key, _, rest = line.partition(":")
            if key in ("Rss", "Pss"):
                size = int(rest.split()[0]) * KIB
                rss, pss = (rss + size, pss) if key == "Rss" else (rss, pss + size)
    return Memory(rss, pss)


def _tree(pid: int) -> list[int]:
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
