"""Polls of a simulated node as fast as they will go: `python tests/soak.py POLLS`.

GPUs are lost and come back, hang and are released all the while, and every few polls a page is
rendered. The last line of the output is what the process held after the warm-up and at the end.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from pathlib import Path

from scripted import Clock

from exporter import host
from exporter.board import Plan
from exporter.catalogue import GPU_READERS
from exporter.exposition import Page
from exporter.poll import Poller, Sources
from exporter.sampling import Fault
from exporter.simulate import SimulatedDriver
from exporter.snapshot import Build, Reload

PLAN = Plan(
    readers=GPU_READERS,
    fast_seconds=1.0,
    slow_seconds=30.0,
    blocking_seconds=5.0,
    deadline_seconds=0.1,
)
GPUS = 8
WARM_UP_POLLS = 1000  # at least, and a tenth: allocator and thread pools come to rest slowly
LOST_EVERY, LOST_POLLS = 250, 60
HUNG_EVERY, HUNG_POLLS = 500, 20
RENDER_EVERY = 5


class Soak:
    """A simulated node that fails over and over again."""

    def __init__(self) -> None:
        self.hung = 0
        self.lost = 0
        self._clock = Clock()
        self._faults: dict[int, Fault] = {}
        self._driver = SimulatedDriver("h100x8", self._clock, faults=self._faults)
        self._poller = Poller(
            Sources(
                self._driver,
                Build("1", "3", simulated=True),
                lambda: None,
                self._clock,
                self._driver.processes(0.0),
            ),
            PLAN,
            host.GROUPS,
            Reload(successful=True, success_timestamp_seconds=0),
        )
        self._pages = [Page(openmetrics=False), Page(openmetrics=True)]

    def poll(self, number: int) -> None:
        """Let a second pass; strike or heal a GPU if it is its turn; poll."""
        self._clock.seconds += 1
        for every, polls, fault in (
            (LOST_EVERY, LOST_POLLS, Fault.LOST),
            (HUNG_EVERY, HUNG_POLLS, Fault.HUNG),
        ):
            turn, since = divmod(number, every)
            if since == every - polls:
                self._driver._released = threading.Event()
                self._faults[turn % GPUS] = fault
            elif since == 0 and number:
                self._faults.pop((turn - 1) % GPUS, None)
                self._driver.release()
        snapshot = self._poller.tick()
        faults = [gpu.fault for gpu in snapshot.gpus]
        self.lost += Fault.LOST in faults
        self.hung += Fault.HUNG in faults
        if number % RENDER_EVERY == 0:
            for page in self._pages:
                page.zipped(snapshot)

    def settle(self) -> None:
        """Heal all; poll until every GPU is back."""
        self._faults.clear()
        self._driver.release()
        for _ in range(1000):
            self._clock.seconds += 1
            if not any(gpu.fault for gpu in self._poller.tick().gpus):
                return
            time.sleep(0.001)
        raise AssertionError("a GPU does not come back")


def held() -> dict[str, int]:
    """Return what this process holds: resident bytes, file descriptors, threads, objects."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "resident_bytes": pages * os.sysconf("SC_PAGESIZE"),
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208  same, without our own
        "threads": threading.active_count(),
        "objects": len(gc.get_objects()),
    }


def main(polls: int) -> None:
    """Soak, and print the figures."""
    node = Soak()
    warm_up = max(WARM_UP_POLLS, polls // 10)
    for number in range(warm_up):
        node.poll(number)
    node.settle()
    before, started = held(), time.monotonic()
    node.hung = node.lost = 0
    for number in range(warm_up, warm_up + polls):
        node.poll(number)
    node.settle()
    seconds = time.monotonic() - started
    figures = {"lost": node.lost, "hung": node.hung, "seconds": round(seconds, 1)}
    print(json.dumps({"before": before, "after": held(), **figures}))  # noqa: T201  its output


if __name__ == "__main__":
    main(int(sys.argv[1]))
