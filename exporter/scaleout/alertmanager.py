"""Pushes what rules detect on this node to an Alertmanager, as Prometheus does with its alerts."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus

from exporter.config import AlertmanagerConfig
from exporter.frozen import dataclass
from exporter.scaleout.answers import answered_at, refused_for_now
from exporter.scaleout.client import Answer, HttpClient, HttpFailedError
from exporter.scaleout.clock import Clock, rfc3339
from exporter.scaleout.model import Attempt, Delivery, Outcome
from exporter.scaleout.records import RESOLVED, Episode
from exporter.threads import start

logger = logging.getLogger(__name__)

API = "/api/v2/alerts"
JOB = "gpu-node"  # of the scrape: routes and inhibitions by job see both
LIVES = 4  # re-sends that may fail before an alert expires; Prometheus's figure
MAX_ALERTS = 1000  # active at once
MAX_TEXT = 1024  # characters of an annotation
MAX_REASON = 200  # characters of an answer that are shown


@dataclass(frozen=True, slots=True)
class _Alert:
    """An alert that Alertmanager was told of. Times are seconds since the epoch."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    started_at: float
    ended_at: float | None = None  # None while it fires
    forget_at: float = 0.0  # once it has ended: since boot


class AlertmanagerPush:
    """One Alertmanager. Those of a cluster share no alerts, so each is pushed to for itself.

    `deliver` makes an alert active. A thread, which is there only while something is active, sends
    it again every `resend_delay_seconds`: so it lives on, also in an Alertmanager that was down or
    lost its memory. `update` or a resolved delivery ends it. The end is sent again too, for as long
    as the alert would have lived without: Alertmanager drops one that is in its clock's future.
    """

    def __init__(
        self,
        target: str,
        config: AlertmanagerConfig,
        *,
        external_labels: Mapping[str, str],
        node: str,
        page_url: str,
        clock: Clock,
    ) -> None:
        """Take whom to push to, what names this node, and the absolute URL of its page."""
        self.target = target
        self._config = config
        self._url = config.api_url.rstrip("/") + API
        self._labels = {"job": JOB, **external_labels, "node": node}
        self._page_url = page_url
        self._clock = clock
        self._client = HttpClient(config.http_config, config.timeout_seconds)
        self._changed = threading.Condition()  # guards all that follows
        self._alerts: dict[Episode, _Alert] = {}
        self._firing: Collection[Episode] | None = None  # None before the first update
        self._due = 0.0  # when everything is sent again: since boot
        self._thread: threading.Thread | None = None
        self._closed = False

    def deliver(self, delivery: Delivery) -> Attempt:
        """Push one event; if its rule fires, keep the alert up from then on."""
        key = (str(delivery.event["rule"]), str(delivery.event["scale_group"]))
        alert = self._read(key, delivery)
        resolved = delivery.kind == RESOLVED
        with self._changed:
            known = self._alerts.get(key)
            if known is not None and known.ended_at is None:
                alert = replace(alert, started_at=known.started_at)  # it goes on
            if resolved:
                alert = self._ended(alert)
                if known is not None:
                    self._alerts[key] = alert
            elif not self._fires(key):
                return Attempt(Outcome.EXPIRED, error="the rule has ceased to fire by now")
            elif known is None and len(self._alerts) >= MAX_ALERTS:
                return Attempt(Outcome.SUPPRESSED, error=f"{MAX_ALERTS} alerts are active")
            elif known is not None and known.ended_at is not None:
                del self._alerts[key]  # or its end might be sent again after the new start
        attempt = self._push(self._client, [alert])
        if attempt.outcome is Outcome.DELIVERED and not resolved:
            with self._changed:
                fires = self._fires(key)
                self._alerts[key] = alert if fires else self._ended(alert)
                self._keep_sending()
                if not fires:
                    self._send_now()
        return attempt

    def update(self, firing: Collection[Episode]) -> None:
        """Take what fires now, and end the alerts of all else. Cheap where nothing has changed.

        This ends alerts, rather than events: they may be suppressed, expire, or be lost in a
        restart or reload. Call it each tick, before the tick's events are enqueued.
        """
        with self._changed:
            if firing == self._firing:
                return
            self._firing = firing
            over = [
                key
                for key, alert in self._alerts.items()
                if alert.ended_at is None and not self._fires(key)
            ]
            if over:
                self._alerts.update({key: self._ended(self._alerts[key]) for key in over})
                self._send_now()

    def close(self) -> None:
        """End the thread. What is active lives on in Alertmanager for up to LIVES re-sends."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _read(self, key: Episode, delivery: Delivery) -> _Alert:
        event = delivery.event
        labels = {**self._labels, "alertname": key[0], "scale_group": key[1]}
        # GPUs are no labels: another one of the group may fire on when the first has calmed down.
        annotations = {
            "summary": f"{self._labels['node']}: {event['reason']}",
            "gpus": ", ".join(f"{one['gpu']} ({one['uuid']})" for one in event["series"]),
            "value": ", ".join(_number(one["value"]) for one in event["series"]),
        }
        return _Alert(
            labels=labels,  # empty ones are none for Alertmanager
            annotations={name: text[:MAX_TEXT] for name, text in annotations.items() if text},
            started_at=delivery.created,
        )

    def _fires(self, key: Episode) -> bool:
        return self._firing is None or key in self._firing

    def _ended(self, alert: _Alert) -> _Alert:
        lifetime_seconds = LIVES * self._config.resend_delay_seconds
        return replace(
            alert,
            ended_at=max(self._clock.wall(), alert.started_at),
            forget_at=self._clock.since_boot() + lifetime_seconds,
        )

    def _keep_sending(self) -> None:
        if self._thread is None and not self._closed:
            self._due = self._clock.since_boot() + self._config.resend_delay_seconds
            self._thread = start(
                threading.Thread(target=self._send_again, name=self.target, daemon=True)
            )

    def _send_now(self) -> None:
        self._due = self._clock.since_boot()
        self._changed.notify()

    def _send_again(self) -> None:
        client = HttpClient(self._config.http_config, self._config.timeout_seconds)
        problem = ""
        while alerts := self._await_due():
            attempt = self._push(client, alerts)
            if attempt.error and not problem:
                logger.warning("%s: alerts cannot be sent again: %s", self.target, attempt.error)
            elif problem and not attempt.error:
                logger.info("%s: alerts are sent again", self.target)
            problem = attempt.error

    def _await_due(self) -> list[_Alert]:
        """Return all alerts when it is time to send them; none when there is nothing more to do."""
        with self._changed:
            while not self._closed and (seconds := self._due - self._clock.since_boot()) > 0:
                self._changed.wait(seconds)
            now = self._clock.since_boot()
            self._due = now + self._config.resend_delay_seconds
            self._alerts = {
                key: alert
                for key, alert in self._alerts.items()
                if alert.ended_at is None or now < alert.forget_at
            }
            if self._closed or not self._alerts:
                self._thread = None
                return []
            return list(self._alerts.values())

    def _push(self, client: HttpClient, alerts: Sequence[_Alert]) -> Attempt:
        expires_at = self._clock.wall() + LIVES * self._config.resend_delay_seconds
        body = [
            {
                "labels": alert.labels,
                "annotations": alert.annotations,
                "startsAt": rfc3339(alert.started_at),
                "endsAt": rfc3339(expires_at if alert.ended_at is None else alert.ended_at),
                "generatorURL": self._page_url,
            }
            for alert in alerts
        ]
        headers = {"Content-Type": "application/json"}
        try:
            answer = client.request(
                "POST", self._url, body=json.dumps(body).encode(), headers=headers
            )
        except HttpFailedError as error:
            return Attempt(Outcome.RETRY, error=f"{error.kind}: {error}")
        return self._judge(answer, expires_at)

    def _judge(self, answer: Answer, expires_at: float) -> Attempt:
        status = answer.status
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            if (answered_at(answer) or 0.0) < expires_at:
                return Attempt(Outcome.DELIVERED, status)
            error = "this node's clock is so far behind Alertmanager's that alerts come too late"
            return Attempt(Outcome.RETRY, status, f"{error}; set the clock")
        error = f"it answered {status}{_reason(answer)}"
        again = refused_for_now(answer, error, self._config.retry, self._clock)
        return again or Attempt(Outcome.DEAD, status, error)


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"


def _reason(answer: Answer) -> str:
    """Return what Alertmanager says is wrong, if it is that which speaks.

    No other text is shown: a proxy's may repeat the request, and so a secret.
    """
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        return ""
    text = said.get("message") if isinstance(said, dict) else said
    if not isinstance(text, str):
        return ""
    return ": " + "".join(filter(str.isprintable, text))[:MAX_REASON]
