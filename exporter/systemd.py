"""systemd's side of a service: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START


def notify(*assignments: str) -> bool:
    """Send `NAME=value` lines to whoever started us; return whether they are on their way.

    It never waits: systemd may be busy, and our event loop must not be.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = f"\0{path[1:]}" if path.startswith("@") else path
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    try:
        with socket.socket(socket.AF_UNIX, kind) as channel:
            channel.sendto("\n".join(assignments).encode(), address)
    except OSError:
        return False
    return True


def is_supervised() -> bool:
    """Return whether somebody waits for notifications."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def watchdog_seconds() -> float | None:
    """Return how long systemd waits for a sign of life before it ends us, or None: for ever."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    meant = os.environ.get("WATCHDOG_PID") or str(os.getpid())
    return int(microseconds) / 1e6 if meant == str(os.getpid()) else None


def listen_descriptors() -> tuple[int, ...]:
    """Return the sockets that a .socket unit has opened for us."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return ()
    return tuple(range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count)))
