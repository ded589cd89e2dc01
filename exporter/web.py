"""What the daemon answers over HTTP: the page, its state, and a way in for people."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from ipaddress import ip_address
from types import MappingProxyType

from prometheus_client.exposition import choose_encoder

from exporter.exposition import Page, Rendered
from exporter.httpd import Request, Response, Route
from exporter.snapshot import Snapshot
from exporter.statuspage import StatusPage, unready
from exporter.statuspage.problems import STARTING

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
HTML = "text/html; charset=utf-8"
JSON = "application/json"
VARY = ("Vary", "Accept, Accept-Encoding")
VIEW_SECONDS = 0.5  # for so long a page is shown again; it tells how old its readings are
FOR_WHOM = "only for this machine itself, or with a password or client certificate"


class Web:
    """The routes. Runs in the event loop's thread alone."""

    def __init__(
        self,
        latest: Callable[[], Snapshot | None],
        reload: Callable[[], str | None],
        telemetry_path: str,
        status: StatusPage,
        clock: Callable[[], float] = time.monotonic,
        more: Mapping[str, Rendered] = MappingProxyType({}),
    ) -> None:
        """Take where the latest snapshot is, and what loads the config: it returns what failed.

        `more` are further pages by path, in the text format alone.
        """
        self._latest = latest
        self._reload = reload
        self._telemetry_path = telemetry_path
        self._status = status
        self._clock = clock
        self._pages = {False: Page(openmetrics=False), True: Page(openmetrics=True)}
        self._more = more
        self._base: Snapshot | None = None
        self._view: Snapshot | None = None

    def routes(self) -> list[Route]:
        """Return all paths there are."""
        return [
            Route(self._telemetry_path, ("GET",), self.metrics),
            *(Route(path, ("GET",), self._in_text(page)) for path, page in self._more.items()),
            Route("/", ("GET",), self.page),
            Route("/api/v1/status", ("GET",), self.status),
            Route("/-/healthy", ("GET",), lambda _: Response(HTTPStatus.OK, b"healthy\n")),
            Route("/-/ready", ("GET",), self.ready),
            Route("/-/reload", ("POST",), self.reload),
        ]

    def metrics(self, request: Request) -> Response:
        """Answer with the page, in the format and encoding that the client prefers."""
        _, content_type = choose_encoder(request.headers.get("accept", ""))
        openmetrics = content_type.startswith("application/openmetrics-text")
        content_type = OPENMETRICS if openmetrics else TEXT
        return self._scraped(request, self._pages[openmetrics], content_type)

    def _in_text(self, page: Rendered) -> Callable[[Request], Response]:
        return lambda request: self._scraped(request, page, TEXT)

    def _scraped(self, request: Request, page: Rendered, content_type: str) -> Response:
        snapshot = self._snapshot()
        if snapshot is None:
            return Response(HTTPStatus.SERVICE_UNAVAILABLE, f"{STARTING}\n".encode())
        if accepts_gzip(request.headers):
            headers = (VARY, ("Content-Encoding", "gzip"))
            return Response(HTTPStatus.OK, page.zipped(snapshot), content_type, headers)
        return Response(HTTPStatus.OK, page.plain(snapshot), content_type, (VARY,))

    def ready(self, _request: Request) -> Response:
        """Answer 200 while readings are there and fresh, else 503 and why not."""
        why = unready(self._snapshot())
        if why is None:
            return Response(HTTPStatus.OK, b"ready\n")
        return Response(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {why}\n".encode())

    def reload(self, request: Request) -> Response:
        """Load the config again; the old one goes on if the new one is bad."""
        if not may_act(request):
            return Response(HTTPStatus.FORBIDDEN, f"reload is {FOR_WHOM}\n".encode())
        problem = self._reload()
        if problem is None:
            return Response(HTTPStatus.OK, b"config reloaded\n")
        text = f"config not reloaded, the old one goes on:\n{problem}\n"
        return Response(HTTPStatus.INTERNAL_SERVER_ERROR, text.encode())

    def page(self, request: Request) -> Response:
        """Answer with the page for people."""
        built = self._status.of(self._snapshot())
        headers = (
            ("Content-Security-Policy", built.policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
            ("Vary", "Accept-Encoding"),
        )
        if accepts_gzip(request.headers):
            zipped = (("Content-Encoding", "gzip"),)
            return Response(HTTPStatus.OK, built.zipped_page, HTML, headers + zipped)
        return Response(HTTPStatus.OK, built.page, HTML, headers)

    def status(self, _request: Request) -> Response:
        """Answer with what that page says, as JSON."""
        body = self._status.of(self._snapshot()).json
        headers = (("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"))
        return Response(HTTPStatus.OK, body, JSON, headers)

    def _snapshot(self) -> Snapshot | None:
        """Return the latest snapshot as it is seen now, or was a moment ago."""
        base, view, now = self._latest(), self._view, self._clock()
        if base is None:
            return None
        is_stale = now - base.taken_at > base.stale_after_seconds
        if base is not self._base or view is None or is_stale or now - view.now > VIEW_SECONDS:
            self._base, self._view = base, base.at(now)
        return self._view


def accepts_gzip(headers: Mapping[str, str]) -> bool:
    """Return whether Accept-Encoding names gzip (RFC 9110, section 12.5.3), and not with q=0."""
    for part in headers.get("accept-encoding", "").split(","):
        coding, _, parameters = part.partition(";")
        if coding.strip().lower() in ("gzip", "*"):
            return parameters.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def may_act(request: Request) -> bool:
    """Return whether a client may change something: it is known by name, or on this machine.

    A browser sends along what it knows of us, whichever page makes it ask: pages of others may not.
    """
    is_ours = request.headers.get("sec-fetch-site", "none") in ("none", "same-origin")
    return is_ours and (bool(request.user) or is_local(request.peer))


def is_local(peer: str) -> bool:
    """Return whether a client's address is a loopback one."""
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
