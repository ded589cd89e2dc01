"""How a server is reached: name to address to socket, within TLS or not, before a deadline."""

from __future__ import annotations

import socket
import ssl
import time

from exporter.frozen import dataclass
from exporter.scaleout.client import HttpFailedError
from exporter.scaleout.resolver import ResolveError, Resolver
from exporter.scaleout.tls import BoundedSocket, secured


@dataclass(frozen=True, slots=True)
class Route:
    """How a server is reached: until when (monotonic seconds), and within TLS or not."""

    resolver: Resolver
    deadline: float
    context: ssl.SSLContext | None
    server_name: str | None

    def connect(self, host: str, port: int) -> socket.socket:
        """Return a socket that is connected, within TLS if that is how the server is reached.

        Raises:
            HttpFailedError: There is none to be had.
        """
        plain = self._connect(host, port)
        if self.context is None:
            return plain
        return secured(plain, self.context, self.server_name or host.rstrip("."))

    def _connect(self, host: str, port: int) -> BoundedSocket:
        try:
            addresses = self.resolver.resolve(host, port, self.deadline)
        except ResolveError as error:
            raise HttpFailedError("dns", str(error)) from error
        except TimeoutError as error:
            raise HttpFailedError("dns", f"{host}: the resolver does not answer") from error
        problem = OSError()
        for position, (family, kind, protocol, _, address) in enumerate(addresses):
            # An address that swallows packets leaves the others their share of the time.
            share = (self.deadline - time.monotonic()) / (len(addresses) - position)
            connection = BoundedSocket(family, kind, protocol)
            try:
                connection.settimeout(max(share, 0.001))
                connection.connect(address)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                connection.close()
                problem = error
            else:
                connection.deadline = self.deadline
                return connection
        if isinstance(problem, TimeoutError):
            raise HttpFailedError("timeout", f"{host}:{port} does not take the connection")
        raise HttpFailedError("connect", f"{host}:{port}: {problem.strerror}")
