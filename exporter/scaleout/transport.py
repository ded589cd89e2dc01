"""One HTTP exchange on `requests`, with a deadline that also holds against trickling servers.

The timeouts of `requests` count anew with every byte, and its Session obeys REQUESTS_CA_BUNDLE,
proxies and ~/.netrc, and reads the whole body of a redirect even when told not to follow it.
So there is no session here: an adapter alone, on sockets that know when to end.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping
from http.client import RemoteDisconnected

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, IncompleteRead

from exporter.scaleout.client import MAX_BODY_BYTES, Answer, FailureKind, HttpFailedError
from exporter.scaleout.route import Route
from exporter.scaleout.tls import tls_failure

FAILURES: tuple[tuple[type[BaseException], FailureKind, str], ...] = (
    (TimeoutError, "timeout", "no whole answer in time"),
    (RemoteDisconnected, "protocol", "the connection was closed before an answer"),
    (ConnectionError, "protocol", "the connection was reset"),
    (IncompleteRead, "protocol", "the answer ended too early"),
)


class _Adapter(HTTPAdapter):
    """Makes connections by its route, which has taken care of certificates."""

    def __init__(self, route: Route) -> None:
        super().__init__(max_retries=0)
        self.poolmanager.pool_classes_by_scheme = _pool_classes(route)

    def cert_verify(self, conn: object, url: str, verify: object, cert: object) -> None:
        """Do nothing: the route's TLS context says what is trusted."""


def _pool_classes(route: Route) -> dict[str, type[HTTPConnectionPool]]:
    class Plain(HTTPConnection):
        def connect(self) -> None:
            self.sock = route.connect(self.host, self.port)

    class Secured(HTTPSConnection):
        def connect(self) -> None:
            self.sock = route.connect(self.host, self.port)
            self.is_verified = True  # or not, by config; urllib3 would warn at every request

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecuredPool(HTTPSConnectionPool):
        ConnectionCls = Secured

    return {"http": PlainPool, "https": SecuredPool}


def exchange(
    method: str, url: str, body: bytes, headers: Mapping[str, str], route: Route
) -> Answer:
    """Send one request and return its answer, the body neither decoded nor read past its bound.

    Raises:
        HttpFailedError: No whole answer came in time.
    """
    adapter = _Adapter(route)
    try:
        request = requests.Request(method, url, headers=dict(headers), data=body or None).prepare()
        response = adapter.send(request, stream=True, timeout=None)  # the sockets know when to end
        try:
            content = _read(response)
        finally:
            response.close()
    except (requests.RequestException, HTTPError, OSError, ValueError) as error:
        raise _failure(error, route) from None  # the cause may hold the URL, and that a secret
    finally:
        adapter.close()
    answered = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, answered, content)


def _read(response: requests.Response) -> bytes:
    """Return the body, as it is and not past its bound."""
    content = b""
    while len(content) < MAX_BODY_BYTES:
        # A body that is cut short shows only by the read after it.
        piece = response.raw.read(MAX_BODY_BYTES - len(content), decode_content=False)
        if not piece:
            break
        content += piece
    return content


def _failure(error: BaseException, route: Route) -> HttpFailedError:
    """Say what went wrong, in words of ours: those of the libraries contain the URL."""
    if time.monotonic() >= route.deadline:
        return HttpFailedError("timeout", "no whole answer in time")
    causes = list(_chain(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return tls_failure(cause)
    for cause_type, kind, text in FAILURES:
        if any(isinstance(cause, cause_type) for cause in causes):
            return HttpFailedError(kind, text)
    return HttpFailedError("protocol", f"no exchange in HTTP: {type(causes[-1]).__name__}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that it came from; `requests` keeps some as arguments."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = next((a for a in error.args if isinstance(a, BaseException)), None)
        error = error.__cause__ or inner or error.__context__
