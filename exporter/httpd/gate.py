"""Who may come in, and how: the seam between the server and a web config."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from exporter.frozen import dataclass
from exporter.httpd.message import Response

if TYPE_CHECKING:
    import ssl  # TLS is asyncio's affair; here a context only passes through


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who sends a request, as far as the connection and the headers tell."""

    peer: str  # IP address, "" where there is none
    authorization: str  # the header, "" where there is none
    certificate: Mapping[str, Any] | None  # as SSLSocket.getpeercert tells it; verified
    has_own_guard: bool  # the path asks for an Authorization of its own


Verdict = str | Response
"""Who it is, "" for somebody unknown who may come in; or the answer that refuses."""


class Gate(Protocol):
    """Asked for each connection and each request, in the event loop's thread."""

    def context(self) -> ssl.SSLContext | None:
        """Return what speaks TLS on a new connection, None for plain HTTP."""

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the headers of each answer that does not set them itself."""

    def check(self, visitor: Visitor) -> Verdict | asyncio.Future[Verdict]:
        """Return who it is, at once or, where that takes time, later."""

    def close(self) -> None:
        """End what it has begun: the server stops."""
