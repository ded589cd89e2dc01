"""The host's memory."""

from dataclasses import dataclass

import psutil

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

        psutil's own `used` is not taken: it is total - free - buffers - cached in some of its
        releases and this difference in others. The first counts tmpfs as cache, although
        /dev/shm, where inference servers keep much, cannot be had back.
        """
        return self.total_bytes - self.available_bytes

    @property
    def used_ratio(self) -> float:
        """Share of the memory that is used, 0..1."""
        return self.used_bytes / self.total_bytes


def read() -> Memory:
    """Read /proc/meminfo through psutil.

    Raises:
        OSError: the file cannot be read.
        ValueError: it lacks a line that every kernel writes.
    """
    try:
        memory = psutil.virtual_memory()
    except KeyError as missing:
        raise ValueError(f"meminfo has no line {missing}") from missing
    if memory.total <= 0:
        raise ValueError(f"meminfo says MemTotal is {memory.total}")
    return Memory(
        total_bytes=memory.total,
        available_bytes=memory.available,
        free_bytes=memory.free,
        cached_bytes=memory.cached,
    )


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
