"""Hundreds of clients that mean no good, all at once, each in its own way."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from http_client import PATIENCE_SECONDS, get

TCP_ESTABLISHED = 1  # include/net/tcp_states.h
PACE_SECONDS = 0.05  # between two rounds through the crowd
CHUNKED = get("/api/v1/alertmanager", "Transfer-Encoding: chunked", method="POST")


@dataclass(frozen=True, slots=True)
class Manner:
    """How a client misbehaves."""

    first: bytes = b""  # sent at once
    more: bytes = b""  # sent again and again
    every_seconds: float = PACE_SECONDS
    reads: bool = True
    resets: bool = False  # right after the first bytes


MANNERS = (
    Manner(),
    Manner(b"GET /metrics HTTP/1.1\r\nX-Slow: ", b"a", every_seconds=1.0),
    Manner(b"GET /met"),
    Manner(b"GET /metrics HTTP/1.1\r\nHost: x\r\n", b"X-More: again\r\n" * 10),
    Manner(CHUNKED, b"400\r\n" + b" " * 1024 + b"\r\n"),
    Manner(CHUNKED + b"1\r\nx\r\n" * 100, b"1\r\nx\r\n", every_seconds=1.0),
    Manner(get("/") * 300, reads=False),
    Manner(get("/metrics") * 29 + get("/metrics", "Connection: close")),
    Manner(get("/metrics", "Accept-Encoding: gzip"), resets=True),
    Manner(b"\x16\x03\x01\x02\x00\x01\x00"),
)


@dataclass(slots=True)
class _One:
    manner: Manner
    sock: socket.socket
    opened: float
    unsent: bytes
    due: float


@dataclass
class Crowd:
    """Clients that stay until they are thrown out, and then come again while it storms."""

    port: int
    manners: Sequence[Manner]
    count: int
    storms: bool
    source: str = "127.0.0.1"
    longest_stay_seconds: float = 0.0
    thrown_out: int = 0
    connected: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def calm(self) -> None:
        """Let nobody come again."""
        self.storms = False

    def stop(self) -> None:
        """Let all leave."""
        self._stopped.set()

    def run(self) -> None:
        """Misbehave until all are gone."""
        ones = [self._come(self.manners[n % len(self.manners)]) for n in range(self.count)]
        self.connected.set()
        while ones and not self._stopped.wait(PACE_SECONDS):
            now = time.monotonic()
            still = []
            for one in ones:
                if self._misbehave(one, now):
                    still.append(one)
                    continue
                one.sock.close()
                self.thrown_out += 1
                self.longest_stay_seconds = max(self.longest_stay_seconds, now - one.opened)
                if self.storms:
                    still.append(self._come(one.manner))
            ones = still
        for one in ones:
            one.sock.close()
        self.gone.set()

    def _come(self, manner: Manner) -> _One:
        sock = socket.socket()
        if not manner.reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(PATIENCE_SECONDS)
        sock.bind((self.source, 0))
        sock.connect(("127.0.0.1", self.port))
        sock.setblocking(False)
        now = time.monotonic()
        return _One(manner, sock, now, manner.first, now)

    def _misbehave(self, one: _One, now: float) -> bool:
        """Send and read what there is; return whether the server still has the connection."""
        if now >= one.due:
            one.due = now + one.manner.every_seconds
            one.unsent = one.unsent or one.manner.more
        try:
            if one.unsent:
                with contextlib.suppress(BlockingIOError):
                    one.unsent = one.unsent[one.sock.send(one.unsent) :]
            if one.manner.resets:
                linger = struct.pack("ii", 1, 0)
                one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return False
            return self._is_open(one)
        except ConnectionError:
            return False

    @staticmethod
    def _is_open(one: _One) -> bool:
        if not one.manner.reads:
            state = one.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
            return state[0] == TCP_ESTABLISHED
        try:
            while one.sock.recv(1 << 16):
                pass
        except BlockingIOError:
            return True
        return False


@contextlib.contextmanager
def crowd(
    port: int,
    count: int,
    manners: Sequence[Manner] = MANNERS,
    *,
    storms: bool = False,
    source: str = "127.0.0.1",
) -> Iterator[Crowd]:
    """Besiege a port from an address while the context lasts; all have come when it begins."""
    clients = Crowd(port, manners, count, storms, source)
    thread = threading.Thread(target=clients.run)
    thread.start()
    try:
        assert clients.connected.wait(PATIENCE_SECONDS)
        yield clients
    finally:
        clients.stop()
        thread.join(PATIENCE_SECONDS)
