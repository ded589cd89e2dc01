"""The receiver of Alertmanager's webhooks: its alerts set off actions of this node."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import field

from exporter.config.client import Authorization
from exporter.frozen import dataclass
from exporter.schema import Place, boolean, identifier, key


def http_path(text: str) -> str:
    """Read the path of an HTTP endpoint that is none of the exporter's own."""
    if not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", text):
        raise ValueError("is not a path of a URL; write one such as /api/v1/alertmanager")
    if text in ("/metrics", "/api/v1/status") or text.startswith("/-/"):
        raise ValueError("is the exporter's own; write one such as /api/v1/alertmanager")
    return text


def matcher(text: str) -> str:
    """Read matchers in Alertmanager's syntax."""
    from exporter.matchers import parse_matchers  # noqa: PLC0415  only routes need it

    parse_matchers(text)
    return text


@dataclass(frozen=True, slots=True)
class Route:
    """An action for some of the alerts.

    Attributes:
        matchers: What an alert's labels must all meet, in Alertmanager's syntax; none: any alert.
        action: Name of the action.
        continue_: Whether later routes are tried too.
    """

    matchers: tuple[str, ...] = field(metadata=key("matchers", matcher))
    action: str = field(metadata=key("action", identifier))
    continue_: bool = field(default=False, metadata=key("continue", boolean))


@dataclass(frozen=True, slots=True)
class AlertmanagerReceiver:
    """Where Alertmanager posts to, and what its alerts set off.

    Attributes:
        path: Of the endpoint.
        authorization: What a request must show; None: nothing.
        routes: Tried in this order.
    """

    path: str = field(default="/api/v1/alertmanager", metadata=key("path", http_path))
    authorization: Authorization | None = None
    routes: tuple[Route, ...] = ()

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield that all alerts would be ignored."""
        if not self.routes:
            yield (), "has no routes, so that every alert is ignored; add one"
