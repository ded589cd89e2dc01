"""From the node through a real Alertmanager to the outbox: one request, and none lost."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import alertmanager
import pytest
from alertmanager import DOCUMENTED, FIRING, KEY, delivery, push_to, pushes
from debian import program
from http_client import Running, serving, wait_until

from exporter.config import Action, AlertmanagerReceiver, Authorization
from exporter.config import Route as AlertRoute
from exporter.httpd import Request, Response, Route
from exporter.scaleout.audit import Audit
from exporter.scaleout.clock import system_clock
from exporter.scaleout.decision import Setup
from exporter.scaleout.intake import Intake
from exporter.scaleout.outbox import Outbox
from exporter.scaleout.payload import MAX_BODY_BYTES
from exporter.scaleout.policy import Policy

__all__ = ["pushes"]  # for pytest

TARGET = "autoscaler/webhook/0"
ACTIONS = {"scale-out": Action("scale-out", receiver="autoscaler")}


@dataclass(frozen=True, slots=True)
class Central:
    """The exporter that Alertmanager posts to."""

    server: Running
    token_file: Path
    policy: Policy
    outbox: Outbox
    bodies: list[dict[str, Any]]
    statuses: list[int]


@pytest.fixture
def central(tmp_path: Path) -> Iterator[Central]:
    """Serve an intake with a policy and an outbox behind it, all of them real."""
    token_file = tmp_path / "token"
    token_file.write_text("s3cret\n")
    token_file.chmod(0o600)
    clock = system_clock()
    folder = tmp_path / "state"
    folder.mkdir()
    outbox = Outbox(folder, clock)
    setup = Setup(
        actions=ACTIONS, targets={"autoscaler": {TARGET: 600.0}}, labels={}, node="central"
    )
    policy = Policy(setup, outbox, Audit(None, clock), lambda _: None, clock)
    config = AlertmanagerReceiver(
        authorization=Authorization(credentials_file=token_file),
        routes=(AlertRoute(('alertname="GpuSustainedLoad"',), "scale-out"),),
    )
    intake = Intake(config, ACTIONS, policy.enqueue, clock)
    bodies: list[dict[str, Any]] = []
    statuses: list[int] = []

    def watched(request: Request) -> Response:
        response = intake.handle(request)
        bodies.append(json.loads(request.body))
        statuses.append(response.status)
        return response

    with serving([Route(config.path, ("POST",), watched, MAX_BODY_BYTES)]) as server:
        yield Central(server, token_file, policy, outbox, bodies, statuses)
    outbox.close()


def requests(central: Central) -> list[Mapping[str, Any]]:
    """Return what waits to be sent."""
    row = central.outbox.next_row(TARGET)
    return [] if row is None else [json.loads(row.body)]


def test_documented_config(tmp_path: Path) -> None:
    """Alertmanager takes the config that the documentation gives."""
    path = tmp_path / "alertmanager.yml"
    path.write_text(DOCUMENTED)
    command = [str(program("amtool")), "check-config", str(path)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_no_room_at_first(
    central: Central, tmp_path: Path, pushes: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the outbox is full there is a 503, and Alertmanager comes until it is not."""
    monkeypatch.setattr("exporter.scaleout.rows.MAX_PENDING", 0)
    config = alertmanager.documented(central.server.port, central.token_file)
    with alertmanager.running(tmp_path / "alertmanager", config) as peer:
        push_to(pushes, peer.url, "gpu-017").deliver(delivery())
        wait_until(lambda: len(central.statuses) >= 2)
        assert set(central.statuses) == {503}
        assert requests(central) == []
        monkeypatch.setattr("exporter.scaleout.rows.MAX_PENDING", 1000)
        wait_until(lambda: central.statuses[-1] == 200)
    [request] = requests(central)
    assert (request["rule"], request["scale_group"]) == KEY
    assert request["reason"] == "firing in Alertmanager"


@pytest.mark.slow
def test_hundred_nodes(central: Central, tmp_path: Path, pushes: contextlib.ExitStack) -> None:
    """A hundred nodes that fire are one group in Alertmanager, and one request in the outbox."""
    config = alertmanager.documented(central.server.port, central.token_file)
    with alertmanager.running(tmp_path / "alertmanager", config) as peer:
        for number in range(100):
            push = push_to(pushes, peer.url, f"gpu-{number:03}")
            push.update(FIRING)
            push.deliver(delivery())
        wait_until(lambda: bool(central.bodies) and len(central.bodies[-1]["alerts"]) == 100)
    assert {body["groupKey"] for body in central.bodies} == {
        '{}/{alertname="GpuSustainedLoad"}:{cluster="prod-eu1", scale_group="llm-a"}'
    }
    assert set(central.statuses) == {200}
    counts = {name: count for name, count in central.policy.counts().items() if count}
    assert counts.pop(("scale-out", "fired")) == 1
    assert set(counts) <= {("scale-out", "cooldown")}
    assert len(requests(central)) == 1
