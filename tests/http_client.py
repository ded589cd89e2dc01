"""A server in a thread, and a client that says on a raw socket whatever a test wants it to say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from exporter.httpd import Gate, Limits, Route, Server, Visitor

PATIENCE_SECONDS = 20.0  # far beyond every limit under test: who waits so long has failed


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs in a thread of its own."""

    server: Server
    loop: asyncio.AbstractEventLoop
    bound: list[tuple[str, int]]

    @property
    def port(self) -> int:
        """The port of the first address."""
        return self.bound[0][1]

    def stop(self) -> None:
        """Stop the server; the loop goes on."""
        asyncio.run_coroutine_threadsafe(self.server.stop(), self.loop).result(PATIENCE_SECONDS)


@dataclass(frozen=True, slots=True)
class Open:
    """A gate that lets everybody in who speaks TLS."""

    tls: ssl.SSLContext

    def context(self) -> ssl.SSLContext:
        """Return it."""
        return self.tls

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Add none."""
        return ()

    def check(self, _visitor: Visitor) -> str:
        """Let somebody in."""
        return ""

    def close(self) -> None:
        """Do nothing."""


@contextlib.contextmanager
def serving(
    routes: Sequence[Route],
    limits: Limits | None = None,
    addresses: Sequence[str] = ("127.0.0.1:0",),
    ssl_context: ssl.SSLContext | None = None,
    gate: Gate | None = None,
) -> Iterator[Running]:
    """Serve the routes while the context lasts; a gate has its own context."""
    if ssl_context is not None:
        gate = Open(ssl_context)
    server = Server(routes, limits or Limits(), gate)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        start = asyncio.run_coroutine_threadsafe(server.start(addresses), loop)
        running = Running(server, loop, start.result(PATIENCE_SECONDS))
        yield running
        running.stop()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_SECONDS)
        loop.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer as it came."""

    status: int
    headers: dict[str, str]  # lower-case names
    body: bytes


class Client:
    """A connection to the server under test."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._unread = bytearray()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def send_for_ever(self) -> None:
        """Send until that fails."""
        while True:
            self.send(b"a")

    def get(self, path: str = "/metrics", *headers: str) -> Answer:
        """Ask for a path and return the answer."""
        self.send(get(path, *headers))
        return self.answer()

    def answer(self, *, bodiless: bool = False) -> Answer:
        """Read one answer; `bodiless` says that it is one to HEAD, or an interim one."""
        while b"\r\n\r\n" not in self._unread:
            self._read()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = status_line.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        length = 0 if bodiless else int(headers["content-length"])
        while len(self._unread) < length:
            self._read()
        body = bytes(self._unread[:length])
        del self._unread[:length]
        return Answer(int(status), headers, body)

    def rest(self) -> bytes:
        """Read until the server closes or resets the connection."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                self._read()
        return bytes(self._unread)

    def reset(self) -> None:
        """Close as a crashed client does: with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _read(self) -> None:
        data = self.sock.recv(1 << 20)
        if not data:
            raise EOFError("the server has closed the connection")
        self._unread += data


@contextlib.contextmanager
def connect(
    port: int,
    host: str = "127.0.0.1",
    receive_bytes: int = 0,
    tls: ssl.SSLContext | None = None,
    source: str = "",
) -> Iterator[Client]:
    """Connect to the server under test, with a small receive buffer if `receive_bytes` is set.

    `source` is the client's own address, if that matters.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.settimeout(PATIENCE_SECONDS)
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if source:
            sock.bind((source, 0))
        sock.connect((host, port))
        if tls is None:
            yield Client(sock)
        else:
            with tls.wrap_socket(sock, server_hostname="localhost") as wrapped:
                yield Client(wrapped)


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds, fail if it never does."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def silent_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Prove that whatever a client does is no reason for a line in the log."""
    yield
    assert [r.getMessage() for r in caplog.get_records("call") if r.levelno > logging.INFO] == []


def get(path: str = "/metrics", *headers: str, version: str = "1.1", method: str = "GET") -> bytes:
    """Return the bytes of a request without a body."""
    lines = (f"{method} {path} HTTP/{version}", "Host: localhost", *headers, "", "")
    return "\r\n".join(lines).encode("latin-1")
