"""The receiver of Alertmanager's webhooks: who may post, and which action an alert asks for.

Alertmanager tries again after a 5xx only, and forgets the notification after anything else: what
may be better in a moment is a 503 here, never a 429.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from http import HTTPStatus

from exporter import httpd
from exporter.config import Action, AlertmanagerReceiver
from exporter.frozen import dataclass
from exporter.httpd import Request, Response
from exporter.httpd.message import problem
from exporter.matchers import Matcher, parse_matchers
from exporter.scaleout.clock import Clock
from exporter.scaleout.guard import Guard, TokenBucket
from exporter.scaleout.message import group_of
from exporter.scaleout.model import EventKind, RuleEvent
from exporter.scaleout.outbox import OutboxUnavailableError
from exporter.scaleout.payload import MAX_BODY_BYTES, Alert, Notification, PayloadError, parse

logger = logging.getLogger(__name__)

JSON = "application/json"
MAX_WISHES = 100  # different ones in one webhook: each is a commit to the disk
REQUESTS_PER_MINUTE = 120
MOST_CLIENTS = 1024  # whose requests are counted; the one heard of longest ago is forgotten


Enqueue = Callable[[str, RuleEvent, Mapping[str, str], str], str]
"""Commits what an event asks of an action, and returns in a word what became of it.

The arguments are those of `Policy.enqueue`: the action's name, the event, the labels that groups
are formed by, and who says so. Labels and texts came over the network, each up to 16 KiB long.
Raises OutboxUnavailableError where nothing can be committed.
"""


@dataclass(frozen=True, slots=True)
class _Route:
    matchers: tuple[Matcher, ...]
    action: str
    goes_on: bool


@dataclass(frozen=True, slots=True)
class _Wish:
    """What an alert asks of an action. Those with the same `key` ask for the same."""

    alert: Alert
    action: str
    event: RuleEvent
    key: tuple[str, ...]


class Intake:
    """Answers `POST /api/v1/alertmanager`. Runs in the event loop's thread alone."""

    def __init__(
        self,
        config: AlertmanagerReceiver,
        actions: Mapping[str, Action],
        enqueue: Enqueue,
        clock: Clock,
    ) -> None:
        """Take the config, all actions by name, and what commits an event before the answer.

        Raises:
            ValueError: One line: a matcher is wrong.
        """
        self._path = config.path
        self._routes = tuple(
            _Route(
                tuple(m for text in route.matchers for m in parse_matchers(text)),
                route.action,
                route.continue_,
            )
            for route in config.routes
        )
        self._guard = None if config.authorization is None else Guard(config.authorization)
        self._actions = actions
        self._bucket = TokenBucket(REQUESTS_PER_MINUTE, MOST_CLIENTS, clock)
        self._enqueue = enqueue
        self._clock = clock

    def route(self) -> httpd.Route:
        """Return the path with its bounds, for the server."""
        return httpd.Route(self._path, ("POST",), self.handle, MAX_BODY_BYTES)

    def handle(self, request: Request) -> Response:
        """Answer one webhook: 200 once everything it asks for is committed."""
        refusal = self._refusal(request)
        if refusal is not None:
            logger.info("refused a webhook of %s: %s", request.peer, refusal.body.decode().strip())
            return refusal
        try:
            rows = self._answer(parse(request.body), f"alertmanager {request.peer}")
        except PayloadError as error:
            logger.info("refused a webhook of %s: %s", request.peer, error)
            return problem(error.status, str(error))
        except OutboxUnavailableError as error:
            logger.info("a webhook of %s has to come again: %s", request.peer, error)
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "nothing can be queued now, try again")
        return Response(HTTPStatus.OK, json.dumps({"alerts": rows}).encode() + b"\n", JSON)

    def _refusal(self, request: Request) -> Response | None:
        """Return why a request is not read at all, or None."""
        headers = request.headers
        if not self._bucket.take(request.peer):
            detail = f"more than {REQUESTS_PER_MINUTE} requests a minute, try again later"
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail)
        if self._guard is not None:
            refusal = self._guard.refusal(headers.get("authorization", ""))
            if refusal is not None:
                return refusal
        if "content-length" not in headers:
            return problem(HTTPStatus.LENGTH_REQUIRED, "send Content-Length")
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != JSON:
            return problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {JSON}")
        return None

    def _answer(self, notification: Notification, source: str) -> list[dict[str, str]]:
        """Commit what a notification asks for, and say of every alert what became of it."""
        wishes = [wish for alert in notification.alerts for wish in self._wishes(alert)]
        if len({wish.key for wish in wishes if wish.action}) > MAX_WISHES:
            text = f"asks for more than {MAX_WISHES} different things; group alerts by scale_group"
            raise PayloadError(text, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        firing = {wish.key[1:] for wish in wishes if wish.alert.firing}
        seen: set[tuple[str, ...]] = set()
        rows = []
        for wish in wishes:
            decision = _objection(wish, notification, firing)
            if not decision and wish.key in seen:
                decision = "duplicate: an alert before it asks for the same"
            if not decision:
                seen.add(wish.key)
                says = f"{source} {wish.alert.fingerprint}"
                decision = self._enqueue(wish.action, wish.event, wish.alert.labels, says)
            row = {
                "fingerprint": wish.alert.fingerprint,
                "status": wish.event.kind.value,
                "action": wish.action,
                "decision": decision,
            }
            rows.append({name: text for name, text in row.items() if text})
        return rows

    def _wishes(self, alert: Alert) -> Iterator[_Wish]:
        """Yield what an alert asks for; if that is nothing, one wish without an action."""
        event = RuleEvent(
            rule=alert.labels.get("alertname", ""),
            kind=EventKind.FIRING if alert.firing else EventKind.RESOLVED,
            reason="firing in Alertmanager" if alert.firing else "cleared",
            scale_group=alert.labels.get("scale_group", ""),
            started_at=alert.starts_at,
            fired_at=self._clock.wall(),
            series=(),
            actions=(),
        )
        actions = self._routed(alert.labels)
        if not actions:
            yield _Wish(alert, "", event, ())
        for action in actions:
            group = group_of(self._actions[action], event, alert.labels, "")
            key = (event.kind.value, action, event.rule, event.scale_group, *group.values())
            yield _Wish(alert, action, replace(event, actions=(action,)), key)

    def _routed(self, labels: Mapping[str, str]) -> list[str]:
        """Return what the routes ask for: of the first that matches, and on while they say so."""
        actions: list[str] = []
        for route in self._routes:
            if all(matcher.matches(labels) for matcher in route.matchers):
                if route.action not in actions:
                    actions.append(route.action)
                if not route.goes_on:
                    break
        return actions


def _objection(wish: _Wish, notification: Notification, firing: Collection[tuple[str, ...]]) -> str:
    """Return why a wish is not to be passed on, or ""."""
    if not wish.action:
        return "ignored: no route matches"
    if wish.alert.firing:
        return ""
    if notification.truncated:
        # Alertmanager may tell of a group's end while alerts fire that it has left off.
        return "ignored: the list of alerts is truncated"
    if wish.key[1:] in firing:
        return "ignored: another alert of its group fires"
    return ""
