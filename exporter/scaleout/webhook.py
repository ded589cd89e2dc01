"""The generic webhook: one POST of an event, signed, to whatever scales."""

from __future__ import annotations

import logging
from http import HTTPStatus
from urllib.parse import urlsplit

from exporter.config import WebhookConfig
from exporter.scaleout import signature
from exporter.scaleout.answers import refused_for_now
from exporter.scaleout.client import Answer, HttpClient, HttpFailedError
from exporter.scaleout.clock import Clock
from exporter.scaleout.formats import render
from exporter.scaleout.model import Attempt, Delivery, Outcome
from exporter.secretfile import SecretError, read_secret

log = logging.getLogger(__name__)


class WebhookReceiver:
    """One URL. For one thread at a time."""

    def __init__(self, target: str, config: WebhookConfig, clock: Clock) -> None:
        self.target = target
        self._config = config
        self._clock = clock
        self._client = HttpClient(config.http_config, config.timeout_seconds)
        self._is_gone = False

    def deliver(self, delivery: Delivery) -> Attempt:
        """Send the event once; each attempt has the same id and body, and a signature of now."""
        if self._is_gone:
            error = "it has said 410 Gone; it is asked again once its config changes, or a restart"
            return Attempt(Outcome.DEAD, error=error)
        try:
            url = self._url()
            media_type, body = render(self._config, delivery)
            headers = {"Content-Type": media_type, **self._headers(delivery.event_id, body)}
        except SecretError as error:
            return Attempt(Outcome.RETRY, error=f"credentials: {error}")
        if delivery.event.get("dry_run"):
            log.info("%s: dry run of POST to %s: %s", self.target, _host(url), body.decode())
            return Attempt(Outcome.DRY_RUN)
        try:
            answer = self._client.request("POST", url, body=body, headers=headers)
        except HttpFailedError as error:
            return Attempt(Outcome.RETRY, error=f"{error.kind}: {error}")
        self._is_gone = answer.status == HTTPStatus.GONE
        return self._judge(answer)

    def _url(self) -> str:
        if self._config.url is not None:
            return self._config.url
        if self._config.url_file is None:
            raise SecretError("there is neither url nor url_file")
        return read_secret(self._config.url_file)

    def _headers(self, event_id: str, body: bytes) -> dict[str, str]:
        timestamp = int(self._clock.wall())
        headers = {
            signature.ID: event_id,
            signature.TIMESTAMP: str(timestamp),
            "Idempotency-Key": event_id,
        }
        if self._config.signing_secret_file is not None:
            secrets = signature.read_secrets(self._config.signing_secret_file)
            headers[signature.SIGNATURE] = signature.sign(secrets, event_id, timestamp, body)
        return headers

    def _judge(self, answer: Answer) -> Attempt:
        status = answer.status
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return Attempt(Outcome.DELIVERED, status)
        # Not the body: who answers may repeat what we sent, and so our secrets.
        error = f"it answered {status}"
        again = refused_for_now(answer, error, self._config.retry, self._clock)
        if again is not None:
            return again
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            error += "; redirects are not followed, the config needs the final URL"
        return Attempt(Outcome.DEAD, status, error)


def _host(url: str) -> str:
    """Return who is meant, without a path: that may be a secret."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2]
