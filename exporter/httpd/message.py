"""What passes between the server and its handlers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network

from exporter.frozen import dataclass

ABSOLUTE_FORM = re.compile("^https?://[^/?]*", re.IGNORECASE)  # what a proxy is asked with
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Request:
    """A complete request."""

    method: str
    path: str  # as sent: not percent-decoded
    query: str  # without the "?"; "" if there is none
    headers: Mapping[str, str]  # lower-case names; a repeated one is joined with ", "
    body: bytes
    peer: str  # IP address of the client, "" where it has none
    user: str = ""  # whom the gate has found the client to be, "" for anybody


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. Date, Content-Length and Connection are the server's."""

    status: int  # a final one that may have a body: not 1xx, 204 or 304
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Response]
"""Quick, never blocks: it runs in the event loop."""


@dataclass(frozen=True, slots=True)
class Route:
    """What answers under a path. GET allows HEAD too; the handler sees which it was."""

    path: str
    methods: tuple[str, ...]
    handler: Handler
    max_body_bytes: int = 0
    has_own_guard: Callable[[], bool] = lambda: False  # whether it judges Authorization itself


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client, and all of them together, may take.

    There is room for a new connection however many there are, so `connections` bounds memory: 4 KiB
    each at rest, 112 KiB (or twice the longest body of a request) for a client at its worst.
    """

    connections: int = 256
    header_bytes: int = 16 * 1024  # request line and headers
    # From the first byte of a request to the last of its answer. Who is slow shall be gone after
    # 10 s: the rest of these is for closing 256 connections at once on a busy machine.
    request_seconds: float = 9.8
    idle_seconds: float = 75.0  # between two requests: longer than the usual scrape interval


def problem(status: HTTPStatus, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return the answer that says in plain text what is wrong."""
    return Response(status, f"{status.value} {status.phrase}: {detail}\n".encode(), headers=headers)


def find(routes: Mapping[str, Route], method: str, path: str) -> Route | Response:
    """Return what answers a request, or the answer that says why nothing does."""
    route = routes.get(path)
    if route is None:
        return problem(HTTPStatus.NOT_FOUND, f"no such path, there is {' '.join(routes)}")
    methods = (*route.methods, "HEAD") if "GET" in route.methods else route.methods
    if method in methods:
        return route
    allow = ", ".join(methods)
    return problem(HTTPStatus.METHOD_NOT_ALLOWED, f"use {allow}", (("Allow", allow),))


def split_target(target: str) -> tuple[str, str]:
    """Split a request target (RFC 9112, section 3.2) into path and query."""
    if not target.startswith("/"):
        target = ABSOLUTE_FORM.sub("", target)
    path, _, query = target.partition("?")
    return path or "/", query


def head(
    response: Response, *, keep_alive: bool, defaults: tuple[tuple[str, str], ...] = ()
) -> bytes:
    """Return status line and headers of an answer; `defaults` are those it may set itself.

    Raises:
        ValueError: A header cannot be sent as it is.
    """
    lines = [
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
        f"Date: {http_date(int(time.time()))}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        *(f"{name}: {value}" for name, value in response.headers),
    ]
    if defaults:
        own = {name.lower() for name, _ in response.headers}
        lines += [f"{name}: {value}" for name, value in defaults if name.lower() not in own]
    if not keep_alive:
        lines.append("Connection: close")
    if not all(map(str.isprintable, lines)):
        raise ValueError(f"line break or control character in the headers {response.headers}")
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def peer_of(address: object) -> str:
    """Return the IP address in a socket's, "" where it has none: an IPv4 one as such."""
    return str(address[0]).removeprefix("::ffff:") if isinstance(address, tuple) else ""


def client_of(peer: str) -> str:
    """Return who has an IP address: an IPv6 host has a whole network of 64 bits."""
    try:
        address = ip_address(peer)
    except ValueError:
        return peer
    if isinstance(address, IPv6Address):
        return str(ip_network((int(address) >> 64 << 64, 64)))
    return peer


@lru_cache(maxsize=1)
def http_date(unix_seconds: int) -> str:
    """Return the text of a Date header (RFC 9110, section 5.6.7), in any locale."""
    t = time.gmtime(unix_seconds)
    day = f"{DAYS[t.tm_wday]}, {t.tm_mday:02} {MONTHS[t.tm_mon - 1]} {t.tm_year}"
    return f"{day} {t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT"
