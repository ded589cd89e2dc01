"""From bytes to a request that some route will answer, or to the answer that refuses it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

import h11

from exporter.httpd.message import Limits, Response, Route, find, problem, split_target

HEAD_END = re.compile(rb"\n\r?\n")
MOST_BLANKS = 127  # in a row: h11's time grows with their square, and 16 KiB take a second
PIECE_BYTES = 512  # of a body, parsed at a time: bounds the line before a chunk, and trailers
MOST_CHUNKS = 4096  # of a body: each takes several microseconds, however small it is


class RequestError(Exception):
    """A request that is answered before it is complete; the connection ends with that."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.body)
        self.response = response


class Incoming:
    """A request that is being read.

    The parser lives for one request: it is cheap to make, and to send through it as well would
    double the cost of h11, for a head that has only one form. It is shown a whole head that can be
    read in one way only, then the body in pieces: where h11 is lenient or slow, we are not.
    """

    __slots__ = (
        "_chunks", "_limits", "_parser", "_routes", "_target", "_unread",
        "body", "headers", "method", "path", "query", "user",
    )  # fmt: skip

    def __init__(self, routes: Mapping[str, Route], limits: Limits) -> None:
        self._routes = routes
        self._limits = limits
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=PIECE_BYTES)
        self._unread = bytearray()
        self._chunks = 0
        self.method = ""
        self.path = ""
        self.query = ""
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.user: str | None = None  # None before the gate has let it in
        self._target: Route | Response | None = None  # None before the headers' end

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow the complete one.

        None follows chunks: h11 lets more pass in extensions and trailers than RFC 9112 does, and
        who stands between may see another end.
        """
        return self._parser.their_state is h11.DONE and "transfer-encoding" not in self.headers

    @property
    def leftover(self) -> bytes:
        """What has arrived after the complete request."""
        return self._parser.trailing_data[0] + self._unread

    def feed(self, data: bytes) -> None:
        """Add what has arrived."""
        self._unread += data

    @property
    def target(self) -> Route | Response | None:
        """What answers the request; None before the end of its headers."""
        return self._target

    def read_head(self) -> bool:
        """Parse up to the end of the headers, and return whether it is there.

        Raises:
            RequestError: It is refused.
        """
        if self._target is None and (head := self._take_head()):
            self._parser.receive_data(head)
            event = self._next_event()
            if isinstance(event, h11.Request):
                self._open(event)
        return self._target is not None

    def admit(self, verdict: str | Response) -> None:
        """Take what the gate says: who it is, or the answer that takes the place of any other.

        Raises:
            RequestError: It is refused before its body.
        """
        if isinstance(verdict, Response):
            self._target, self.user = verdict, ""
        else:
            self.user = verdict
        self._refuse_body()

    def read_body(self) -> Route | Response | None:
        """Parse what has arrived and return what answers the request, None if it is incomplete.

        Raises:
            RequestError: It is refused.
        """
        while not isinstance(event := self._next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                self._collect(event)
            elif self._unread:
                self._parser.receive_data(bytes(self._unread[:PIECE_BYTES]))
                del self._unread[:PIECE_BYTES]
            else:
                return None
        return self._target

    def _take_head(self) -> bytes:
        """Return request line and headers with their end, b"" before that is there.

        Raises:
            RequestError: They are too long, or others may read them otherwise.
        """
        end = HEAD_END.search(self._unread)
        head = bytes(self._unread[: end.end()] if end else self._unread)
        if len(head) > (limit := self._limits.header_bytes):
            raise self._head_error(target_only=b"\n" not in head[:limit])
        if head[:1] < b"!":  # no method begins so: TLS, for one
            raise _head_problem("illegal request line")
        if end is None:
            return b""
        if head.count(b"\n") != head.count(b"\r\n") or b"\n " in head or b"\n\t" in head:
            raise _head_problem("end each line with CR LF, and fold none")
        if has_too_many_blanks(head):
            raise _head_problem(f"{MOST_BLANKS + 1} blanks in a row")
        del self._unread[: len(head)]
        return head

    def _next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        try:
            return self._parser.next_event()
        except h11.RemoteProtocolError as error:
            status = HTTPStatus(error.error_status_hint)
            raise RequestError(problem(status, str(error)[:200])) from None

    def interim(self) -> bytes:
        """Return "100 Continue" if the client waits for it before it sends the body, else b""."""
        if not self._parser.they_are_waiting_for_100_continue:
            return b""
        event = h11.InformationalResponse(status_code=100, reason="Continue", headers=[])
        return self._parser.send(event)

    def _open(self, event: h11.Request) -> None:
        self.method = event.method.decode()
        headers = self.headers
        for raw_name, raw_value in event.headers:
            name, value = raw_name.decode(), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if not event.http_version.startswith(b"1."):
            raise RequestError(problem(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "use HTTP/1.1"))
        chunked = "transfer-encoding" in headers
        if chunked and ("content-length" in headers or event.http_version == b"1.0"):
            detail = "Transfer-Encoding goes with HTTP/1.1 and without Content-Length"
            raise RequestError(problem(HTTPStatus.BAD_REQUEST, detail))
        self.path, self.query = split_target(event.target.decode())
        self._target = find(self._routes, self.method, self.path)

    def _refuse_body(self) -> None:
        target = self._target
        length = int(self.headers.get("content-length", "0"))
        if isinstance(target, Response):
            if length or "transfer-encoding" in self.headers:
                raise RequestError(target)  # nobody wants its body
        elif target is not None and length > target.max_body_bytes:
            raise _body_error(target)

    def _collect(self, event: h11.Data) -> None:
        self.body += event.data
        self._chunks += event.chunk_start
        if self._chunks > MOST_CHUNKS:
            detail = f"{MOST_CHUNKS} chunks are the most of a body"
            raise RequestError(problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail))
        if isinstance(self._target, Route) and len(self.body) > self._target.max_body_bytes:
            raise _body_error(self._target)

    def _head_error(self, *, target_only: bool) -> RequestError:
        if target_only:
            status, what = HTTPStatus.REQUEST_URI_TOO_LONG, "the request line"
        else:
            status, what = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request line and headers"
        return RequestError(problem(status, f"{what} may take {self._limits.header_bytes} bytes"))


def has_too_many_blanks(data: bytes) -> bool:
    """Return whether more blanks follow each other than h11 gets through in little time."""
    return b" " * (MOST_BLANKS + 1) in data.replace(b"\t", b" ")


def _head_problem(detail: str) -> RequestError:
    return RequestError(problem(HTTPStatus.BAD_REQUEST, detail))


def _body_error(route: Route) -> RequestError:
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return RequestError(problem(status, f"{route.path} takes {route.max_body_bytes} bytes of body"))
