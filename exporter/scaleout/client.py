"""HTTP requests to receivers: one connection each, one deadline over all of it, no redirects.

Neither the environment nor ~/.netrc has a say, and no secret gets into an error's text.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from exporter import __version__
from exporter.config import HttpConfig, urls
from exporter.frozen import dataclass
from exporter.scaleout.resolver import Resolver
from exporter.secretfile import SecretError, read_secret

FailureKind = Literal["timeout", "connect", "tls", "dns", "protocol", "credentials"]

MAX_BODY_BYTES = 64 * 1024  # of an answer; what comes after is not read
USER_AGENT = f"gpu-node-exporter/{__version__}"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})

_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: names of headers in lower case, at most MAX_BODY_BYTES of the raw body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpFailedError(Exception):
    """There was no whole answer. The text is one line for people, without any secret."""

    def __init__(self, kind: FailureKind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class HttpClient:
    """Makes requests as one `http_config` says. For one thread at a time.

    Files of credentials and certificates are read for each request. `requests` is imported by the
    first one: it takes 12 MiB that a daemon which never sends should not have.
    """

    def __init__(self, config: HttpConfig, timeout_seconds: float) -> None:
        self._config = config
        self._timeout_seconds = timeout_seconds
        self._resolver = Resolver()

    def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Answer:
        """Make one request; every status is an answer, also 3xx: redirects are not followed.

        Raises:
            HttpFailedError: No whole answer came within the timeout.
        """
        from exporter.scaleout import route, tls, transport  # noqa: PLC0415  import requests, see above

        deadline = time.monotonic() + self._timeout_seconds
        _check(url, allow_http=self._config.allow_http)
        try:
            own = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Connection": "close"}
            context = None
            if url[:6].lower() == "https:":
                context = tls.tls_context(self._config.tls_config)
            way = route.Route(
                self._resolver, deadline, context, self._config.tls_config.server_name
            )
            all_headers = {**own, **headers, **authorization(self._config)}
        except SecretError as error:
            raise HttpFailedError("credentials", str(error)) from error
        return transport.exchange(method, url, body, all_headers, way)


def authorization(config: HttpConfig) -> dict[str, str]:
    """Return the header that says who we are, if one does; its secret is read anew.

    Raises:
        SecretError: The file is missing or not what it should be.
    """
    token, basic = config.authorization, config.basic_auth
    if token is not None:
        secret = read_secret(token.credentials_file)
        if not _VISIBLE_ASCII.fullmatch(secret):
            raise SecretError(
                f"{token.credentials_file} has characters that no HTTP header may have; "
                "it must be one word in ASCII"
            )
        return {"Authorization": f"{token.type} {secret}"}
    if basic is not None:
        pair = f"{basic.username}:{read_secret(basic.password_file)}"
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
    return {}


def _check(target: str, *, allow_http: bool) -> None:
    """Refuse what the config would refuse: a URL may also come from a file."""
    try:
        urls.url(target)
    except ValueError as error:
        raise HttpFailedError("protocol", f"the URL {error}") from None
    if urls.is_exposed(target) and not allow_http:
        raise HttpFailedError("protocol", "the URL is http; use https, or set allow_http")
