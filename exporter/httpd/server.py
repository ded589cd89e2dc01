"""Accepting, and what ends a connection from outside: its deadline, or a full house."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import socket
from collections import Counter
from collections.abc import Sequence

from exporter.httpd.connection import Connection, Shared, Stage
from exporter.httpd.gate import Gate
from exporter.httpd.listen import listen
from exporter.httpd.message import Limits, Route, peer_of
from exporter.httpd.tls import shake_hands

logger = logging.getLogger(__name__)

DEFAULT_LIMITS = Limits()
READ_BYTES = 16 * 1024  # one read: all connections share the buffer
# Connections accepted before those that exist get their turn. With many more, some that come
# first would be closed for the last before they are read.
ACCEPT_BURST = 16
ACCEPT_PAUSE_SECONDS = 0.1  # until the next try when there is no file descriptor to be had
WARNING_SECONDS = 60.0  # between two log lines about that
OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclasses.dataclass(slots=True)
class _Seldom:
    """Something that clients can bring about as often as they like: told once a minute at most."""

    count: int = 0
    told_at: float = -WARNING_SECONDS

    def happened(self) -> int:
        """Count it; return how often it has happened since it was told, or 0: not now."""
        self.count += 1
        now = asyncio.get_running_loop().time()
        if now - self.told_at < WARNING_SECONDS:
            return 0
        count, self.count, self.told_at = self.count, 0, now
        return count


class Server:
    """An HTTP/1.1 server in the running event loop.

    A new connection always finds room: if all places are taken, the connection that is worth least
    is closed for it, one of the client who has most. One timer, for the nearest deadline, serves
    all of them.
    """

    def __init__(
        self, routes: Sequence[Route], limits: Limits = DEFAULT_LIMITS, gate: Gate | None = None
    ) -> None:
        self._limits = limits
        self._gate = gate
        self._connections: set[Connection] = set()
        self._shared = Shared(
            routes={route.path: route for route in routes},
            limits=limits,
            gate=gate,
            read_buffer=memoryview(bytearray(READ_BYTES)),
            watch=self._watch,
            forget=self._connections.discard,
        )
        self._listeners: list[socket.socket] = []
        self._admissions: set[asyncio.Task[None]] = set()
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._accept_timer: asyncio.TimerHandle | None = None
        self._no_descriptor = _Seldom()
        self._full_house = _Seldom()
        self._failed_handshake = _Seldom()

    async def start(
        self, addresses: Sequence[str], adopted: Sequence[socket.socket] = ()
    ) -> list[tuple[str, int]]:
        """Listen on every address, and return the (host, port) that each has become.

        `adopted` are sockets that listen already: they come first.

        Raises:
            ListenError: One line: which address, why, what would be right. None is left open then.
        """
        try:
            self._listeners.extend(adopted)
            self._listeners.extend(map(listen, addresses))
        except BaseException:
            await self.stop()
            raise
        self._accept_on_all()
        return [listener.getsockname()[:2] for listener in self._listeners]

    async def stop(self) -> None:
        """Close everything now. An answer that its client has not taken by now is cut off."""
        self._accept_on_none()
        if self._gate is not None:
            self._gate.close()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
            self._deadline_timer = None
        doomed = list(self._connections)
        for connection in doomed:
            self._drop(connection)
        await asyncio.gather(*self._admissions)  # nothing keeps a handshake once it is aborted
        for connection in doomed:
            connection.abort()  # if that was a matter of one turn, it has ended well
        await asyncio.sleep(0)  # the turn in which asyncio closes the sockets

    def _watch(self, deadline: float) -> None:
        if self._deadline_timer is not None:
            if self._deadline_timer.when() <= deadline:
                return
            self._deadline_timer.cancel()
        self._deadline_timer = asyncio.get_running_loop().call_at(deadline, self._time_out)

    def _time_out(self) -> None:
        self._deadline_timer = None
        now = asyncio.get_running_loop().time()
        for connection in [c for c in self._connections if c.deadline <= now]:
            connection.time_out()
            self._drop(connection)
        if self._connections:
            self._watch(min(connection.deadline for connection in self._connections))

    def _drop(self, connection: Connection) -> None:
        self._connections.discard(connection)
        connection.abort()

    def _drop_least(self) -> Connection:
        held = Counter(connection.client for connection in self._connections)

        def worth(connection: Connection) -> tuple[int, Stage, float]:
            # To ask and to take the answer are worth the same: who is honest is quick at both.
            stage = min(connection.stage, Stage.READING)
            return -held[connection.client], stage, connection.deadline

        least = min(self._connections, key=worth)
        self._drop(least)
        return least

    def _accept_on_all(self) -> None:
        self._accept_timer = None
        for listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept_on_none(self) -> None:
        if self._accept_timer is not None:
            self._accept_timer.cancel()
            self._accept_timer = None
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)

    def _accept(self, listener: socket.socket) -> None:
        # loop.create_server would log a traceback when file descriptors run out, and knows of no
        # idle connection to close for a new one.
        for _ in range(ACCEPT_BURST):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    self._make_room_for_descriptor(error)
                    return
                continue  # the client has gone before it was accepted
            if len(self._connections) >= self._limits.connections:
                least = self._drop_least()
                if count := self._full_house.happened():
                    told = "%d connections are the most: %d closed for newer ones, last of %s"
                    logger.info(told, self._limits.connections, count, least.client)
            peer = peer_of(address)
            connection = Connection(self._shared, sock, peer)
            self._connections.add(connection)
            self._watch(connection.deadline)
            admission = asyncio.get_running_loop().create_task(self._admit(connection, sock, peer))
            self._admissions.add(admission)
            admission.add_done_callback(self._admissions.discard)

    def _make_room_for_descriptor(self, error: OSError) -> None:
        loop = asyncio.get_running_loop()
        if self._no_descriptor.happened():
            logger.warning("no file descriptor for a new connection: %s", error.strerror)
        if self._connections:
            self._drop_least()  # its descriptor is free before the next try
        else:
            self._accept_on_none()
            self._accept_timer = loop.call_later(ACCEPT_PAUSE_SECONDS, self._accept_on_all)

    async def _admit(self, connection: Connection, sock: socket.socket, peer: str) -> None:
        loop = asyncio.get_running_loop()
        context = None if self._gate is None else self._gate.context()
        try:
            if context is None:
                await loop.connect_accepted_socket(lambda: connection, sock)
            else:
                await shake_hands(connection, sock, context, self._limits.request_seconds)
        except OSError as error:  # TLS errors are OSErrors too
            self._connections.discard(connection)
            self._tell_handshake(peer, error)
            # Its frames hold all of the connection and, in asyncio, the error itself: 45 KiB each
            # time that only the garbage collector would find, some day.
            error.__traceback__ = None

    def _tell_handshake(self, peer: str, error: OSError) -> None:
        """Log why a handshake failed, now and then: asyncio tells the client nothing of it."""
        if count := self._failed_handshake.happened():
            why = getattr(error, "reason", None) or error.strerror or str(error) or "broken off"
            logger.info("TLS handshake failed: %d times, last by %s: %s", count, peer, why)
