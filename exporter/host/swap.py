"""The host's swap space.

Not through psutil, whose `swap_memory` takes a page for 4 KiB (kernels for Grace and other arm64
often have pages of 64 KiB) and says 0 for a counter that the kernel does not keep.
"""

import os
from pathlib import Path

from exporter.frozen import dataclass
from exporter.host.procfs import PROC, number, text, text_or_empty
from exporter.metric import Kind, Metric, Row

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Swap:
    """Swap space of the node. Sizes are 0 where no swap is configured.

    The counters run since boot; None where the kernel keeps none.
    """

    total_bytes: int
    free_bytes: int
    in_bytes: int | None
    out_bytes: int | None

    @property
    def used_bytes(self) -> int:
        """What is not free."""
        return self.total_bytes - self.free_bytes


def read(proc: Path = PROC, page_bytes: int = PAGE_BYTES) -> Swap:
    """Read /proc/meminfo (kB) and /proc/vmstat (pages).

    Raises:
        OSError: meminfo cannot be read.
        ValueError: it lacks the swap lines, or a line holds no integer.
    """
    meminfo = text(f"{proc}/meminfo")
    total, free = number(meminfo, "SwapTotal:"), number(meminfo, "SwapFree:")
    if total is None or free is None:
        raise ValueError("meminfo has no line SwapTotal or SwapFree")
    vmstat = text_or_empty(f"{proc}/vmstat")
    pages_in, pages_out = number(vmstat, "pswpin "), number(vmstat, "pswpout ")
    return Swap(
        total_bytes=total * 1024,
        free_bytes=free * 1024,
        in_bytes=None if pages_in is None else pages_in * page_bytes,
        out_bytes=None if pages_out is None else pages_out * page_bytes,
    )


METRICS: tuple[Row[Swap], ...] = (
    Metric(
        "host_swap_total_bytes",
        "Swap space of the node, 0 where none is configured.",
        lambda s: s.total_bytes,
    ),
    Metric("host_swap_used_bytes", "Swap space in use.", lambda s: s.used_bytes),
    Metric("host_swap_free_bytes", "Swap space not in use.", lambda s: s.free_bytes),
    Metric(
        "host_swap_in_bytes_total",
        "Memory read back from swap since boot.",
        lambda s: s.in_bytes,
        Kind.COUNTER,
    ),
    Metric(
        "host_swap_out_bytes_total",
        "Memory written to swap since boot.",
        lambda s: s.out_bytes,
        Kind.COUNTER,
    ),
)
