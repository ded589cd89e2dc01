"""Who may post to us, and how often."""

from __future__ import annotations

import hmac
import logging
from collections import OrderedDict
from hashlib import sha256
from http import HTTPStatus

from exporter.config import Authorization
from exporter.httpd import Response
from exporter.httpd.message import problem
from exporter.scaleout.clock import Clock
from exporter.secretfile import SecretError, read_secret

logger = logging.getLogger(__name__)


class Guard:
    """Knows who may post. The secret's file is read for each request, so a new one counts."""

    def __init__(self, authorization: Authorization) -> None:
        self._scheme = authorization.type
        self._file = authorization.credentials_file
        self._problem = ""

    def refusal(self, header: str) -> Response | None:
        """Return the answer to who may not, or None for who may."""
        try:
            secret = read_secret(self._file).encode()
        except SecretError as error:
            if self._problem != str(error):
                logger.error("nobody may post: %s", error)
            self._problem = str(error)
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "no secret to compare with, see the log")
        self._problem = ""
        scheme, _, credentials = header.partition(" ")
        # compare_digest shows how long its arguments are, and takes no text beyond ASCII.
        given = sha256(credentials.strip().encode("latin-1", "replace")).digest()
        is_right = hmac.compare_digest(given, sha256(secret).digest())
        if is_right and scheme.lower() == self._scheme.lower():
            return None
        challenge = (("WWW-Authenticate", self._scheme),)
        return problem(HTTPStatus.UNAUTHORIZED, "send the right Authorization", challenge)


class TokenBucket:
    """Counts the requests of each client: a minute's worth at once, then as time goes by."""

    def __init__(self, per_minute: int, clients: int, clock: Clock) -> None:
        self._per_minute = per_minute
        self._clients = clients
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when

    def take(self, client: str) -> bool:
        """Return whether a client may make a request now."""
        now = self._clock.since_boot()
        tokens, then = self._buckets.pop(client, (float(self._per_minute), now))
        tokens = min(self._per_minute, tokens + (now - then) * self._per_minute / 60)
        may = tokens >= 1
        self._buckets[client] = (tokens - may, now)
        if len(self._buckets) > self._clients:
            self._buckets.popitem(last=False)
        return may
