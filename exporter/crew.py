"""Threads that read GPUs. One that hangs in the driver is left behind; the others go on."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from exporter.threads import start

T = TypeVar("T")


class Job(Generic[T]):
    """One piece of work. `result` is there once `done`; late results are the caller's to drop."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self.result: T | None = None
        self.done = False
        self.overdue = False
        self.seconds = 0.0

    def run(self) -> None:
        """Do the work; it must not raise."""
        started = time.monotonic()
        self.result = self._work()
        self.seconds = time.monotonic() - started
        self.done = True


class _Worker(threading.Thread):
    """Does its jobs one after another; says which one it is at, and since when."""

    def __init__(self, name: str, finished: queue.SimpleQueue[_Worker]) -> None:
        # A daemon thread: a hung driver call must not hold the interpreter's exit.
        super().__init__(name=name, daemon=True)
        self.job: Job[object] | None = None
        self.started = 0.0
        self.starved = False  # it had no memory for a job, and goes on with none
        self._finished = finished
        self._jobs: deque[Job[object]] = deque()
        self._go = threading.Semaphore(0)

    def give(self, jobs: Sequence[Job[object]]) -> None:
        self.started = time.monotonic()
        self.job = jobs[0]
        self._jobs.extend(jobs)
        self._go.release()

    def take_back(self) -> list[Job[object]]:
        """Return the jobs not yet begun; the worker keeps the one it is at."""
        jobs: list[Job[object]] = []
        try:
            while True:
                jobs.append(self._jobs.popleft())
        except IndexError:
            return jobs

    def run(self) -> None:
        while True:
            self._go.acquire()
            try:
                while True:
                    job = self._jobs.popleft()
                    self.started = time.monotonic()
                    self.job = job
                    job.run()
            except IndexError:
                self.job = None
            except MemoryError:
                self.starved = True
            self._finished.put(self)


class Crew:
    """Runs jobs on as few threads as will do. Used from one thread only."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []
        self._finished: queue.SimpleQueue[_Worker] = queue.SimpleQueue()

    @property
    def is_busy(self) -> bool:
        """Whether jobs are under way that are not overdue."""
        return bool(self._busy)

    @property
    def is_idle(self) -> bool:
        """Whether no job is under way, overdue ones included."""
        while not self._finished.empty():
            self._retire(self._finished.get())
        return len(self._idle) == self._count

    def start(self, jobs: Sequence[Job[T]], *, split: bool) -> None:
        """Begin the jobs: one after another on one thread, or `split` on a thread each.

        Raises:
            MemoryError: an earlier one has ended for want of it.
            NoThreadError: there is no thread for them; nobody will do them.
        """
        while not self._finished.empty():
            self._retire(self._finished.get())
        lanes = [[job] for job in jobs] if split else [list(jobs)]
        for lane in lanes:
            if lane:
                worker = self._idle.pop() if self._idle else self._hire()
                self._busy.append(worker)
                worker.give(lane)  # type: ignore[arg-type]  # a worker only runs them

    def wait(self, deadline_seconds: float, *, block: bool = True) -> None:
        """Wait until every job is done or overdue.

        A job that takes longer than `deadline_seconds` is overdue: its thread is left to it, and
        what was to follow it goes on, on a thread each: they have waited enough. Without `block`,
        only look; then nobody waits, and one thread does for them.

        Raises:
            MemoryError: a job has ended for want of it, and will never be done.
            NoThreadError: there is no thread to go on with.
        """
        while self._busy:
            due = min(worker.started for worker in self._busy) + deadline_seconds
            try:
                self._retire(self._finished.get(block, max(due - time.monotonic(), 0.001)))
            except queue.Empty:
                self._leave_behind(deadline_seconds, split=block)
                if not block:
                    return

    def _retire(self, worker: _Worker) -> None:
        """Take a worker back that has done its jobs, in time or late."""
        if worker.starved:
            raise MemoryError
        if worker in self._busy:
            self._busy.remove(worker)
        self._idle.append(worker)

    def _leave_behind(self, deadline_seconds: float, *, split: bool) -> None:
        now = time.monotonic()
        for worker in list(self._busy):
            job = worker.job
            if job is not None and not job.done and now - worker.started >= deadline_seconds:
                job.overdue = True
                self._busy.remove(worker)
                self.start(worker.take_back(), split=split)

    def _hire(self) -> _Worker:
        worker = _Worker(f"{self._name}-{self._count + 1}", self._finished)
        start(worker)
        self._count += 1
        return worker
