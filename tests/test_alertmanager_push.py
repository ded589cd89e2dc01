"""Alerts of this node in a real Alertmanager: there at once, kept alive, ended, never stuck."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import alertmanager
import pytest
from alertmanager import FIRING, GPU, KEY, Alertmanager, delivery, push_to, pushes
from http_client import serving, wait_until

from exporter.httpd import Request, Response, Route
from exporter.scaleout.alertmanager import AlertmanagerPush
from exporter.scaleout.clock import system_clock
from exporter.scaleout.model import Attempt, Outcome

__all__ = ["pushes"]  # for pytest

QUIET = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"
NOTHING = frozenset[tuple[str, str]]()


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    """One Alertmanager for all tests; each uses a node's name of its own."""
    with alertmanager.running(tmp_path_factory.mktemp("alertmanager") / "one", QUIET) as running:
        yield running


def of(peer: Alertmanager, node: str) -> list[dict[str, Any]]:
    """Return a node's alerts that fire in Alertmanager."""
    return [alert for alert in peer.alerts() if alert["labels"].get("node") == node]


def ends_at(alert: Mapping[str, Any]) -> float:
    """Return when an alert ends, in seconds since the epoch."""
    return datetime.fromisoformat(alert["endsAt"].replace("Z", "+00:00")).timestamp()


def threads() -> list[str]:
    """Return the names of the threads that send again."""
    return [thread.name for thread in threading.enumerate() if "alertmanager" in thread.name]


def test_push(peer: Alertmanager, pushes: contextlib.ExitStack) -> None:
    """An alert is in Alertmanager when `deliver` returns, with the labels it is routed by."""
    push = push_to(pushes, peer.url + "/", "gpu-017")
    started = delivery(series=(GPU, {**GPU, "gpu": "5", "uuid": "GPU-8b", "value": 1}))
    before = time.time()
    assert push.deliver(started) == Attempt(Outcome.DELIVERED, 200)
    assert time.time() - before < 1
    [alert] = of(peer, "gpu-017")
    assert alert["labels"] == {
        "alertname": "GpuSustainedLoad",
        "cluster": "prod-eu1",
        "scale_group": "llm-a",
        "node": "gpu-017",
        "job": "gpu-node",
    }
    assert alert["annotations"] == {
        "summary": "gpu-017: gpu_utilization_ratio >= 0.95 for 10s",
        "gpus": "3 (GPU-8a), 5 (GPU-8b)",
        "value": "0.99, 1",
    }
    assert alert["generatorURL"] == "http://gpu-017:9836/"
    assert before + 59 < ends_at(alert) < time.time() + 61


def test_job_of_another_name(peer: Alertmanager, pushes: contextlib.ExitStack) -> None:
    """Who scrapes under another job has that on pushed alerts too."""
    push_to(pushes, peer.url, "renamed", labels={"job": "gpus"}).deliver(delivery())
    [alert] = of(peer, "renamed")
    assert alert["labels"]["job"] == "gpus"


def test_long_and_odd_texts(peer: Alertmanager, pushes: contextlib.ExitStack) -> None:
    """Values go as they are, JSON in JSON, and annotations have a bound."""
    odd = '"}, "x": 1, "y": "\r\nX: ${HOME} {0.__class__} \N{FIRE}'
    push = push_to(pushes, peer.url, "odd", labels={"cluster": odd})
    series = tuple({**GPU, "gpu": str(n), "uuid": "GPU-" + "f" * 36} for n in range(100))
    assert push.deliver(delivery(odd, series)).outcome is Outcome.DELIVERED
    [alert] = of(peer, "odd")
    assert (alert["labels"]["cluster"], alert["labels"]["alertname"]) == (odd, odd)
    assert len(alert["annotations"]["gpus"]) == 1024


def test_kept_alive(peer: Alertmanager, pushes: contextlib.ExitStack) -> None:
    """An alert lives past its first end for as long as it is sent again, and not without."""
    push = push_to(pushes, peer.url, "alive", resend_seconds=0.2)
    push.update(FIRING)
    push.deliver(delivery())
    first = ends_at(of(peer, "alive")[0])
    wait_until(lambda: time.time() > first + 0.5)
    assert ends_at(of(peer, "alive")[0]) > first + 0.5
    push.close()
    wait_until(lambda: of(peer, "alive") == [])


def test_ends_with_its_rule(peer: Alertmanager, pushes: contextlib.ExitStack) -> None:
    """When the rule fires no more the alert ends at once, event or no event, and starts anew."""
    push = push_to(pushes, peer.url, "ends")
    push.update(FIRING)
    push.deliver(delivery())
    first = of(peer, "ends")[0]
    push.update(FIRING | {("GpuMemoryHigh", "llm-a")})
    assert of(peer, "ends") == [first]
    push.update(frozenset({(KEY[0], "llm-b")}))
    wait_until(lambda: of(peer, "ends") == [])
    assert time.time() < ends_at(first)
    push.update(FIRING)
    push.deliver(delivery())
    assert of(peer, "ends")[0]["startsAt"] > first["startsAt"]


def test_ends_when_told(peer: Alertmanager, pushes: contextlib.ExitStack) -> None:
    """A resolved event ends the alert before `deliver` returns; without an alert it is harmless."""
    push = push_to(pushes, peer.url, "told")
    assert push.deliver(delivery(resolved=True)).outcome is Outcome.DELIVERED
    push.deliver(delivery())
    assert len(of(peer, "told")) == 1
    assert push.deliver(delivery(resolved=True)).outcome is Outcome.DELIVERED
    assert of(peer, "told") == []


def test_repeat(peer: Alertmanager, pushes: contextlib.ExitStack) -> None:
    """A repeat is the same alert, from when it started, and tells of the GPUs of now."""
    push = push_to(pushes, peer.url, "repeat")
    push.update(FIRING)
    push.deliver(delivery())
    [first] = of(peer, "repeat")
    push.deliver(delivery(series=({**GPU, "gpu": "7"},)))
    [second] = of(peer, "repeat")
    assert second["startsAt"] == first["startsAt"]
    assert second["fingerprint"] == first["fingerprint"]
    assert second["annotations"]["gpus"] == "7 (GPU-8a)"


def test_over_before_delivery(peer: Alertmanager, pushes: contextlib.ExitStack) -> None:
    """What has calmed down while Alertmanager was away is not pushed any more."""
    push = push_to(pushes, peer.url, "over")
    push.update(NOTHING)
    assert push.deliver(delivery()).outcome is Outcome.EXPIRED
    assert of(peer, "over") == []
    assert threads() == []


def test_no_thread_without_alerts(peer: Alertmanager, pushes: contextlib.ExitStack) -> None:
    """The thread comes with the first alert and goes when the last one is over."""
    push = push_to(pushes, peer.url, "thread", resend_seconds=0.1)
    push.update(FIRING)
    assert threads() == []
    push.deliver(delivery())
    assert threads() == ["autoscaler/alertmanager/0"]
    push.update(NOTHING)
    wait_until(lambda: threads() == [])
    push.update(FIRING)
    push.deliver(delivery())
    assert len(threads()) == len(of(peer, "thread")) == 1


def test_bound(
    peer: Alertmanager, pushes: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more alerts are kept than the bound says; those that are there can be renewed."""
    monkeypatch.setattr("exporter.scaleout.alertmanager.MAX_ALERTS", 2)
    push = push_to(pushes, peer.url, "bound")
    outcomes = [push.deliver(delivery(rule)).outcome.value for rule in ("A", "B", "C", "B")]
    assert outcomes == ["delivered", "delivered", "suppressed", "delivered"]


def test_memory_lost(tmp_path: Path, pushes: contextlib.ExitStack) -> None:
    """An Alertmanager that was away and comes back empty learns of what fires."""
    with alertmanager.running(tmp_path / "before", QUIET) as first:
        push = push_to(pushes, first.url, "lost", resend_seconds=0.2)
        push.update(FIRING)
        push.deliver(delivery())
    assert push.deliver(delivery()).outcome is Outcome.RETRY
    with alertmanager.running(tmp_path / "after", QUIET, first.port) as second:
        wait_until(lambda: len(of(second, "lost")) == 1)


def test_one_of_two_hangs(peer: Alertmanager, pushes: contextlib.ExitStack) -> None:
    """Two Alertmanagers are two targets: one that never answers does not hold up the other."""
    hanging = pushes.enter_context(socket.create_server(("127.0.0.1", 0)))
    url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
    attempts: dict[str, Attempt] = {}

    def deliver(name: str, push: AlertmanagerPush) -> None:
        attempts[name] = push.deliver(delivery())

    good = push_to(pushes, peer.url, "pair")
    bad = push_to(pushes, url, "pair", timeout_seconds=1.0)
    slow = threading.Thread(target=deliver, args=("bad", bad))
    slow.start()
    deliver("good", good)
    assert attempts["good"].outcome is Outcome.DELIVERED
    assert "bad" not in attempts
    assert len(of(peer, "pair")) == 1
    slow.join()
    assert attempts["bad"].outcome is Outcome.RETRY


def test_failing_while_sending_again(
    pushes: contextlib.ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """An Alertmanager that fails later on is told of in the log once, not each time."""
    answers = iter([200])
    seen: list[Request] = []

    def answer(request: Request) -> Response:
        seen.append(request)
        return Response(next(answers, 503), b"no\n")

    route = Route("/api/v2/alerts", ("POST",), answer, 1 << 20)
    with serving([route]) as server:
        push = push_to(pushes, f"http://127.0.0.1:{server.port}", "failing", resend_seconds=0.05)
        push.update(FIRING)
        push.deliver(delivery())
        wait_until(lambda: len(seen) > 5)
        push.close()
        wait_until(lambda: threads() == [])
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["autoscaler/alertmanager/0: alerts cannot be sent again: it answered 503"]


@contextlib.contextmanager
def noting(answer: Callable[[int], int]) -> Iterator[tuple[str, list[Any]]]:
    """Serve what stands for an Alertmanager, with a status by the number of alerts seen before.

    Gives its URL and the alerts, in the order in which they came.
    """
    seen: list[Any] = []

    def take(request: Request) -> Response:
        status = answer(len(seen))
        seen.extend(json.loads(request.body))
        return Response(status, b"")

    with serving([Route("/api/v2/alerts", ("POST",), take, 1 << 20)]) as server:
        yield f"http://127.0.0.1:{server.port}", seen


def test_over_during_delivery(pushes: contextlib.ExitStack) -> None:
    """A rule that calms down while its alert is on the way is ended as soon as that has arrived."""

    def answer(_: int) -> int:
        push.update(NOTHING)
        return 200

    with noting(answer) as (url, seen):
        push = push_to(pushes, url, "meanwhile", resend_seconds=60.0)
        push.update(FIRING)
        assert push.deliver(delivery()).outcome is Outcome.DELIVERED
        wait_until(lambda: len(seen) == 2)
    started, ended = seen
    assert ended["labels"] == started["labels"]
    assert ends_at(ended) < ends_at(started) - 200


def test_same_start(pushes: contextlib.ExitStack) -> None:
    """A repeat says when the alert began, so that an Alertmanager without memory knows too."""
    with noting(lambda _: 200) as (url, seen):
        push = push_to(pushes, url, "start")
        for seconds in (0, 100):
            push.deliver(replace(delivery(), created=1_790_000_000.0 + seconds))
        push.deliver(delivery(resolved=True))
    assert {alert["startsAt"] for alert in seen} == {"2026-09-21T14:13:20.000Z"}


def test_no_end_after_a_new_start(pushes: contextlib.ExitStack) -> None:
    """Once a rule fires anew the end of the time before is not told again."""
    with noting(lambda before: 503 if before == 2 else 200) as (url, seen):
        push = push_to(pushes, url, "anew")
        push.update(FIRING)
        push.deliver(delivery())
        push.update(NOTHING)
        wait_until(lambda: len(seen) == 2)
        push.update(FIRING)
        assert push.deliver(delivery()).outcome is Outcome.RETRY
    assert push._alerts == {}


def test_refused_by_alertmanager(peer: Alertmanager, pushes: contextlib.ExitStack) -> None:
    """What Alertmanager calls wrong is never sent again, and its own words say why."""
    push = push_to(pushes, peer.url, "wrong", labels={"a-b": "c"})
    attempt = push.deliver(delivery())
    assert (attempt.outcome, attempt.status) == (Outcome.DEAD, 400)
    assert attempt.error == 'it answered 400: invalid label set: invalid name "a-b"'
    assert threads() == []


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (202, "delivered"),
        (302, "dead"),
        (401, "retry"),
        (404, "dead"),
        (429, "retry"),
        (500, "retry"),
        (503, "retry"),
    ],
)
def test_statuses(pushes: contextlib.ExitStack, status: int, outcome: str) -> None:
    """Only what may pass is tried again."""
    headers = (("Location", "/api/v2/alerts"),)
    route = Route(
        "/api/v2/alerts", ("POST",), lambda _: Response(status, b"", headers=headers), 1 << 20
    )
    with serving([route]) as server:
        push = push_to(pushes, f"http://127.0.0.1:{server.port}", "status")
        attempt = push.deliver(delivery())
    assert (attempt.outcome.value, attempt.status) == (outcome, status)


def test_nobody_there(pushes: contextlib.ExitStack) -> None:
    """Where nobody listens it is tried again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    attempt = push_to(pushes, url, "nobody").deliver(delivery())
    assert (attempt.outcome, attempt.status) == (Outcome.RETRY, None)
    assert attempt.error


def test_clock_behind(peer: Alertmanager, pushes: contextlib.ExitStack) -> None:
    """Where the node's clock is so far behind that no alert can fire, that is no success."""
    clock = replace(system_clock(), wall=lambda: time.time() - 3600)
    push = push_to(pushes, peer.url, "behind", clock=clock)
    attempt = push.deliver(replace(delivery(), created=clock.wall()))
    assert attempt.outcome is Outcome.RETRY
    assert "clock" in attempt.error
    assert of(peer, "behind") == []


@pytest.mark.slow
def test_clock_ahead(peer: Alertmanager, pushes: contextlib.ExitStack) -> None:
    """An end that is in the future for Alertmanager, which drops it, is told again until it is not.

    The alert would live on for four times the delay otherwise.
    """
    clock = replace(system_clock(), wall=lambda: time.time() + 1.2)
    push = push_to(pushes, peer.url, "ahead", resend_seconds=1.0, clock=clock)
    push.update(FIRING)
    push.deliver(replace(delivery(), created=clock.wall()))
    push.update(NOTHING)
    [alert] = of(peer, "ahead")
    wait_until(lambda: of(peer, "ahead") == [])
    assert time.time() < ends_at(alert)
