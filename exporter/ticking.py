"""When the poll is due: APScheduler, whatever is done to the clock that it waits by."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial

from apscheduler.executors.debug import DebugExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

LOOK_SECONDS = 1.0  # between two looks at the clocks; each costs 0.2 ms of CPU
SET_BACK_SECONDS = 0.1  # less delays a tick by no more than that


class Ticking:
    """Runs one job at a steady pace, and others between two of its runs, all in one thread.

    The scheduler waits by the wall clock, which others may set. Whoever holds this has to `look`
    every LOOK_SECONDS.
    """

    def __init__(
        self,
        tick: Callable[[], None],
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the job; nothing runs yet."""
        self._tick = tick
        self._wall = wall
        self._monotonic = monotonic
        self._seconds = 0.0
        self._offset = wall() - monotonic()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._busy = threading.Lock()
        self._scheduler = BackgroundScheduler(
            timezone=timezone.utc,
            # Jobs run one after another in the scheduler's own thread: the poller has one writer.
            executors={"default": DebugExecutor()},
        )

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()

    def every(self, seconds: float) -> None:
        """Tick at this pace, from now on if it is another than before."""
        if seconds != self._seconds:
            self._seconds = seconds
            self._begin()

    @property
    def is_alive(self) -> bool:
        """Whether there will be another tick, however late this one is."""
        return self._thread is None or self._thread.is_alive()

    def between(self, work: Callable[[], None]) -> None:
        """Do something once, between two ticks."""
        self._scheduler.add_job(partial(self._run, work), misfire_grace_time=None)

    def look(self) -> None:
        """Tick at once if the wall clock was set back: the next tick would be as far away."""
        before, self._offset = self._offset, self._wall() - self._monotonic()
        if before - self._offset > SET_BACK_SECONDS:
            self._begin()

    def stop(self, patience_seconds: float) -> None:
        """Begin no tick any more; wait for the one under way, but not for one that hangs."""
        self._stopped = True
        if self._busy.acquire(timeout=patience_seconds):
            self._busy.release()

    def _run(self, work: Callable[[], None]) -> None:
        self._thread = threading.current_thread()
        with self._busy:
            if not self._stopped:
                work()

    def _begin(self) -> None:
        self._scheduler.add_job(
            partial(self._run, self._tick),
            _Steady(self._seconds),
            id="tick",
            next_run_time=datetime.now(timezone.utc),
            coalesce=True,
            misfire_grace_time=None,
            replace_existing=True,
        )


class _Steady(BaseTrigger):  # type: ignore[misc]  # APScheduler ships no types
    """Due every so many seconds; what was missed is one run, however much that is.

    APScheduler's own goes through missed runs one by one. A clock that is set forward by years, as
    on a machine whose battery is empty, would cost it minutes and gigabytes.
    """

    def __init__(self, seconds: float) -> None:
        self._interval = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """Return the first time after now, in step with the one before."""
        if previous is None:
            return now
        missed = max((now - previous) // self._interval, 0)
        return previous + (missed + 1) * self._interval
