"""The driver while it is in use: found, let go of for a pause, and taken up again."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace

from exporter.crew import Crew, Job
from exporter.sampling import Driver, DriverAbsentError, DriverGoneError, DriverInfo, FoundGpu
from exporter.snapshot import NvmlPause

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0  # between two attempts to find a driver
STUCK_SECONDS = 60.0  # after which calls that do not return cost the whole process
UNANSWERED = "the driver has not answered yet"

Connection = tuple[DriverInfo, tuple[FoundGpu, ...]]


class Hold:
    """Used from the poller's thread only; the driver's calls have a thread of their own.

    Attributes:
        info: The driver; None while there is none, or while it is being let go of.
        found: Its GPUs; another tuple after each time that they were listed.
        problem: Why there are none.
        pause: The pause that is on, and whether the driver is let go of.
    """

    def __init__(self, driver: Driver, order: Callable[[], NvmlPause | None]) -> None:
        """Take the driver, and what tells whether a pause is ordered."""
        self.info: DriverInfo | None = None
        self.found: tuple[FoundGpu, ...] = ()
        self.problem = UNANSWERED
        self.pause: NvmlPause | None = None
        self._driver = driver
        self._order = order
        self._crew = Crew("gpu-connect")
        self._connecting: Job[Connection | str | DriverGoneError] | None = None
        self._closing: Job[None] | None = None
        self._connect_at = -math.inf
        self._listed_of: int | None = None  # how many GPUs the bus had when they were listed
        self._leaving_since: float | None = None

    def tick(
        self, now: float, deadline_seconds: float, pci_gpus: int | None, *, in_use: bool
    ) -> None:
        """Look for the driver, or let go of it, as things are.

        Args:
            now: Monotonic seconds.
            deadline_seconds: How long to wait for the driver.
            pci_gpus: How many GPUs the bus has.
            in_use: Whether anybody is in a call of the driver.

        Raises:
            DriverGoneError: only another process can go on with the driver.
        """
        order = self._order()
        if self._leaving_since is None and self.info is not None:
            reason = self._reason_to_leave(order, pci_gpus)
            if reason:
                log.info("letting go of the driver: %s", reason)
                self.info, self.found, self.problem = None, (), reason
                self._leaving_since = now
        if self._leaving_since is not None:
            self._leave(now, deadline_seconds, in_use=in_use)
        elif self.info is None and (order is None or self._connecting is not None):
            self._connect(now, deadline_seconds, pci_gpus)
        self._tell(order)

    def _reason_to_leave(self, order: NvmlPause | None, pci_gpus: int | None) -> str:
        if order is not None:
            return f"paused: {order.reason}"
        if self._listed_of is not None and pci_gpus is not None and pci_gpus > self._listed_of:
            return f"a GPU was added: {pci_gpus} instead of {self._listed_of} on the bus"
        return ""

    def _leave(self, now: float, deadline_seconds: float, *, in_use: bool) -> None:
        if self._leaving_since is not None and now - self._leaving_since > STUCK_SECONDS:
            raise DriverGoneError("a call does not return, so that it cannot be let go of")
        if in_use:
            return
        if self._closing is None:
            self._closing = Job(self._driver.close)
            self._crew.start([self._closing], split=False)
        self._crew.wait(deadline_seconds)
        if self._closing.done:
            self._closing = self._leaving_since = None
            self._connect_at = -math.inf
            log.info("the driver is let go of")

    def _connect(self, now: float, deadline_seconds: float, pci_gpus: int | None) -> None:
        """Look for the driver on a thread of its own: nvmlInit may take seconds, or hang."""
        if self._connecting is None:
            if now - self._connect_at < CONNECT_SECONDS:
                return
            self._connect_at = now
            self._connecting = Job(self._try_connect)
            self._crew.start([self._connecting], split=False)
        self._crew.wait(deadline_seconds)
        if not self._connecting.done:
            return
        answer, self._connecting = self._connecting.result, None
        if isinstance(answer, DriverGoneError):
            raise answer
        if isinstance(answer, tuple):
            self.info, self.found = answer
            self.problem, self._listed_of = "", pci_gpus
            log.info("driver %s: %d GPUs", self.info.driver_version, len(self.found))
        elif answer != self.problem:
            self.problem = str(answer)
            log.warning("no GPU readings: %s", self.problem)

    def _try_connect(self) -> Connection | str | DriverGoneError:
        try:
            return self._driver.connect()
        except DriverAbsentError as absent:
            return str(absent)
        except DriverGoneError as gone:
            return gone

    def _tell(self, order: NvmlPause | None) -> None:
        """Say how the pause stands: the driver is free when nothing of it is under way."""
        is_free = self.info is None and self._leaving_since is None and self._connecting is None
        self.pause = None if order is None else replace(order, is_free=is_free)
        if order is not None and is_free:
            self.problem = f"paused: {order.reason}"
