"""Decides what is due, has it read, and publishes the next snapshot. The only writer."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from exporter.board import Board, Outcome, Plan
from exporter.crew import Crew, Job
from exporter.frozen import dataclass
from exporter.hold import Hold
from exporter.host import Group
from exporter.host_poll import HostPoll
from exporter.ledger import Ledger
from exporter.processes_view import ProcessesView
from exporter.procs import ProcessSource
from exporter.sampling import (
    Driver,
    DriverGoneError,
    FoundGpu,
)
from exporter.snapshot import Build, Gpu, NvmlPause, Process, Reload, Snapshot
from exporter.workloads import Joiner

log = logging.getLogger(__name__)

FIRST_SECONDS = 5.0  # the deadline of the first reading
PROCESS_SECONDS = 5.0  # between two looks at ourselves
BLOCKING_DEADLINE_SECONDS = 2.0
SPLIT_SHARE, JOIN_SHARE = 0.2, 0.1  # of the interval: a thread per GPU above, one thread below


@dataclass(frozen=True, slots=True)
class Sources:
    """Where readings come from, and what is known without reading.

    Without `processes`, nothing is known of those that use GPUs but how many there are. `pause`
    tells whether the driver is to be let go of.
    """

    driver: Driver
    build: Build
    process: Callable[[], Process | None]
    clock: Callable[[], float] = time.monotonic
    processes: ProcessSource | None = None
    pause: Callable[[], NvmlPause | None] = lambda: None


class Poller:
    """Reads the node at each tick. `latest` is replaced whole, never changed."""

    def __init__(
        self, sources: Sources, plan: Plan, host_groups: tuple[Group[Any], ...], reload: Reload
    ) -> None:
        self.latest: Snapshot | None = None
        self.reload = reload
        self._driver = sources.driver
        self._sources = sources
        self._plan = plan
        self._host_groups = host_groups
        self._host = HostPoll(host_groups, plan.slow_seconds)
        self._joiner = Joiner(sources.processes, plan.limits) if sources.processes else None
        self._ledger = Ledger()
        self._crew = Crew("gpu")
        self._blocking_crew = Crew("gpu-blocking")
        self._hold = Hold(sources.driver, sources.pause)
        self._found: tuple[FoundGpu, ...] = ()
        self._pci_gpus: int | None = None
        self._counted_at = -math.inf
        self._process: Process | None = None
        self._weighed_at = -math.inf
        self._boards: tuple[Board, ...] = ()
        self._ticked_at: float | None = None
        self._split = False

    def replan(self, plan: Plan, host_groups: tuple[Group[Any], ...]) -> None:
        """Read other groups, or at another pace, from the next tick on. Not during a tick."""
        if (plan, host_groups) == (self._plan, self._host_groups):
            return
        self._plan, self._host_groups = plan, host_groups
        self._host = HostPoll(host_groups, plan.slow_seconds)
        if self._joiner is not None:
            self._joiner.limit(plan.limits)
        self._ledger.seconds.clear()
        for board in self._boards:
            board.forget()

    def tick(self, *, watched: bool = False) -> Snapshot:
        """Read what is due and publish it.

        Args:
            watched: Whether somebody else is in a call of the driver.

        Raises:
            DriverGoneError: the driver was unloaded or replaced under us.
        """
        now = self._sources.clock()
        self._count_skipped(now)
        if now - self._weighed_at >= PROCESS_SECONDS:
            self._weighed_at, self._process = now, self._sources.process()
        if now - self._counted_at >= self._plan.slow_seconds:
            self._counted_at, self._pci_gpus = now, self._driver.pci_gpus()
        self._take_hold(now, watched=watched)
        jobs = [job for b in self._boards if (job := b.next_job(self._driver, self._plan, now))]
        self._crew.start(jobs, split=self._split)
        first = all(board.sampled_at is None for board in self._boards)
        self._crew.wait(FIRST_SECONDS if first else self._plan.deadline_seconds)
        # Not meanwhile: each call of the kernel or the driver would pass the interpreter on.
        host = self._host.read(now, self._ledger)
        self._decide_split(jobs)
        outcomes = [(b, b.settle(self._plan, now)) for b in self._boards]
        self._read_blocking(now)
        self._note(outcomes)
        gpus = tuple(board.gpu() for board in self._boards)
        processes = self._join(gpus, now)
        self.latest = Snapshot(
            taken_at=now,  # no later than any of its readings, whatever held us up since
            now=self._sources.clock(),
            stale_after_seconds=self._plan.max_gap_seconds + 2 * self._plan.deadline_seconds,
            build=self._sources.build,
            reload=self.reload,
            driver=self._hold.info,
            driver_problem=self._hold.problem,
            nvml_pause=self._hold.pause,
            pci_gpus=self._pci_gpus,
            gpus=gpus,
            host=host,
            processes=processes,
            process=self._process,
            read_seconds=dict(self._ledger.seconds),
            read_errors=dict(self._ledger.errors),
            polls=dict(self._ledger.polls),
        )
        for _, outcome in outcomes:
            if outcome is not None and outcome.driver_gone:
                raise DriverGoneError(outcome.driver_gone)
        return self.latest

    def _join(self, gpus: tuple[Gpu, ...], now: float) -> ProcessesView | None:
        """Join the processes of the GPUs with those of the host, where any were read anew."""
        if self._joiner is None or self._hold.info is None:
            return None
        started = time.perf_counter()
        before = self._joiner.view
        view = self._joiner.join(gpus, self._hold.info.driver_version, now)
        if view is not before:
            self._ledger.durations({"host_processes": time.perf_counter() - started})
        return view

    def _take_hold(self, now: float, *, watched: bool) -> None:
        """Have the driver, or let go of it; its GPUs are other ones after each time."""
        in_use = watched or not (self._crew.is_idle and self._blocking_crew.is_idle)
        self._hold.tick(now, self._plan.deadline_seconds, self._pci_gpus, in_use=in_use)
        if self._hold.found is not self._found:
            self._found = found = self._hold.found
            self._boards = tuple(Board(gpu, i / len(found)) for i, gpu in enumerate(found))

    def _count_skipped(self, now: float) -> None:
        """A tick that did not come in time was skipped by the scheduler."""
        if self._ticked_at is not None:
            periods = round((now - self._ticked_at) / self._plan.fast_seconds)
            self._ledger.poll("skipped", max(periods - 1, 0))
        self._ticked_at = now

    def _decide_split(self, jobs: list[Job[Outcome]]) -> None:
        """Give each GPU a thread of its own while one thread would take too long over them all."""
        if any(job.overdue for job in jobs):
            self._driver.abandon()
        share = sum(job.seconds for job in jobs if job.done) / self._plan.fast_seconds
        self._split = share > (JOIN_SHARE if self._split else SPLIT_SHARE)

    def _read_blocking(self, now: float) -> None:
        self._blocking_crew.wait(BLOCKING_DEADLINE_SECONDS, block=False)
        for board in self._boards:
            outcome = board.settle_blocking(self._plan)
            if outcome is not None:
                self._ledger.durations(outcome.seconds)
                self._ledger.readings(_name(board), outcome.readings, outcome.errors)
        if not self._blocking_crew.is_busy:
            due = (b.next_blocking_job(self._driver, self._plan, now) for b in self._boards)
            self._blocking_crew.start([job for job in due if job], split=False)

    def _note(self, outcomes: list[tuple[Board, Outcome | None]]) -> None:
        seconds: Counter[str] = Counter()
        complete = True
        for board, outcome in outcomes:
            if outcome is None or not outcome.driver_gone:  # that has a line of its own
                fault = board.fault.value if board.fault else None
                self._ledger.fault(_name(board), board.found.uuid, fault)
            complete &= board.fault is None
            if outcome is not None:
                seconds.update(outcome.seconds)
                self._ledger.readings(_name(board), outcome.readings, outcome.errors)
                complete &= not outcome.errors
        self._ledger.durations(seconds)
        self._ledger.poll("complete" if complete else "partial")


def _name(board: Board) -> str:
    return f"GPU {board.found.index}"
