"""Names to addresses within a deadline. The system's resolver knows none, and cannot be stopped."""

from __future__ import annotations

import socket
import threading
import time
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from exporter.threads import start

Address = tuple[int, int, int, str, Any]  # as getaddrinfo gives it


class ResolveError(Exception):
    """A name without a usable address, in words for people."""


class Resolver:
    """Looks names up in a thread, and never leaves more than one behind."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def resolve(self, host: str, port: int, deadline: float) -> list[Address]:
        """Return a host's addresses before `deadline`, in monotonic seconds.

        Link-local ones are left out: clouds hand out credentials there (169.254.169.254), and no
        receiver lives there.

        Raises:
            ResolveError: There are none, or link-local ones only.
            TimeoutError: The resolver has not answered.
            NoThreadError: There is no thread to ask it in.
        """
        if self._thread is not None and self._thread.is_alive():
            raise ResolveError("the resolver has not answered an earlier question yet")
        found: list[Address] = []
        problem: list[str] = []

        def look_up() -> None:
            try:
                found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                problem.append(getattr(error, "strerror", None) or "is not a name")

        thread = threading.Thread(target=look_up, name="scaleout-resolver", daemon=True)
        self._thread = start(thread)
        self._thread.join(max(deadline - time.monotonic(), 0.0))
        if self._thread.is_alive():
            raise TimeoutError
        if problem:
            raise ResolveError(f"{host}: {problem[0]}")
        usable = [address for address in found if not _is_link_local(address[4][0])]
        if not usable:
            raise ResolveError(f"{host} is link-local; no receiver may be there")
        return usable


def _is_link_local(text: str) -> bool:
    address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_link_local
