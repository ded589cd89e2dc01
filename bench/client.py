"""Scrapes as Prometheus does, with gzip over a kept connection, and little work of its own."""

from __future__ import annotations

import selectors
import socket
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

REQUEST = (
    b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\n"
    b"Accept: text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\nAccept-Encoding: gzip\r\n\r\n"
)
RECEIVE_BYTES = 1 << 18
PATIENCE_SECONDS = 20.0
ANY_WINDOW = zlib.MAX_WBITS | 32  # gzip or zlib


class BenchError(Exception):
    """The measurement cannot go on; the text is one line for the user."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `seconds` from the connect, or the request on a kept connection, to its end."""

    status: int
    head: bytes
    body: bytes  # as sent
    seconds: float

    @property
    def page(self) -> bytes:
        """The body without chunks and compression."""
        body = _joined(self.body) if b"chunked" in self.head.lower() else self.body
        gzip = b"content-encoding: gzip" in self.head.lower()
        return zlib.decompress(body, ANY_WINDOW) if gzip else body


class Scraper:
    """One client with at most one connection. A server that closes it is connected to anew."""

    def __init__(self, port: int, selector: selectors.BaseSelector) -> None:
        self._address = ("127.0.0.1", port)
        self._selector = selector
        self._socket: socket.socket | None = None
        self._asking = False
        self._sent = False
        self._data = bytearray()
        self._began = 0.0
        self._reused = False

    def begin(self) -> None:
        """Send a request, or connect first."""
        self._data.clear()
        self._asking = True
        self._began = time.perf_counter()
        self._reused = self._socket is not None
        if self._socket is None:
            self._connect()
        else:
            self._send()

    def go_on(self) -> Answer | None:
        """Do what the socket is ready for; return the answer when it is complete.

        Raises:
            OSError: the connection failed.
        """
        if self._socket is None:
            return None
        if not self._sent:
            self._raise_for_connect()
            self._send()
            return None
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except ConnectionError:
            data = b""
        self._data += data
        answer = self._complete(ended=not data) if self._asking else None
        if answer is not None:
            self._asking = False
        elif not data and self._asking:
            self._start_anew()
        elif not data:
            self.close()  # the server was tired of waiting
        return answer

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _connect(self) -> None:
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.connect_ex(self._address)
        self._sent = False
        self._selector.register(self._socket, selectors.EVENT_WRITE, self)

    def _raise_for_connect(self) -> None:
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if self._socket else 0
        if code:
            self.close()
            raise OSError(code, "cannot connect")

    def _send(self) -> None:
        if self._socket is None:
            return
        try:
            self._socket.send(REQUEST)
        except ConnectionError:
            self._start_anew()
            return
        if not self._sent:
            self._selector.modify(self._socket, selectors.EVENT_READ, self)
            self._sent = True

    def _start_anew(self) -> None:
        """Connect again when the server has closed a kept connection, as Go's client does."""
        self.close()
        if not self._reused or self._data:
            raise ConnectionError("the server closed the connection without an answer")
        self._reused = False
        self._connect()

    def _complete(self, *, ended: bool) -> Answer | None:
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self._data[:end])
        low = head.lower()
        length = _length(low)
        if length is not None:
            done = len(self._data) >= end + 4 + length
        elif b"transfer-encoding: chunked" in low:
            done = self._data.endswith(b"\r\n0\r\n\r\n")
        else:
            done = ended
        if not done:
            return None
        seconds = time.perf_counter() - self._began
        if ended or head.startswith(b"HTTP/1.0") or b"connection: close" in low:
            self.close()
        return Answer(int(head[9:12]), head, bytes(self._data[end + 4 :]), seconds)


def _length(low_head: bytes) -> int | None:
    _, name, rest = low_head.partition(b"\r\ncontent-length:")
    return int(rest.split(b"\r\n", 1)[0]) if name else None


def _joined(chunked: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    while True:
        end = chunked.index(b"\r\n", at)
        size = int(chunked[at:end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(chunked[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


class Scrapers:
    """Some clients of some servers, driven by one thread."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._selector = selectors.DefaultSelector()
        self._scrapers = [Scraper(port, self._selector) for port in ports]

    def close(self) -> None:
        """Close all connections."""
        for scraper in self._scrapers:
            scraper.close()
        self._selector.close()

    def scrape(self, number: int = 0) -> Answer:
        """Let one client scrape once.

        Raises:
            OSError: the connection failed.
            BenchError: no answer for a long time.
        """
        self._scrapers[number].begin()
        return next(self._answers())[1]

    def loop(self, seconds: float = 0.0, count: int = 0) -> list[float]:
        """Let all clients scrape, each as soon as it has its answer; return each one's seconds.

        For `seconds` and for `count` scrapes, whichever takes longer.
        """
        taken: list[float] = []
        until = time.perf_counter() + seconds
        waiting = len(self._scrapers)
        for scraper in self._scrapers:
            scraper.begin()
        for scraper, answer in self._answers():
            _check(answer)
            taken.append(answer.seconds)
            if len(taken) + waiting - 1 < count or time.perf_counter() < until:
                scraper.begin()
            elif (waiting := waiting - 1) == 0:
                break
        return taken

    def pace(self, seconds: float, count: int) -> list[list[float]]:
        """Let every client scrape `count` times, `seconds` apart; return each client's seconds.

        The clients take turns, evenly spread: never two at a time.
        """
        taken: list[list[float]] = [[] for _ in self._scrapers]
        start = time.perf_counter()
        for turn in range(count * len(self._scrapers)):
            due = start + turn * seconds / len(self._scrapers)
            time.sleep(max(due - time.perf_counter(), 0.0))
            which = turn % len(self._scrapers)
            answer = self.scrape(which)
            _check(answer)
            taken[which].append(answer.seconds)
        return taken

    def _answers(self) -> Iterator[tuple[Scraper, Answer]]:
        while True:
            ready = self._selector.select(PATIENCE_SECONDS)
            if not ready:
                raise BenchError(f"a scrape got no answer in {PATIENCE_SECONDS:g} s")
            for key, _ in ready:
                scraper: Scraper = key.data
                answer = scraper.go_on()
                if answer is not None:
                    yield scraper, answer


def _check(answer: Answer) -> None:
    if answer.status != 200:
        first = answer.head.split(b"\r\n", 1)[0].decode(errors="replace")
        raise BenchError(f"a scrape was answered with {first}")


@contextmanager
def clients(*ports: int) -> Iterator[Scrapers]:
    """Give one client for each port; close them in the end."""
    scrapers = Scrapers(ports)
    try:
        yield scrapers
    finally:
        scrapers.close()
