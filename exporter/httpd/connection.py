"""One client's connection: requests in, answers out, never longer or larger than allowed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable, Mapping
from enum import IntEnum
from http import HTTPStatus
from typing import Any, cast

from exporter.frozen import dataclass
from exporter.httpd.gate import Gate, Verdict, Visitor
from exporter.httpd.incoming import Incoming, RequestError
from exporter.httpd.message import Limits, Request, Response, Route, client_of, head, problem

logger = logging.getLogger(__name__)

# The most of an answer that is copied for a client who does not take it. From 128 KiB on, malloc
# maps and unmaps memory for each copy, which doubles the cost of an answer.
WRITE_BYTES = 112 * 1024
LINGER_BYTES = 4 * 1024 * 1024  # the most that is read after a refusal, only so that it is heard
TLS_RECORD_BYTES = 16 * 1024
RESET = struct.pack("ii", 1, 0)  # closing with this SO_LINGER throws away what was not taken


class Stage(IntEnum):
    """Where a connection stands."""

    IDLE = 0  # between two requests
    LINGERING = 1  # has its last answer; what still arrives is thrown away
    READING = 2  # waits for its first request, or for the rest of one
    WRITING = 3  # the client has yet to take its answer


@dataclass(frozen=True, slots=True)
class Shared:
    """What the connections of a server have in common."""

    routes: Mapping[str, Route]
    limits: Limits
    gate: Gate | None  # None: plain HTTP, and anybody may come in
    read_buffer: memoryview  # holds one read, and is emptied before the next
    watch: Callable[[float], None]  # asks for time_out() at this loop time
    forget: Callable[[Connection], None]  # the connection is gone


class Connection(asyncio.BufferedProtocol):
    """HTTP/1.1 with one client."""

    def __init__(self, shared: Shared, sock: socket.socket, peer: str) -> None:
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = sock  # until there is a transport
        self._transport: asyncio.Transport
        self._peer = peer
        self._certificate: Mapping[str, Any] | None = None
        self._incoming: Incoming | None = None  # None between requests
        self._verdict: asyncio.Future[Verdict] | None = None  # that the request waits for
        self._rest = memoryview(b"")  # of the answer
        self._write_bytes = WRITE_BYTES
        self._keep_alive = True
        self._blocked = False
        self._discarded_bytes = 0
        self.client = client_of(peer)
        self.stage = Stage.READING
        self.deadline = self._loop.time() + shared.limits.request_seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport, and the certificate that its client has shown."""
        self._transport = cast(asyncio.Transport, transport)
        self._sock = None
        if self._transport.can_write_eof():
            self._transport.set_write_buffer_limits(high=0)
        else:  # TLS begins with session tickets to send: at 0 it would pause, for ever
            self._transport.set_write_buffer_limits(high=TLS_RECORD_BYTES)
            self._write_bytes = TLS_RECORD_BYTES  # which is copied several times
        self._certificate = transport.get_extra_info("peercert")

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything, whatever the reason."""
        del exc
        self._incoming = None
        self._rest = memoryview(b"")
        if self._verdict is not None:
            self._verdict.cancel()
        self._shared.forget(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next read goes."""
        del sizehint
        return self._shared.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        if self.stage is Stage.LINGERING:
            self._discarded_bytes += nbytes
            if self._discarded_bytes > LINGER_BYTES:
                self.abort()
            return
        data = bytes(self._shared.read_buffer[:nbytes])
        if self._incoming is None:
            self._begin(data)
        else:
            self._incoming.feed(data)
        if self.stage is Stage.READING:  # TLS in Python 3.10 may deliver more after a pause
            self._advance()

    def pause_writing(self) -> None:
        """Take no more requests while the client does not take the answers."""
        self._blocked = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on with the answer, though not from within the transport's own write."""
        self._blocked = False
        self._loop.call_soon(self._write_rest)

    def time_out(self) -> None:
        """Tell a client that is slow to ask that its time is up; or that ours is."""
        if self.stage is Stage.READING and self._incoming is not None and not self._blocked:
            seconds = self._shared.limits.request_seconds
            self._keep_alive = False
            if self._verdict is None:
                detail = f"the request was not complete after {seconds:g} s"
                response = problem(HTTPStatus.REQUEST_TIMEOUT, detail)
            else:
                detail = f"the password could not be checked within {seconds:g} s, try again"
                response = problem(HTTPStatus.SERVICE_UNAVAILABLE, detail)
            self._transport.write(self._head(response) + response.body)

    def abort(self) -> None:
        """Close the connection now."""
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)  # ends the handshake
            return
        if self.stage is Stage.WRITING:  # the kernel would keep the answer for minutes
            with contextlib.suppress(OSError):
                sock = self._transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._transport.abort()

    def _begin(self, data: bytes) -> None:
        if self.stage is not Stage.READING:  # the first request's time runs from the connection on
            self.deadline = self._loop.time() + self._shared.limits.request_seconds
        self.stage = Stage.READING
        self._incoming = Incoming(self._shared.routes, self._shared.limits)
        self._incoming.feed(data)

    def _advance(self) -> None:
        incoming = self._incoming
        if incoming is None or self._verdict is not None or self._transport.is_closing():
            return
        try:
            target = None
            if incoming.read_head():
                if incoming.user is None and not self._admit(incoming):
                    return  # _advance again once the gate has spoken
                target = incoming.read_body()
        except RequestError as error:
            self._refuse(incoming, error)
            return
        if target is not None:
            self._respond(incoming, target)
            return
        if interim := incoming.interim():
            self._transport.write(interim)
        self._transport.resume_reading()
        self._shared.watch(self.deadline)

    def _admit(self, incoming: Incoming) -> bool:
        """Ask the gate about a request before anything more of it is read."""
        gate = self._shared.gate
        if gate is None:
            incoming.admit("")
            return True
        target = incoming.target
        verdict = gate.check(
            Visitor(
                self._peer,
                incoming.headers.get("authorization", ""),
                self._certificate,
                has_own_guard=isinstance(target, Route) and target.has_own_guard(),
            )
        )
        if isinstance(verdict, asyncio.Future):
            self._verdict = verdict
            self._transport.pause_reading()
            self._shared.watch(self.deadline)
            verdict.add_done_callback(self._admitted)
            return False
        incoming.admit(verdict)
        return True

    def _admitted(self, verdict: asyncio.Future[Verdict]) -> None:
        incoming, self._verdict = self._incoming, None
        if verdict.cancelled() or incoming is None or self._transport.is_closing():
            return
        try:
            incoming.admit(verdict.result())
        except RequestError as error:
            self._refuse(incoming, error)
        else:
            self._advance()

    def _head(self, response: Response) -> bytes:
        gate = self._shared.gate
        defaults = () if gate is None else gate.headers()
        return head(response, keep_alive=self._keep_alive, defaults=defaults)

    def _refuse(self, incoming: Incoming, error: RequestError) -> None:
        logger.debug("refused %s: %r", self._peer, error.response.body)
        self._keep_alive = False
        self._write(incoming.method, error.response, self._head(error.response))

    def _respond(self, incoming: Incoming, target: Route | Response) -> None:
        self._keep_alive = incoming.keep_alive
        try:
            response = self._call(incoming, target) if isinstance(target, Route) else target
            start = self._head(response)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  a handler's fault costs only its own answer
            logger.error("the handler of %s failed: %r", incoming.path, error)
            response = problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the handler failed, see the log")
            start = self._head(response)
        self._write(incoming.method, response, start)

    def _call(self, incoming: Incoming, route: Route) -> Response:
        return route.handler(
            Request(
                method=incoming.method,
                path=incoming.path,
                query=incoming.query,
                headers=incoming.headers,
                body=bytes(incoming.body),
                peer=self._peer,
                user=incoming.user or "",
            )
        )

    def _write(self, method: str, response: Response, start: bytes) -> None:
        self.stage = Stage.WRITING
        body = memoryview(b"" if method == "HEAD" else response.body)
        self._rest = body[self._write_bytes :]
        # Head and body in one write: apart, Nagle and delayed acknowledgements cost 40 ms.
        self._transport.write(b"".join((start, body[: self._write_bytes])))
        self._write_rest()

    def _write_rest(self) -> None:
        while self._rest and not self._blocked and not self._transport.is_closing():
            size = self._write_bytes
            piece, self._rest = self._rest[:size], self._rest[size:]
            self._transport.write(piece)
        if self._transport.is_closing():
            return
        if self._blocked:
            self._shared.watch(self.deadline)
        elif self.stage is not Stage.WRITING:
            self._transport.resume_reading()  # it was the interim answer that was blocked
        elif self._keep_alive:
            self._next()
        else:
            self._linger()

    def _next(self) -> None:
        """Go on with what has arrived behind the request, or wait for the next one."""
        leftover = self._incoming.leftover if self._incoming is not None else b""
        if leftover:
            self._transport.pause_reading()
            self._begin(leftover)
            self._loop.call_soon(self._advance)  # so that the other connections get their turn
        else:
            self._incoming = None
            self.stage = Stage.IDLE
            self.deadline = self._loop.time() + self._shared.limits.idle_seconds
            self._shared.watch(self.deadline)
            self._transport.resume_reading()

    def _linger(self) -> None:
        """Say that this was all, and wait until the client closes.

        To close with something unread makes the kernel reset the connection, and the client may
        lose the answer.
        """
        self.stage = Stage.LINGERING
        self._incoming = None
        self._shared.watch(self.deadline)
        if self._transport.can_write_eof():
            try:
                self._transport.write_eof()
            except OSError:  # gone already
                self.abort()
            self._transport.resume_reading()
        else:
            self._transport.close()
