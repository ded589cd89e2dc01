"""The processes of this host that use GPUs: /proc/PID, for the few PIDs that a driver names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from io import FileIO
from pathlib import Path

from exporter.cgroup import Attribution, attribution
from exporter.frozen import dataclass
from exporter.host.procfs import PROC, number, text
from exporter.procs import HostProcess

INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # include/linux/proc_ns.h: PROC_PID_INIT_INO
# From this branch on, the driver lists PIDs as the caller's namespace numbers them. Its
# utilization samples still have those of the host.
TRANSLATING_DRIVER = 560
MOST_BYTES = 1 << 16  # of one file
_REAL_UID = re.compile(rb"\nUid:\t([0-9]+)")

# Fields of /proc/PID/stat, counted from what follows the name (proc_pid_stat(5): minus 3).
_USER_TICKS, _SYSTEM_TICKS, _START_TICKS, _RESIDENT_PAGES = 11, 12, 19, 21


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of a process: the start tells it from a later one with its PID."""

    start_ticks: int
    started_at_seconds: float
    user: str
    cgroup: bytes
    attribution: Attribution


class Processes:
    """Reads processes, and remembers what does not change. See procs.ProcessSource."""

    def __init__(self, user: Callable[[int], str], proc: Path = PROC) -> None:
        """Take what names a user by its number."""
        self._user = user
        self._proc = str(proc)
        self._tick_hertz = os.sysconf("SC_CLK_TCK")
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._known: dict[int, _Known] = {}
        self.samples_match = _in_initial_namespace(self._proc)

    def pids_match(self, driver_version: str) -> bool:
        """Return whether the PIDs that this driver lists are those of our /proc."""
        if self.samples_match:
            return True
        major = driver_version.partition(".")[0]
        return major.isdecimal() and int(major) >= TRANSLATING_DRIVER

    def read(self, pid: int) -> HostProcess | None:
        """Read /proc/PID/{stat,cgroup,status}; None: it ended, or we may not see it.

        With hidepid, another user's process looks as if it were not there. Nothing of it is 0.
        """
        folder = f"{self._proc}/{pid}"
        try:
            name, fields = _stat(_bytes(f"{folder}/stat"))
            cgroup = _bytes(f"{folder}/cgroup")
            start_ticks = int(fields[_START_TICKS])
            known = self._known.get(pid)
            if known is None or known.start_ticks != start_ticks:
                known = self._learn(folder, start_ticks, cgroup)
            elif known.cgroup != cgroup:  # it was moved to another group
                moved_to = attribution(cgroup.decode(errors="replace"))
                known = replace(known, cgroup=cgroup, attribution=moved_to)
            self._known[pid] = known
            return HostProcess(
                pid,
                name,
                known.user,
                known.started_at_seconds,
                int(fields[_RESIDENT_PAGES]) * self._page_bytes,
                (int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])) / self._tick_hertz,
                known.attribution,
            )
        except (OSError, ValueError, IndexError):
            self._known.pop(pid, None)
            return None

    def keep(self, pids: Collection[int]) -> None:
        """Forget all other processes."""
        for pid in [pid for pid in self._known if pid not in pids]:
            del self._known[pid]

    def _learn(self, folder: str, start_ticks: int, cgroup: bytes) -> _Known:
        # The real user: /proc/PID belongs to root where a process may not be dumped.
        match = _REAL_UID.search(_bytes(f"{folder}/status"))
        return _Known(
            start_ticks,
            self._booted_at_seconds() + start_ticks / self._tick_hertz,
            self._user(int(match[1])) if match else "",
            cgroup,
            attribution(cgroup.decode(errors="replace")),
        )

    def _booted_at_seconds(self) -> int:
        # Read at each new process, and then kept with it: it follows the clock when that is set.
        booted = number(text(f"{self._proc}/stat"), "btime ")
        if booted is None:
            raise ValueError("/proc/stat has no btime")
        return booted


def _bytes(path: str) -> bytes:
    with FileIO(path) as file:
        return file.read(MOST_BYTES)


def _stat(content: bytes) -> tuple[str, list[bytes]]:
    """Return the name, and the fields after it; the name may hold anything, ") " too."""
    head, _, tail = content.rpartition(b") ")
    return head.partition(b"(")[2].decode(errors="replace"), tail.split()


def _in_initial_namespace(proc: str) -> bool:
    try:
        return Path(f"{proc}/self/ns/pid").stat().st_ino == INITIAL_PID_NAMESPACE
    except OSError:
        return False
