"""TLS on an accepted connection, in less memory than asyncio takes for it."""

from __future__ import annotations

import asyncio
import socket
from asyncio.sslproto import SSLProtocol
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl  # a context only passes through; asyncio has loaded it

READ_BYTES = 16 * 1024  # asyncio: 256 KiB for each connection, for as long as it lasts


class _Lean(SSLProtocol):
    max_size = READ_BYTES


async def shake_hands(
    protocol: asyncio.BaseProtocol, sock: socket.socket, context: ssl.SSLContext, seconds: float
) -> None:
    """Speak TLS on a socket, and connect the protocol to it once the handshake is done.

    Raises:
        OSError: It has failed, or took longer than so many seconds.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    # What loop.connect_accepted_socket(ssl=context) does, but for the class.
    tls = _Lean(
        loop,
        protocol,
        context,
        done,
        server_side=True,
        ssl_handshake_timeout=seconds,  # type: ignore[arg-type]  # the stubs know of no float
    )
    transport, _ = await loop.connect_accepted_socket(lambda: tls, sock)
    try:
        await done
    except BaseException:
        transport.close()
        raise
