"""NVML as a source of XID errors: a thread that waits for its events."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from exporter.sampling import Driver, FoundGpu, ReadFailedError, XidWatch

log = logging.getLogger(__name__)

WAIT_SECONDS = 1.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0


class Watcher(threading.Thread):
    """Waits for the events of all GPUs at once. A daemon thread: nobody waits for it.

    Attributes:
        gpus: Which GPUs to wait for; replaced whole by the owner. One that was lost and answers
            again has another handle: it must have been out of this for a moment.
        is_up: Whether it waits for the events of at least one GPU.
        beat: When it was last seen outside of the driver, in monotonic seconds.
        registering: UUID of the GPU that it is registering; "" at other times.
    """

    def __init__(
        self, driver: Driver, gpus: tuple[FoundGpu, ...], on_xid: Callable[[str, int], None]
    ) -> None:
        """Take the driver, its GPUs, and who is told UUID and XID."""
        super().__init__(name="xid-events", daemon=True)
        self.gpus = gpus
        self.is_up = False
        self.beat = time.monotonic()
        self.registering = ""
        self._driver = driver
        self._on_xid = on_xid
        self._stopped = threading.Event()
        self._settled: set[FoundGpu] = set()  # registered, or known not to be possible
        self._retry_at: dict[FoundGpu, float] = {}
        self._problem = ""

    def stop(self) -> None:
        """Let the thread end when it is back from the driver; what it tells then is not told."""
        self._stopped.set()

    def run(self) -> None:
        """Wait for events until stopped; begin anew after an error."""
        pause = FIRST_PAUSE_SECONDS
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                self._watch()
            except ReadFailedError as failed:
                self._say(failed.error)
            self.is_up = False
            if time.monotonic() - began > LONGEST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            self._pause(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _watch(self) -> None:
        self._settled, self._retry_at = set(), {}
        watch = self._driver.watch_xids()
        try:
            while not self._stopped.is_set():
                self.beat = time.monotonic()
                self._register(watch)
                if not self.is_up:
                    self._pause(WAIT_SECONDS)
                    continue
                seen = watch.wait(WAIT_SECONDS)
                if seen is not None and not self._stopped.is_set():
                    self._on_xid(*seen)
        finally:
            watch.close()

    def _register(self, watch: XidWatch) -> None:
        """Register the GPUs that are new; one that fails now is tried again later."""
        self._settled &= set(self.gpus)
        now = time.monotonic()
        for gpu in self.gpus:
            if gpu in self._settled or self._retry_at.get(gpu, 0.0) > now:
                continue
            self.registering = gpu.uuid
            try:
                if watch.add(gpu):
                    self.is_up, self._problem = True, ""
                else:
                    log.info("GPU %d tells no XID errors through NVML", gpu.index)
                self._settled.add(gpu)
            except ReadFailedError as failed:
                self._retry_at[gpu] = now + LONGEST_PAUSE_SECONDS
                log.warning("GPU %d: no XID events: %s", gpu.index, failed.error)
            finally:
                self.registering = ""
                self.beat = time.monotonic()

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("XID errors are not taken from NVML: %s", problem)
            self._problem = problem

    def _pause(self, seconds: float) -> None:
        """Wait, and show that we live."""
        deadline = time.monotonic() + seconds
        while not self._stopped.is_set() and (left := deadline - time.monotonic()) > 0:
            self._stopped.wait(min(left, WAIT_SECONDS))
            self.beat = time.monotonic()
