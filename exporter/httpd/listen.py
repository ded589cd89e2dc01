"""Listen addresses: from what a user writes to an open socket."""

from __future__ import annotations

import errno
import re
import socket

from exporter.frozen import dataclass

BACKLOG = 1024  # not yet accepted; beyond it the kernel lets a client wait for a second
# Of answers that a client does not take, in the kernel, which doubles it: it would be 4 MiB.
SEND_BUFFER_BYTES = 128 * 1024
MAX_PORT = 65535
EXAMPLES = "right would be ':9836', '127.0.0.1:9836', '[::1]:9836' or 'localhost:9836'"
SOCKET_ADVICE = "write ListenStream= with a port, and Accept=no, in the .socket unit"
TCP_FAMILIES = frozenset({socket.AF_INET, socket.AF_INET6})
ADVICE = {
    errno.EADDRINUSE: "stop the program that listens there, or choose another port",
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE, others do not",
    errno.EADDRNOTAVAIL: "this host has no such address; leave it out to listen on all",
}


class ListenError(Exception):
    """An address that cannot be listened on: one line with which, why, and what would be right."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str  # IP address or name, "" for every IPv4 and IPv6 address of the host
    port: int  # 0 lets the kernel choose

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Parse `HOST:PORT`, `[IPV6]:PORT` or `:PORT`.

    Raises:
        ListenError: The text is none of these.
    """
    match = re.fullmatch(
        r"(?:\[([0-9a-fA-F:.]+(?:%[^\[\]\s]+)?)\]|([^\[\]:\s]*)):([0-9]{1,5})", text
    )
    if match is None or int(match[3]) > MAX_PORT:
        raise ListenError(f"listen address {text!r} is not HOST:PORT; {EXAMPLES}")
    return Address(match[1] or match[2] or "", int(match[3]))


def listen(text: str) -> socket.socket:
    """Open a non-blocking listening socket; a name stands for its first address, IPv4 before IPv6.

    Raises:
        ListenError: The text is no address, or the address cannot be had.
    """
    address = parse_address(text)
    try:
        return _open_first(address) if address.host else _open_all(address.port)
    except socket.gaierror as error:
        raise ListenError(f"cannot listen on {text!r}: {error.strerror}; {EXAMPLES}") from None
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, EXAMPLES)
        raise ListenError(f"cannot listen on {text!r}: {error.strerror}; {advice}") from None


def adopt(descriptor: int) -> socket.socket:
    """Take a listening socket that was opened for us, as systemd's socket units do.

    Raises:
        ListenError: It is none, or not of TCP.
    """
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:  # closed, or no socket at all
        raise ListenError(f"descriptor {descriptor} is no socket; {SOCKET_ADVICE}") from None
    if not _is_listening_tcp(sock):
        sock.close()
        raise ListenError(f"descriptor {descriptor} is no listening TCP socket; {SOCKET_ADVICE}")
    _prepare(sock)
    return sock


def _is_listening_tcp(sock: socket.socket) -> bool:
    if sock.family not in TCP_FAMILIES or sock.type != socket.SOCK_STREAM:
        return False
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _open_first(address: Address) -> socket.socket:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    family, _, _, _, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return _open(family, where)


def _open_all(port: int) -> socket.socket:
    try:
        return _open(socket.AF_INET6, ("::", port))
    except OSError as error:
        if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            raise
    return _open(socket.AF_INET, ("0.0.0.0", port))  # IPv6 is switched off


def _open(family: int, where: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        _prepare(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # "::" takes IPv4 too
        sock.bind(where)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    # Accepted sockets inherit both. asyncio sets TCP_NODELAY on none opened without a protocol
    # number.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
