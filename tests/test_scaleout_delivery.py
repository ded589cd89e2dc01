"""From the outbox to real servers: every attempt the same, retried, ended or put off as it must."""

from __future__ import annotations

import base64
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from scaleout_peers import (
    NOON,
    FakeClock,
    Reply,
    config,
    event,
    read_request,
    rude,
    serving,
    wait_until,
    webhook,
)

from exporter.config import Retry, WebhookConfig
from exporter.scaleout import delivery, disk, signature
from exporter.scaleout.audit import Audit
from exporter.scaleout.clock import Clock, system_clock
from exporter.scaleout.core import setup
from exporter.scaleout.delivery import Deliveries, Sender, Tally, next_attempt
from exporter.scaleout.model import Attempt, Delivery, Outcome
from exporter.scaleout.outbox import Outbox
from exporter.scaleout.policy import Policy
from exporter.scaleout.receivers import Place, Target, targets
from exporter.scaleout.records import Row

PLACE = Place({}, "gpu-017", "")
TARGET = "scaler/webhook/0"


class Line:
    """A policy, an outbox, and a sender to the one target that is stepped by hand."""

    def __init__(
        self, folder: Path, *webhooks: WebhookConfig, time: FakeClock | None = None
    ) -> None:
        self.time = time or FakeClock()
        clock = self.time.clock
        whole = config(*webhooks)
        self.targets = targets(whole.receivers, PLACE, clock)
        self.outbox = Outbox(folder, clock)
        self.tally = Tally()
        audit = Audit(folder, clock)
        self.policy = Policy(setup(whole, self.targets, PLACE), self.outbox, audit, _ignore, clock)
        self.senders = [
            Sender(target, self.outbox, audit, self.tally, clock) for target in self.targets
        ]

    def fire(self, group: str = "llm-a") -> str:
        """Let an event be decided; return the id of its request."""
        (verdict,) = self.policy.decide(event(group=group), self.time.now).verdicts
        return verdict.event_id

    def step(self) -> float | None:
        """Let the first sender do what is due."""
        return self.senders[0].step()

    def run(self) -> None:
        """Let the first sender work until nothing waits, and time fly while it waits."""
        while (wait := self.step()) is not None:
            self.time.passes(wait)

    def counts(self) -> dict[str, int] | None:
        """Return how many rows there are in each state."""
        return self.outbox.counts()

    def results(self) -> dict[str, int]:
        """Return how often the receiver's attempts ended how."""
        return {outcome: count for (_, outcome), count in self.tally.results().items()}

    def close(self) -> None:
        """Close the outbox."""
        self.outbox.close()


def _ignore(_: object) -> None:
    """Wake nobody."""


def test_failures_then_success(tmp_path: Path) -> None:
    """500 three times, then 200: four attempts with one id and body, each with a new signature."""
    secret = b"x" * 24
    secrets = tmp_path / "secret"
    secrets.write_text("whsec_" + base64.b64encode(secret).decode())
    secrets.chmod(0o600)
    retry = Retry(min_backoff_seconds=2.0)
    with serving(500, 500, 503, 200) as peer:
        hook = webhook(peer.url, signing_secret_file=secrets, retry=retry)
        with closing(Line(tmp_path, hook)) as line:
            event_id = line.fire()
            line.run()
            assert line.counts() == {"delivered": 1}
            assert line.results() == {"retry": 3, "delivered": 1}
        assert peer.ids() == [event_id] * 4
        assert len({said.body for said in peer.said}) == 1
        stamps = [float(said.headers["webhook-timestamp"]) for said in peer.said]
        assert stamps == sorted(set(stamps))
        assert len({said.headers["webhook-signature"] for said in peer.said}) == 4
        for said, stamp in zip(peer.said, stamps, strict=True):
            signature.verify([secret], said.headers, said.body, stamp)


def retried(
    attempt: Attempt, *, attempts: int = 1, jitter: float = 0.0, retry: Retry | None = None
) -> float:
    """Return the seconds until the next attempt of a request that has 600 s left."""
    row = Row("a", "t", "k", "a", "g", "d", b"", NOON, 1600.0, 1000.0, attempts=attempts)
    return next_attempt(row, attempt, retry or Retry(), 1000.0, jitter) - 1000.0


def test_backoff_grows_to_its_cap() -> None:
    """Waits double up to the cap; half of each is left to chance."""
    failed = Attempt(Outcome.RETRY)
    assert [retried(failed, attempts=n) for n in (1, 2, 3, 4, 5, 6, 99)] == [
        *(0.5, 1.0, 2.0, 4.0, 7.5, 7.5, 7.5)
    ]
    assert [retried(failed, attempts=n, jitter=1.0) for n in (1, 2, 3, 4, 5, 6, 99)] == [
        *(1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0)
    ]


def test_retry_after_is_a_floor_within_the_deadline() -> None:
    """What the server asks for is waited for, but for one attempt just before the deadline."""

    def asked(seconds: float | None) -> float:
        return retried(Attempt(Outcome.RETRY, 429, "", seconds), jitter=1.0)

    assert [asked(seconds) for seconds in (7.0, 0.0, None)] == [7.0, 1.0, 1.0]
    assert [asked(seconds) for seconds in (598.0, 599.0, 99999.0, 1e9)] == [
        598.0,
        599.0,
        599.0,
        599.0,
    ]


@pytest.mark.parametrize(
    ("wish", "least", "most"),
    [
        ("7", 7.0, 7.0),
        (formatdate(NOON + 42, usegmt=True), 42.0, 42.0),
        ("-5", 0.5, 1.0),
        ("99999", 599.0, 599.0),
        ("soon", 0.5, 1.0),
    ],
)
def test_retry_after_moves_the_next_attempt(
    tmp_path: Path, wish: str, least: float, most: float
) -> None:
    """A 429 with Retry-After is tried again when that says, nonsense when the backoff says."""
    reply = Reply(429, {"Retry-After": wish, "Date": formatdate(NOON, usegmt=True)})
    with (
        serving(reply, 200) as peer,
        closing(Line(tmp_path, webhook(peer.url, retry=Retry()))) as line,
    ):
        line.fire()
        assert line.step() == 0.0
        wait = line.step()
        assert wait is not None
        assert least <= wait <= most
        line.time.passes(wait)
        line.step()
        assert line.counts() == {"delivered": 1}


@pytest.mark.parametrize("status", [400, 404, 301, 410])
def test_permanent_failure_is_one_attempt(tmp_path: Path, status: int) -> None:
    """What will not get better is dead after one attempt, and said in the log and the audit."""
    with serving() as elsewhere:
        reply = Reply(status, {"Location": elsewhere.url})
        with serving(reply) as peer, closing(Line(tmp_path, webhook(peer.url))) as line:
            line.fire()
            line.run()
            assert line.counts() == {"dead": 1}
            assert len(peer.said) == 1
        assert elsewhere.said == []
    last = json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[-1])
    assert (last["what"], last["result"], last["status"]) == ("attempt", "dead", status)


def broken(connection: object) -> None:
    """Close without an answer."""
    read_request(connection)  # type: ignore[arg-type]  # a socket


def test_network_failures_are_retried(tmp_path: Path) -> None:
    """Refused, reset and cut connections are tried again; the request arrives once it can."""
    with (
        rude(broken) as port,
        closing(Line(tmp_path, webhook(f"http://127.0.0.1:{port}/"))) as line,
    ):
        line.fire()
        for _ in range(4):
            line.step()
            line.time.passes(1)
        assert line.counts() == {"pending": 1}
        assert line.results() == {"retry": 4}
        row = line.outbox.next_row(TARGET)
        assert row is not None
        assert (row.attempts, row.last_status) == (4, None)
        assert "closed before an answer" in row.last_error


def test_long_outage_ends_in_one_fresh_request(tmp_path: Path) -> None:
    """After an outage of 15 minutes, one request arrives: not those that are too old by then."""
    time = FakeClock()
    with serving(503) as peer:
        hook = webhook(peer.url, retry=Retry(min_backoff_seconds=1.0))
        with closing(Line(tmp_path, hook, time=time)) as line:
            fired, began = [], time.up
            while time.up - began < 15 * 60:
                if event_id := line.fire():
                    fired.append(event_id)
                wait = line.step()
                time.passes(min(wait or 1.0, 10.0))
            assert len(fired) == 3  # at 0, 5 and 10 minutes; each replaced the one before
            assert line.counts() == {"superseded": 2, "pending": 1}
            peer.replies[:] = [Reply(200)]
            before = len(peer.said)
            line.run()
            assert peer.ids()[before:] == [fired[-1]]
            assert line.counts() == {"superseded": 2, "delivered": 1}


def test_request_expires_at_its_deadline(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A request that was never taken ends as expired, after a last attempt just before."""
    with serving(503) as peer, closing(Line(tmp_path, webhook(peer.url, retry=Retry()))) as line:
        event_id = line.fire()
        line.run()
        assert line.counts() == {"expired": 1}
        assert line.time.up == pytest.approx(1600.0)
        stamps = [float(said.headers["webhook-timestamp"]) for said in peer.said]
        assert NOON + 598 <= stamps[-1] <= NOON + 600
        assert line.results() == {"retry": len(peer.said), "expired": 1}
    errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert errors == [f"{TARGET}: request {event_id} is lost, expired: it answered 503"]


def test_downtime_counts_towards_the_deadline(tmp_path: Path) -> None:
    """A request that is too old when the exporter starts again is not sent any more."""
    time = FakeClock()
    with serving() as peer:
        with closing(Line(tmp_path, webhook(peer.url), time=time)) as line:
            line.fire()
        time.passes(700)
        with closing(Line(tmp_path, webhook(peer.url), time=time)) as line:
            line.run()
            assert line.counts() == {"expired": 1}
        assert peer.said == []


def test_permission_is_asked_for_slowly(tmp_path: Path) -> None:
    """After 401, the next attempt comes with the longest backoff, not sooner."""
    retry = Retry(min_backoff_seconds=0.1, max_backoff_seconds=15.0)
    with serving(401, 200) as peer, closing(Line(tmp_path, webhook(peer.url, retry=retry))) as line:
        line.fire()
        line.step()
        assert line.step() == 15.0


def test_log_tells_a_failure_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same failure again and again is one warning; another is another."""
    with (
        serving(503, 503, 503, 500, 503, 200) as peer,
        closing(Line(tmp_path, webhook(peer.url))) as line,
    ):
        line.fire()
        line.run()
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [text.rpartition(" ")[2] for text in warnings] == ["503", "500", "503"]


def test_fault_of_ours_is_retried(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A receiver that raises ends neither the sender nor the request."""

    class Broken:
        target = TARGET

        def deliver(self, delivery: Delivery) -> Attempt:
            raise ZeroDivisionError(delivery.event_id)

    with closing(Line(tmp_path, webhook("http://127.0.0.1:1/"))) as line:
        line.senders[0].target = replace(line.targets[0], receiver=Broken())
        line.fire()
        line.step()
        row = line.outbox.next_row(TARGET)
        assert row is not None
        assert (row.attempts, row.last_error) == (1, "a fault of ours: ZeroDivisionError")
    assert "Traceback" in caplog.text


def test_plan_is_committed_before_it_is_carried_out(tmp_path: Path) -> None:
    """What a receiver remembers is on disk before it goes on, and given to the next attempt."""
    seen: list[tuple[int, str | None]] = []
    committed: list[Row | None] = []

    class Planner:
        target = TARGET

        def deliver(self, delivery: Delivery) -> Attempt:
            seen.append((delivery.attempt, delivery.plan))
            if delivery.plan is None:
                delivery.remember_plan("5")
                committed.append(line.outbox.next_row(TARGET))
                return Attempt(Outcome.RETRY, error="the answer was lost")
            return Attempt(Outcome.DELIVERED, 200)

    with closing(Line(tmp_path, webhook("http://127.0.0.1:1/"))) as line:
        line.senders[0].target = replace(line.targets[0], receiver=Planner())
        line.fire()
        line.run()
        assert line.counts() == {"delivered": 1}
    assert seen == [(1, None), (2, "5")]
    assert [row.plan for row in committed if row is not None] == ["5"]


def test_dry_run_reaches_nobody(tmp_path: Path) -> None:
    """A dry run ends as such: the webhook is not asked, nor a receiver that knows no dry runs."""

    class Real:
        target = TARGET

        def deliver(self, delivery: Delivery) -> Attempt:
            raise AssertionError(delivery)

    with serving() as peer, closing(Line(tmp_path, webhook(peer.url))) as line:
        rehearsal = replace(line.policy.setup.actions["scale-out"], dry_run=True)
        line.policy.setup = replace(line.policy.setup, actions={"scale-out": rehearsal})
        line.fire()
        line.run()
        line.senders[0].target = replace(line.targets[0], receiver=Real(), rehearses=False)
        line.fire("llm-b")
        line.run()
        assert (line.counts(), line.results()) == ({"dry_run": 2}, {"dry_run": 2})
        assert peer.said == []


# With threads, as in the daemon.


@dataclass(slots=True)
class Daemon:
    """What the daemon runs."""

    outbox: Outbox
    deliveries: Deliveries
    policy: Policy
    targets: list[Target]

    def fire(self, group: str = "llm-a") -> str:
        """Let an event be decided; return the id of its request."""
        (verdict,) = self.policy.decide(event(group=group), time.time()).verdicts
        return verdict.event_id

    def counts(self) -> dict[str, int] | None:
        """Return how many rows there are in each state."""
        return self.outbox.counts()


@contextmanager
def running(folder: Path, *webhooks: WebhookConfig) -> Iterator[Daemon]:
    """Deliver with threads, on the real clock."""
    clock: Clock = system_clock()
    whole = config(*webhooks)
    made = targets(whole.receivers, PLACE, clock)
    outbox, audit = Outbox(folder, clock), Audit(folder, clock)
    deliveries = Deliveries(outbox, audit, clock)
    policy = Policy(setup(whole, made, PLACE), outbox, audit, deliveries.wake, clock)
    deliveries.use(made)
    try:
        yield Daemon(outbox, deliveries, policy, made)
    finally:
        deliveries.stop()
        outbox.close()


def senders() -> list[threading.Thread]:
    """Return the senders' threads."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("scaler/")]


def test_hanging_target_delays_no_other(tmp_path: Path) -> None:
    """While one target hangs, the other is delivered to; each has its own thread."""
    release = threading.Event()
    with serving() as slow, serving() as quick:
        slow.before = lambda: release.wait(30)
        with running(
            tmp_path, webhook(slow.url, timeout_seconds=60.0), webhook(quick.url)
        ) as daemon:
            daemon.fire()
            wait_until(lambda: slow.said and daemon.counts() == {"pending": 1, "delivered": 1})
            daemon.fire("llm-b")
            wait_until(lambda: daemon.counts() == {"pending": 2, "delivered": 2})
            release.set()
            wait_until(lambda: daemon.counts() == {"delivered": 4})
        assert len(quick.said) == len(slow.said) == 2


def test_idle_outbox_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread begins with the first request to its target, and sleeps while there is none."""
    with serving() as peer, running(tmp_path, webhook(peer.url)) as daemon:
        assert senders() == []
        daemon.fire()
        wait_until(lambda: daemon.counts() == {"delivered": 1})
        (thread,) = senders()
        asked: list[Outbox] = []
        monkeypatch.setattr(Outbox, "next_row", lambda box, _: asked.append(box))
        time.sleep(0.2)
        asked.clear()  # it looks once more after each delivery
        time.sleep(0.2)
        assert (asked, thread.is_alive()) == ([], True)
    assert senders() == []


def test_pending_requests_are_sent_after_a_restart(tmp_path: Path) -> None:
    """What an earlier process left pending is delivered at the start, with the same id."""
    with serving(503) as peer:
        with running(tmp_path, webhook(peer.url, retry=Retry())) as daemon:
            event_id = daemon.fire()
            wait_until(lambda: peer.said)
        peer.replies[:] = [Reply(200)]
        with running(tmp_path, webhook(peer.url)) as daemon:
            wait_until(lambda: daemon.counts() == {"delivered": 1})
        assert set(peer.ids()) == {event_id}


def test_stop_leaves_a_hanging_request_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end a request that hangs gets some seconds, and is there for the next start."""
    assert delivery.STOP_SECONDS == 5.0
    monkeypatch.setattr(delivery, "STOP_SECONDS", 0.1)
    release = threading.Event()
    with serving() as peer:
        peer.before = lambda: release.wait(60)
        with running(tmp_path, webhook(peer.url, timeout_seconds=60.0)) as daemon:
            daemon.fire()
            wait_until(lambda: peer.said)
        assert not release.is_set()  # the daemon did not wait for it
        release.set()
        wait_until(lambda: senders() == [])
        with closing(Outbox(tmp_path, system_clock())) as reopened:
            assert reopened.counts() == {"pending": 1}


def test_stop_lets_an_attempt_end(tmp_path: Path) -> None:
    """An attempt that is under way when the daemon stops is settled if it ends soon."""
    release = threading.Event()
    with serving() as peer:
        peer.before = lambda: release.wait(30)
        with running(tmp_path, webhook(peer.url, timeout_seconds=60.0)) as daemon:
            daemon.fire()
            wait_until(lambda: peer.said)
            threading.Timer(0.05, release.set).start()
        with closing(Outbox(tmp_path, system_clock())) as reopened:
            assert reopened.counts() == {"delivered": 1}


def test_reload_moves_what_waits(tmp_path: Path) -> None:
    """After a reload, requests go to the same target's new address; those to a removed one end."""
    with (
        serving(503) as old,
        serving() as new,
        running(tmp_path, webhook(old.url), webhook(old.url)) as daemon,
    ):
        event_id = daemon.fire()
        wait_until(lambda: old.said)
        clock = system_clock()
        changed = targets(config(webhook(new.url)).receivers, PLACE, clock, daemon.targets)
        daemon.deliveries.use(changed)
        wait_until(lambda: daemon.counts() == {"delivered": 1, "dead": 1})
        assert new.ids() == [event_id]
        wait_until(lambda: len(senders()) == 1)
        heard = len(old.said)
        same = targets(config(webhook(new.url)).receivers, PLACE, clock, changed)
        assert same == changed
        daemon.deliveries.use(same)
        daemon.fire("llm-b")
        wait_until(lambda: len(new.said) == 2)
        assert len(old.said) == heard


def test_senders_of_one_target_never_overlap(tmp_path: Path) -> None:
    """Reloads in the midst of an attempt do not send the same request twice at once."""
    release = threading.Event()
    with serving() as old, serving() as new:
        old.before = lambda: release.wait(30)
        with running(tmp_path, webhook(old.url, timeout_seconds=60.0)) as daemon:
            daemon.fire()
            wait_until(lambda: old.said)
            for timeout in (1.0, 2.0):
                changed = config(webhook(new.url, timeout_seconds=timeout))
                daemon.deliveries.use(targets(changed.receivers, PLACE, system_clock()))
            time.sleep(0.1)
            assert new.said == []
            release.set()
            wait_until(lambda: daemon.counts() == {"delivered": 1})
            assert new.said == []


def test_reload_before_the_thread_began(tmp_path: Path) -> None:
    """A sender that never began passes on the thread that its successor has to wait for."""
    with closing(Line(tmp_path, webhook("http://127.0.0.1:1/"))) as line:
        earlier = threading.Thread()
        target, clock = line.targets[0], line.time.clock
        sender = Sender(target, line.outbox, Audit(None, clock), line.tally, clock, earlier)
        assert sender.last is earlier


def test_target_has_one_thread_however_often_it_is_woken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that wake a sender for the first time at once start it once."""
    real = threading.Thread
    started: list[threading.Thread] = []

    def slow(**options: Any) -> threading.Thread:
        time.sleep(0.05)
        started.append(real(**options))
        return started[-1]

    with closing(Line(tmp_path, webhook("http://127.0.0.1:1/"))) as line:
        wakers = [real(target=line.senders[0].wake) for _ in range(4)]
        monkeypatch.setattr(threading, "Thread", slow)
        for thread in wakers:
            thread.start()
        for thread in wakers:
            thread.join()
        line.senders[0].stop()
        for thread in started:
            thread.join()
    assert len(started) == 1


def test_outbox_that_does_not_answer_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk cannot be read for a while, the sender comes back, and loses no request."""
    monkeypatch.setattr(delivery, "UNAVAILABLE_SECONDS", 0.05)
    with serving() as peer, running(tmp_path, webhook(peer.url)) as daemon:
        daemon.fire()
        wait_until(lambda: daemon.counts() == {"delivered": 1})
        (sender,) = daemon.deliveries._senders.values()
        refuse: list[Callable[[], None]] = []
        real = disk.Disk.read

        def read(self: disk.Disk, work: Callable[[sqlite3.Connection], object]) -> object:
            if refuse:
                raise disk.NoDiskError
            return real(self, work)

        monkeypatch.setattr(disk.Disk, "read", read)
        refuse.append(lambda: None)
        assert sender.step() == 0.05
        daemon.fire("llm-b")
        refuse.clear()
        wait_until(lambda: daemon.counts() == {"delivered": 2})
