"""Parts of a text into one gzip member (RFC 1952)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

GZIP = 31  # zlib's wbits for a gzip member


def gzipped(parts: Iterable[bytes], level: int) -> bytes:
    """Return all parts as one gzip member without a time; the whole need not be there as one."""
    squeezer = zlib.compressobj(level, zlib.DEFLATED, GZIP)
    return b"".join([*map(squeezer.compress, parts), squeezer.flush()])
