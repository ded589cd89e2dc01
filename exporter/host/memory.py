"""The host's memory.

Not through psutil, which reads every line of the file, and takes twice as long over it.
"""

from pathlib import Path

from exporter.frozen import dataclass
from exporter.host.procfs import PROC, number, text
from exporter.metric import Metric, Row


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of the node, also when read inside a container.

    `available_bytes` is the kernel's estimate of what programs can get without swapping.
    """

    total_bytes: int
    available_bytes: int
    free_bytes: int
    cached_bytes: int

    @property
    def used_bytes(self) -> int:
        """What is not available.

        Others take total - free - buffers - cached. That counts tmpfs as cache, although
        /dev/shm, where inference servers keep much, cannot be had back.
        """
        return self.total_bytes - self.available_bytes

    @property
    def used_ratio(self) -> float:
        """Share of the memory that is used, 0..1."""
        return self.used_bytes / self.total_bytes


def read(proc: Path = PROC) -> Memory:
    """Read /proc/meminfo (kB).

    Raises:
        OSError: the file cannot be read.
        ValueError: it lacks a line that every kernel writes.
    """
    meminfo = text(f"{proc}/meminfo")
    total = _bytes(meminfo, "MemTotal:")
    if total <= 0:
        raise ValueError(f"meminfo says MemTotal is {total}")
    return Memory(
        total_bytes=total,
        available_bytes=_bytes(meminfo, "MemAvailable:"),
        free_bytes=_bytes(meminfo, "MemFree:"),
        cached_bytes=_bytes(meminfo, "Cached:") + _bytes(meminfo, "SReclaimable:"),
    )


def _bytes(meminfo: str, key: str) -> int:
    kib = number(meminfo, key)
    if kib is None:
        raise ValueError(f"meminfo has no line {key}")
    return kib * 1024


METRICS: tuple[Row[Memory], ...] = (
    Metric("host_memory_total_bytes", "Memory of the node.", lambda m: m.total_bytes),
    Metric(
        "host_memory_available_bytes",
        "Memory that programs can get without swapping, as the kernel estimates it.",
        lambda m: m.available_bytes,
    ),
    Metric(
        "host_memory_used_bytes",
        "Memory that is not available: total - available.",
        lambda m: m.used_bytes,
    ),
    Metric(
        "host_memory_free_bytes",
        "Memory that nothing uses, not even a cache.",
        lambda m: m.free_bytes,
    ),
    Metric(
        "host_memory_cached_bytes",
        "Page cache, tmpfs (/dev/shm) and reclaimable slab.",
        lambda m: m.cached_bytes,
    ),
    Metric(
        "host_memory_used_ratio",
        "Share of the memory that is not available: used / total.",
        lambda m: m.used_ratio,
    ),
)
