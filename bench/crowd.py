"""Clients that never finish a request: some say nothing, some send a byte a second.

    crowd.py PORT SILENT DRIPPING

It writes a line when all are connected, and at the end how long the last one was let to stay, in
seconds. It gives up after PATIENCE_SECONDS.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from dataclasses import dataclass

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"a" * 1000
PATIENCE_SECONDS = 30.0


@dataclass(slots=True)
class Client:
    """One connection, and when its next byte is due (None: never)."""

    socket: socket.socket
    opened: float
    sent: int = 0
    due: float | None = None


def main(port: int, silent: int, dripping: int) -> float:
    """Connect, drip, and wait until the server has closed every connection."""
    clients = {}
    poll = select.poll()
    for number in range(silent + dripping):
        one = Client(socket.create_connection(("127.0.0.1", port)), time.monotonic())
        if number >= silent:
            one.due = one.opened + (number - silent) / dripping
        clients[one.socket.fileno()] = one
        poll.register(one.socket, select.POLLIN)
    print("connected", flush=True)
    longest, limit = 0.0, time.monotonic() + PATIENCE_SECONDS
    while clients:
        if time.monotonic() > limit:
            sys.exit(f"{len(clients)} connections are still open after {PATIENCE_SECONDS:g} s")
        for descriptor, _ in poll.poll(20):
            if _is_closed(clients[descriptor]):
                poll.unregister(descriptor)
                one = clients.pop(descriptor)
                one.socket.close()
                longest = max(longest, time.monotonic() - one.opened)
        for one in clients.values():
            _drip(one)
    return longest


def _is_closed(client: Client) -> bool:
    try:
        return not client.socket.recv(4096)
    except ConnectionError:
        return True


def _drip(client: Client) -> None:
    now = time.monotonic()
    if client.due is None or now < client.due:
        return
    client.due = now + 1.0
    try:
        client.sent += client.socket.send(REQUEST[client.sent : client.sent + 1])
    except ConnectionError:
        client.due = None  # the poll tells of its end


if __name__ == "__main__":
    print(f"{main(*map(int, sys.argv[1:])):.3f}")
