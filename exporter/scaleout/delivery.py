"""Takes requests from the outbox to their targets.

A thread per target, so that none waits for another; it sleeps until there is something to do.
"""

from __future__ import annotations

import json
import logging
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from exporter.config import Retry
from exporter.facts import facts
from exporter.scaleout.audit import Audit
from exporter.scaleout.clock import Clock
from exporter.scaleout.model import Attempt, Delivery, Outcome
from exporter.scaleout.outbox import Outbox, OutboxUnavailableError
from exporter.scaleout.receivers import Target
from exporter.scaleout.records import Row
from exporter.threads import NoThreadError, start

log = logging.getLogger(__name__)

LAST_TRY_SECONDS = 1.0  # before the deadline: no wait is so long that it skips this one
UNAVAILABLE_SECONDS = 1.0  # until the outbox is asked again
MAX_ERROR = 500  # characters kept
STOP_SECONDS = 5.0


class Tally:
    """What was delivered since the start. Every thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._results: Counter[tuple[str, str]] = Counter()
        self._delivered: dict[str, float] = {}

    def add(self, receiver_name: str, outcome: Outcome, wall: float) -> None:
        """Count an attempt, or an end without one."""
        with self._lock:
            self._results[receiver_name, outcome.value] += 1
            if outcome is Outcome.DELIVERED:
                self._delivered[receiver_name] = wall

    def results(self) -> dict[tuple[str, str], int]:
        """Return counts by receiver and outcome."""
        with self._lock:
            return dict(self._results)

    def delivered(self) -> dict[str, float]:
        """Return when each receiver last took a request, in seconds since the epoch."""
        with self._lock:
            return dict(self._delivered)


class Sender:
    """Delivers to one target."""

    def __init__(
        self,
        target: Target,
        outbox: Outbox,
        audit: Audit,
        tally: Tally,
        clock: Clock,
        before: threading.Thread | None = None,
    ) -> None:
        """Take the target; `before` is the thread of a sender to the same target that must end."""
        self.target = target
        self._outbox = outbox
        self._audit = audit
        self._tally = tally
        self._clock = clock
        self._before = before
        self._stopping = False
        self._news = threading.Event()
        self._starting = threading.Lock()
        self._problem = ""  # the last one that was logged
        self.thread: threading.Thread | None = None

    def wake(self) -> None:
        """Look at the outbox; the first call starts the thread.

        Raises:
            NoThreadError: there is none for it.
        """
        with self._starting:  # rules and Alertmanager tell of events in two threads
            if self.thread is None:
                name = self.target.receiver.target
                self.thread = start(threading.Thread(target=self._run, name=name, daemon=True))
        self._news.set()

    @property
    def last(self) -> threading.Thread | None:
        """The thread that must end before another sender to the target begins."""
        return self.thread or self._before

    def stop(self) -> None:
        """End after the attempt under way; what is not settled then stays pending."""
        self._stopping = True
        self._news.set()

    def step(self) -> float | None:
        """Do what is due; return the seconds until there is more, None if nothing waits."""
        try:
            row = self._outbox.next_row(self.target.receiver.target)
        except OutboxUnavailableError:
            return UNAVAILABLE_SECONDS
        if row is None:
            return None
        now = self._clock.since_boot()
        if now >= row.deadline:
            self._settle(row, Attempt(Outcome.EXPIRED, row.last_status, row.last_error))
        elif row.next_at > now:
            return min(row.next_at, row.deadline) - now
        else:
            self._settle(*self._attempt(row, now))
        return 0.0

    def _run(self) -> None:
        if self._before is not None:
            self._before.join()
        with suppress(sqlite3.ProgrammingError):  # the outbox was closed: the process ends
            while not self._stopping:
                self._news.clear()
                self._news.wait(self.step())

    def _attempt(self, row: Row, now: float) -> tuple[Row, Attempt]:
        latest = row

        def remember_plan(plan: str) -> None:
            nonlocal latest
            latest = replace(latest, plan=plan)
            self._outbox.update(latest)

        try:
            delivery = Delivery(
                event_id=row.event_id,
                dedupe_key=row.dedupe_key,
                kind=row.kind,
                event=json.loads(row.body),
                created=row.created,
                deadline=self._clock.wall() + row.deadline - now,
                attempt=row.attempts + 1,
                plan=row.plan,
                remember_plan=remember_plan,
            )
            if delivery.event["dry_run"] and not self.target.rehearses:
                log.info("%s: dry run of %s", self.target.receiver.target, row.body.decode())
                attempt = Attempt(Outcome.DRY_RUN)
            else:
                attempt = self.target.receiver.deliver(delivery)
        except (MemoryError, NoThreadError):
            attempt = Attempt(Outcome.RETRY, error="out of memory or threads")
        except Exception as error:  # a bug in one receiver must not end the deliveries to it
            log.exception("%s: a fault of ours", self.target.receiver.target)
            attempt = Attempt(Outcome.RETRY, error=f"a fault of ours: {type(error).__name__}")
        return replace(latest, attempts=row.attempts + 1), attempt

    def _settle(self, row: Row, attempt: Attempt) -> None:
        now = self._clock.since_boot()
        error = attempt.error[:MAX_ERROR]
        row = replace(row, last_status=attempt.status, last_error=error)
        if attempt.outcome is Outcome.RETRY:
            jitter = random.random()  # noqa: S311  it keeps nodes apart, and no secret
            next_at = next_attempt(row, attempt, self.target.config.retry, now, jitter)
            row = replace(row, next_at=next_at)
        else:
            row = replace(row, state=attempt.outcome.value, done_at=now)
        self._outbox.update(row)
        self._tally.add(self.target.receiver_name, attempt.outcome, self._clock.wall())
        self._tell(row, attempt)

    def _tell(self, row: Row, attempt: Attempt) -> None:
        target, outcome = self.target.receiver.target, attempt.outcome
        self._audit.write(
            "attempt" if row.attempts else "end",
            result=outcome.value,
            target=target,
            event_id=row.event_id,
            attempt=row.attempts,
            plan=row.plan,
            status=attempt.status,
            error=row.last_error,
        )
        problem = f"{outcome.value}: {attempt.error}" if attempt.error else ""
        about = facts(target=target, event_id=row.event_id, result=outcome.value)
        if outcome in (Outcome.DEAD, Outcome.EXPIRED):
            log.error("%s: request %s is lost, %s", target, row.event_id, problem, extra=about)
        elif problem and problem != self._problem:
            log.warning("%s: request %s, %s", target, row.event_id, problem, extra=about)
        elif not problem:
            log.info("%s: request %s, %s", target, row.event_id, outcome.value, extra=about)
        self._problem = problem


def next_attempt(row: Row, attempt: Attempt, retry: Retry, now: float, jitter: float) -> float:
    """Return when a request is tried again, in seconds since boot.

    Half of an exponential backoff, and of the other half a share `jitter` (0 to 1): so nodes that
    failed together come back apart. What the other side asks for is a floor.
    """
    doublings = min(row.attempts - 1, 32)
    backoff = min(retry.min_backoff_seconds * 2**doublings, retry.max_backoff_seconds)
    wait = max(backoff * (0.5 + jitter / 2), attempt.retry_after_seconds or 0.0)
    last = row.deadline - LAST_TRY_SECONDS
    return min(now + wait, last) if now < last else row.deadline


class Deliveries:
    """The senders of all targets."""

    def __init__(self, outbox: Outbox, audit: Audit, clock: Clock) -> None:
        self.tally = Tally()
        self._outbox = outbox
        self._audit = audit
        self._clock = clock
        self._senders: Mapping[str, Sender] = {}

    def use(self, targets: Sequence[Target]) -> None:
        """Deliver to these from now on; requests to others end."""
        old, senders = self._senders, {}
        for target in targets:
            name = target.receiver.target
            sender = old.get(name)
            if sender is None or sender.target is not target:
                before = None if sender is None else sender.last
                sender = Sender(target, self._outbox, self._audit, self.tally, self._clock, before)
            senders[name] = sender
        for name, sender in old.items():
            if senders.get(name) is not sender:
                sender.stop()
        self._senders = senders
        for stranger in self._outbox.end_strangers(self._senders.keys()):
            log.warning("%s is not configured any more; what waited for it is dead", stranger)
        self.wake_waiting()

    def wake_waiting(self) -> None:
        """Let those senders look at the outbox that something is pending for."""
        self.wake(self._outbox.waiting(set(self._senders)))

    def wake(self, targets: Collection[str]) -> None:
        """Let senders look at the outbox."""
        senders = self._senders
        for name in targets:
            if name in senders:
                senders[name].wake()

    def stop(self) -> None:
        """End; attempts under way get STOP_SECONDS in all."""
        senders = self._senders.values()
        for sender in senders:
            sender.stop()
        end = time.monotonic() + STOP_SECONDS
        for sender in senders:
            if sender.thread is not None:
                sender.thread.join(max(end - time.monotonic(), 0.0))
