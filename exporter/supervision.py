"""What systemd is told: that we are ready, how we do, and that we are alive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from exporter import systemd
from exporter.hold import UNANSWERED
from exporter.rules_view import FIRING
from exporter.snapshot import Snapshot

STARTING_PAUSE_SECONDS = 0.1  # between two looks until we are ready
PAUSE_SECONDS = 1.0  # after that; with a short watchdog, a quarter of its time
# nvmlInit may take many seconds, or hang. After so long the host's metrics must do.
DRIVER_PATIENCE_SECONDS = 20.0


class Supervision:
    """Looks at the latest snapshot from the event loop, and tells systemd about it.

    A sign of life needs both: the event loop, which sends it, and a poll that is not late. GPUs
    that are lost or hung, and a driver that is not there, make no poll late: a new process would
    not bring them back.
    """

    def __init__(
        self, latest: Callable[[], Snapshot | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._latest = latest
        self._clock = clock
        self._watched_seconds = systemd.watchdog_seconds()
        self._first_at: float | None = None  # when the first snapshot was seen
        self._ready = False
        self._status = ""

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while systemd.is_supervised():
            self.look()
            await asyncio.sleep(self._pause_seconds())

    def look(self) -> None:
        """Tell what has changed since the last look, and that we are alive, if we are."""
        now, latest = self._clock(), self._latest()
        snapshot = None if latest is None else latest.at(now)
        status = status_line(snapshot)
        if status != self._status and systemd.notify(f"STATUS={status}"):
            self._status = status
        if snapshot is None or snapshot.is_stale:
            return
        if not self._ready and self._is_full(snapshot, now):
            self._ready = systemd.notify("READY=1")
        if self._watched_seconds is not None:
            systemd.notify("WATCHDOG=1")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Tell that the config is loaded anew, and when that is over."""
        if self._ready:
            microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            systemd.notify("RELOADING=1", f"MONOTONIC_USEC={microseconds}")
        try:
            yield
        finally:
            # At the next look, if this one does not get through.
            self._ready = self._ready and systemd.notify("READY=1")

    def stopping(self) -> None:
        """Tell that this is the end."""
        systemd.notify("STOPPING=1", "STATUS=stopping")

    def _pause_seconds(self) -> float:
        if not self._ready:
            return STARTING_PAUSE_SECONDS
        watched = self._watched_seconds
        return PAUSE_SECONDS if watched is None else min(PAUSE_SECONDS, watched / 4)

    def _is_full(self, snapshot: Snapshot, now: float) -> bool:
        """Return whether the driver was asked, whatever it said, or does not answer at all."""
        if self._first_at is None:
            self._first_at = now
        if now - self._first_at > DRIVER_PATIENCE_SECONDS:
            return True
        return snapshot.driver is not None or snapshot.driver_problem != UNANSWERED


def status_line(snapshot: Snapshot | None) -> str:
    """Return in one line how the node and the exporter do: `systemctl status` shows it."""
    if snapshot is None:
        return "the first readings are under way"
    if snapshot.is_stale:
        return "the readings are old: the poller is late or stuck"
    parts = [_gpus(snapshot)]
    rules = snapshot.rules.rules if snapshot.rules else ()
    firing = [rule.alert for rule in rules if rule.state == FIRING]
    if firing:
        parts.append(f"firing: {', '.join(firing)}")
    if snapshot.scaleout is not None and snapshot.scaleout.paused:
        parts.append("scale-out paused")
    if snapshot.scaleout is not None and snapshot.scaleout.durable is False:
        parts.append("scale-out requests in memory alone")
    if not snapshot.reload.successful:
        parts.append("the last config was bad, the one before goes on")
    return " ".join("; ".join(parts).split())  # one line, whatever a driver said


def _gpus(snapshot: Snapshot) -> str:
    if snapshot.driver is None:
        return f"no GPU readings: {snapshot.driver_problem}"
    kind = "simulated GPUs" if snapshot.build.simulated else "GPUs"
    up = sum(gpu.fault is None for gpu in snapshot.gpus)
    faults = [f"GPU {gpu.index} {gpu.fault.value}" for gpu in snapshot.gpus if gpu.fault]
    told = f": {', '.join(faults)}" if faults else ""
    return f"{up} of {len(snapshot.gpus)} {kind} answer{told}"
