"""One GET of a metrics page, with a deadline over all of it and a bound on every part."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import urlsplit

import h11

from exporter.config import HttpConfig
from exporter.frozen import dataclass
from exporter.httpd.incoming import MOST_BLANKS, has_too_many_blanks
from exporter.inference.page import PageError
from exporter.scaleout.client import USER_AGENT, HttpFailedError, authorization
from exporter.scaleout.resolver import Resolver
from exporter.scaleout.route import Route
from exporter.scaleout.tls import tls_context
from exporter.secretfile import SecretError

PIECE_BYTES = 16 << 10
MAX_HEAD_BYTES = 16 << 10
OK, REDIRECT, CLIENT_ERROR = 200, 300, 400
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a page is, and how it is asked for."""

    url: str
    http_config: HttpConfig
    timeout_seconds: float
    resolver: Resolver


def fetch(source: Source, take: Callable[[bytes], None]) -> None:
    """Hand a page on, piece by piece as it comes.

    Raises:
        PageError: There is no page, or `take` wants no more of it.
    """
    deadline = time.monotonic() + source.timeout_seconds
    parts = urlsplit(source.url)
    tls = source.http_config.tls_config
    try:
        context = tls_context(tls) if parts.scheme == "https" else None
        route = Route(source.resolver, deadline, context, tls.server_name)
        secret = authorization(source.http_config)
        connection = route.connect(str(parts.hostname), parts.port or PORTS[parts.scheme])
    except SecretError as error:
        raise PageError("credentials", str(error)) from None
    except HttpFailedError as error:
        raise PageError(error.kind, str(error)) from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {
        "Host": parts.netloc,
        "User-Agent": USER_AGENT,
        "Accept": "text/plain;version=0.0.4",
        "Accept-Encoding": "identity",
        "Connection": "close",
        **secret,
    }
    with connection:
        try:
            parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
            asked = h11.Request(method="GET", target=target, headers=list(headers.items()))
            connection.sendall(parser.send(asked) or b"")
            parser.send(h11.EndOfMessage())
            _receive(parser, connection.recv_into, take)
        except TimeoutError:
            raise PageError("timeout", "no whole answer in time") from None
        except h11.ProtocolError:  # its text quotes the answer
            raise PageError("protocol", "its answer is no HTTP, or ends too early") from None
        except OSError as error:
            raise PageError("protocol", f"the connection broke: {error.strerror}") from None


def _receive(
    parser: h11.Connection,
    receive_into: Callable[[bytearray], int],
    take: Callable[[bytes], None],
) -> None:
    buffer = bytearray(PIECE_BYTES)
    before = b""
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            count = receive_into(buffer)  # past the deadline, a TimeoutError
            data = bytes(memoryview(buffer)[:count])
            if has_too_many_blanks(before + data):
                raise PageError("too_large", f"its answer has {MOST_BLANKS + 1} blanks in a row")
            before = data[-MOST_BLANKS:]
            parser.receive_data(data)
        elif isinstance(event, h11.Response):
            _check(event)
        elif isinstance(event, h11.Data):
            take(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            return


def _check(response: h11.Response) -> None:
    """Refuse what is no plain page; only the config says where to ask, so no redirect does."""
    status = response.status_code
    if REDIRECT <= status < CLIENT_ERROR:
        raise PageError("redirect", f"it answers {status}, a redirect; write the URL of the page")
    if status != OK:
        raise PageError("status", f"it answers {status}")
    headers = {bytes(name).lower(): bytes(value).lower() for name, value in response.headers}
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding != b"identity":
        raise PageError("encoding", "it answers in an encoding that was not asked for")
