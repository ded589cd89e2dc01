"""How numbers are written for people."""

from __future__ import annotations

GIB = 1 << 30
MIB = 1 << 20


def size(count: float) -> str:
    """Return bytes in the unit that suits: 512 MiB, 79.6 GiB, 1.95 TiB."""
    if count < GIB:
        return f"{count / MIB:.0f} MiB"
    return f"{count / GIB:.1f} GiB" if count < 1000 * GIB else f"{count / GIB / 1024:.2f} TiB"


def counted(count: int, thing: str) -> str:
    """Return "1 error", "2 errors"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
