"""Posts of Alertmanager: every alert is taken for what it says, and asks for what it should."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from http_client import connect, serving
from posts import (
    ANY,
    FIRING,
    FIXTURES,
    NOW,
    RECORDED,
    Queue,
    Queued,
    assert_refused,
    changed,
    firing,
    intake,
    payload,
    post,
    rows,
)

from exporter.config import Route as AlertRoute
from exporter.scaleout.model import EventKind, RuleEvent

# What Alertmanager sends


@pytest.mark.parametrize("name", RECORDED)
def test_recorded(name: str) -> None:
    """Each recorded body is taken, every alert for what it says itself."""
    queue = Queue()
    body = payload(name)
    answer = rows(intake(queue).handle(post(json.dumps(body).encode())))
    assert [row["fingerprint"] for row in answer] == [a["fingerprint"] for a in body["alerts"]]
    assert [row["status"] for row in answer] == [a["status"] for a in body["alerts"]]
    if name != "truncated_resolved":
        assert {row["decision"] for row in answer} == {"fired"}
        assert [one.event.kind.value for one in queue.taken] == [row["status"] for row in answer]


def test_event() -> None:
    """An alert becomes an event of its action with the alert's own labels and start."""
    queue = Queue()
    intake(queue).handle(post(changed(labels={"alertname": "A", "scale_group": "llm-a", "x": "y"})))
    assert queue.taken == [
        Queued(
            "scale-out",
            RuleEvent(
                rule="A",
                kind=EventKind.FIRING,
                reason="firing in Alertmanager",
                scale_group="llm-a",
                started_at=1795253513.509,
                fired_at=NOW,
                series=(),
                actions=("scale-out",),
            ),
            {"alertname": "A", "scale_group": "llm-a", "x": "y"},
            "alertmanager 127.0.0.1 daf77554acd14b1f",
        )
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-21T09:31:53Z", 1795253513.0),
        ("2026-11-21T09:31:53.123456789Z", 1795253513.123456789),
        ("2026-11-21T11:31:53.5+02:00", 1795253513.5),
        ("2026-11-20T23:01:53-10:30", 1795253513.0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    """Every form of time that Go writes is read."""
    queue = Queue()
    intake(queue).handle(post(changed(startsAt=text)))
    assert queue.taken[0].event.started_at == pytest.approx(seconds, abs=1e-6)


def test_newer_alertmanager() -> None:
    """Keys that newer versions have added are no reason to refuse."""
    body = payload()
    body |= {"notification_reason": "firing", "routeLabels": {"team": "a"}, "extra": [{"a": [1]}]}
    body["alerts"][0]["new"] = None
    del body["alerts"][0]["annotations"], body["truncatedAlerts"]
    assert rows(intake(Queue()).handle(post(json.dumps(body).encode())))


def test_without_fingerprint() -> None:
    """An alert without a fingerprint gets one that depends on its labels alone."""
    body = payload("two_firing")
    for alert in body["alerts"]:
        del alert["fingerprint"]
    first = rows(intake(Queue()).handle(post(json.dumps(body).encode())))
    body["alerts"].reverse()
    second = rows(intake(Queue()).handle(post(json.dumps(body).encode())))
    assert [row["fingerprint"] for row in first] == [row["fingerprint"] for row in second[::-1]]
    assert len({row["fingerprint"] for row in first}) == 2


def test_grafana_is_not_alertmanager() -> None:
    """Grafana's dialect, whose version is 1, is refused."""
    body = json.dumps({**payload(), "version": "1", "orgId": 1}).encode()
    assert_refused(intake(Queue()).handle(post(body)), 400)


def test_truncated() -> None:
    """With alerts left off, what is called resolved ends nothing, and what fires counts still."""
    queue = Queue()
    body = payload("truncated_resolved")
    assert (body["status"], body["truncatedAlerts"]) == ("resolved", 3)  # while two were firing
    answer = rows(intake(queue).handle(post(json.dumps(body).encode())))
    assert {row["decision"] for row in answer} == {"ignored: the list of alerts is truncated"}
    assert queue.taken == []
    rows(intake(queue).handle(post((FIXTURES / "truncated.json").read_bytes())))
    assert [one.event.kind for one in queue.taken] == [EventKind.FIRING]


def test_same_wish() -> None:
    """Alerts of one webhook that ask for the same are one request, and every one gets an answer."""
    queue = Queue()
    nodes = ({"node": "a"}, {"node": "b"}, {"gpu": "1"}, {"node": "c"}, {"alertname": "Other"})
    answer = rows(intake(queue).handle(post(firing(*nodes))))
    assert [row["decision"].partition(":")[0] for row in answer] == (
        ["fired", "duplicate", "fired", "duplicate", "fired"]
    )
    assert [one.source.split()[-1] for one in queue.taken] == ["0", "2", "4"]


def test_partly_over() -> None:
    """What is over on one node and fires on another has no end yet, in whatever order they come."""
    nodes: list[Mapping[str, str]] = [
        {"node": "a", "status": "resolved"},
        {"node": "b"},
        {"node": "c", "status": "resolved"},
        {"gpu": "1", "status": "resolved"},
    ]
    for order in (nodes, nodes[::-1]):
        queue = Queue()
        answer = rows(intake(queue).handle(post(firing(*order))))
        ignored = "ignored: another alert of its group fires"
        decisions = [ignored, "fired", ignored, "fired"]
        assert [row["decision"] for row in answer] == decisions[:: 1 if order is nodes else -1]
        ends = [one.labels["gpu"] for one in queue.taken if one.event.kind is EventKind.RESOLVED]
        assert ends == ["1"]


def test_too_many_wishes() -> None:
    """A webhook that asks for a hundred things at once is taken; for more, nothing of it is."""
    queue = Queue()
    groups = [{"gpu": str(n)} for n in range(101)]
    assert_refused(intake(queue).handle(post(firing(*groups))), 413)
    assert queue.taken == []
    handler = intake(queue, (AlertRoute(('alertname="FakeCond"',), "scale-out"),))
    body = firing(*groups[:100], *groups[:100], {"alertname": "for nobody"})
    assert handler.handle(post(body)).status == 200
    assert len(queue.taken) == 100


# Routes


def test_routes() -> None:
    """The first route that matches decides; those after it only where it says `continue`."""
    routes = (
        AlertRoute(('gpu="0"', 'severity=~"page|critical"'), "zero", continue_=True),
        AlertRoute(('gpu="0"',), "zero", continue_=True),
        AlertRoute(('alertname=~"Fake.*"', "gpu!=1"), "fake"),
        AlertRoute(('alertname="FakeCond"',), "last"),
    )
    queue = Queue()
    answer = rows(intake(queue, routes).handle(post((FIXTURES / "two_firing.json").read_bytes())))
    assert [(row["fingerprint"][:4], row["action"]) for row in answer] == [
        ("daf7", "zero"),
        ("daf7", "fake"),
        ("20a1", "last"),
    ]
    assert [one.action for one in queue.taken] == ["zero", "fake", "last"]


def test_no_route() -> None:
    """What no route matches is answered for, and asks for nothing."""
    queue = Queue()
    handler = intake(queue, (AlertRoute(("alertname=Fake",), "x"),))
    assert rows(handler.handle(post(FIRING))) == [
        {
            "fingerprint": "daf77554acd14b1f",
            "status": "firing",
            "decision": "ignored: no route matches",
        }
    ]
    assert queue.taken == []


# Through the server


def raw(body: bytes, *headers: str, method: str = "POST") -> bytes:
    """Return a request's bytes."""
    lines = (f"{method} /api/v1/alertmanager HTTP/1.1", "Host: x", *headers, "", "")
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (raw(FIRING, "Content-Type: application/json", f"Content-Length: {len(FIRING)}"), 200),
        (raw(FIRING, f"Content-Length: {len(FIRING)}"), 415),
        (raw(b"", "Content-Type: application/json"), 411),
        (raw(b"0\r\n\r\n", "Transfer-Encoding: chunked", "Content-Type: application/json"), 411),
        (raw(b"", f"Content-Length: {(1 << 20) + 1}"), 413),
        (raw(b"", "Content-Length: -1"), 400),
        (raw(b"", "Content-Length: 1", "Content-Length: 2"), 400),
        (raw(b"", method="GET"), 405),
    ],
)
def test_server(request_bytes: bytes, status: int) -> None:
    """The server's own bounds hold for the receiver's path."""
    queue = Queue()
    with serving([intake(queue).route()]) as server, connect(server.port) as client:
        client.send(request_bytes)
        assert client.answer().status == status
    assert len(queue.taken) == (status == 200)


def test_largest_body() -> None:
    """A body of as many bytes and alerts as may be is taken, and not looked at for long."""
    queue = Queue()
    body = payload()
    alert = body["alerts"][0]
    alert["annotations"]["summary"] = "x" * 400
    body["alerts"] = [
        {**alert, "labels": {**alert["labels"], "node": f"gpu-{n}"}} for n in range(1000)
    ]
    text = json.dumps(body).encode().ljust(1 << 20)
    routes = (replace(ANY[0], matchers=('alertname=~"Fake.*|Gpu.+"', 'node!~"x.*-y.*"')),)
    with serving([intake(queue, routes).route()]) as server, connect(server.port) as client:
        head = raw(b"", "Content-Type: application/json", f"Content-Length: {len(text)}")
        client.send(head + text)
        assert client.answer().status == 200
    assert len(queue.taken) == 1
