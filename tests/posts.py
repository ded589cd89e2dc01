"""Bodies that Alertmanager posted when they were recorded, and an intake to post them to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.config import Action, AlertmanagerReceiver, Authorization
from exporter.config import Route as AlertRoute
from exporter.httpd import Request, Response
from exporter.scaleout.clock import Clock
from exporter.scaleout.intake import Intake
from exporter.scaleout.model import RuleEvent
from exporter.scaleout.outbox import OutboxUnavailableError

FIXTURES = Path(__file__).parent / "fixtures" / "alertmanager"
RECORDED = sorted(path.stem for path in FIXTURES.glob("*.json"))  # Alertmanager 0.25.0
FIRING = (FIXTURES / "firing.json").read_bytes()
ANY = (AlertRoute((), "scale-out"),)
NOW = 1_790_000_000.0


@dataclass(frozen=True, slots=True)
class Queued:
    """What was passed on."""

    action: str
    event: RuleEvent
    labels: Mapping[str, str]
    source: str


class Queue:
    """Takes events, or is full."""

    def __init__(self) -> None:
        self.taken: list[Queued] = []
        self.is_full = False

    def __call__(
        self, action: str, event: RuleEvent, labels: Mapping[str, str], source: str
    ) -> str:
        """Take one."""
        if self.is_full:
            raise OutboxUnavailableError("no space left")
        self.taken.append(Queued(action, event, labels, source))
        return "fired"


class Ticking:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> Clock:
        """Return it as a Clock."""
        return Clock(lambda: NOW, lambda: self.now, "boot")


def intake(
    queue: Queue,
    routes: tuple[AlertRoute, ...] = ANY,
    token_file: Path | None = None,
    clock: Clock | None = None,
) -> Intake:
    """Return an intake with a bucket that is full."""
    authorization = None if token_file is None else Authorization(credentials_file=token_file)
    config = AlertmanagerReceiver(authorization=authorization, routes=routes)
    names = {route.action for route in routes}
    actions = {name: Action(name, group_by=("cluster", "gpu")) for name in names}
    return Intake(config, actions, queue, clock or Ticking().clock())


def post(body: bytes, peer: str = "127.0.0.1", **headers: str) -> Request:
    """Return a request as Alertmanager makes it, but for some headers."""
    usual = {"content-type": "application/json", "content-length": str(len(body))}
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", "/api/v1/alertmanager", "", {**usual, **given}, body, peer)


def payload(name: str = "firing") -> dict[str, Any]:
    """Return a recorded body."""
    found: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_bytes())
    return found


def changed(**values: object) -> bytes:
    """Return the recorded body with other values for some keys of its one alert."""
    body = payload()
    body["alerts"][0].update(values)
    return json.dumps(body).encode()


def rows(response: Response) -> list[dict[str, str]]:
    """Return what an answer says of each alert."""
    assert response.status == 200
    assert response.content_type == "application/json"
    found: list[dict[str, str]] = json.loads(response.body)["alerts"]
    return found


def assert_refused(response: Response, status: int) -> None:
    """Prove that an answer is one line with a reason."""
    assert response.status == status
    assert response.body.startswith(f"{status} ".encode())
    assert response.body.count(b"\n") == 1
    assert b"Traceback" not in response.body


def firing(*changes: Mapping[str, str]) -> bytes:
    """Return the recorded body with one alert for each of some changes to its labels."""
    body = payload()
    alert = body["alerts"][0]
    body["alerts"] = [
        {
            **alert,
            "status": labels.get("status", "firing"),
            "fingerprint": f"{number:x}",
            "labels": {**alert["labels"], **labels},
        }
        for number, labels in enumerate(changes)
    ]
    return json.dumps(body).encode()
