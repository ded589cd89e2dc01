"""Frame buffer and BAR1 memory."""

from __future__ import annotations

from exporter.frozen import dataclass
from exporter.gpu.bounds import MAX_BYTES, within
from exporter.metric import Metric, Row
from exporter.sampling import Device, MigDevice, Reader, Tier

MEMORY_V2 = 0x2000028  # nvmlMemory_v2: sizeof 40, version 2


@dataclass(frozen=True, slots=True)
class Memory:
    """Frame buffer, in bytes. `used` does not include `reserved` where the driver parts them."""

    total_bytes: int | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None
    reserved_bytes: int | None = None

    @property
    def used_ratio(self) -> float | None:
        """Used share of the total, 0 to 1, as nvidia-smi shows it."""
        if self.total_bytes is None or self.used_bytes is None:
            return None
        return self.used_bytes / self.total_bytes


def read(device: Device, _previous: Memory | None) -> Memory:
    """Read nvmlDeviceGetMemoryInfo_v2, or the first version on drivers before 510.

    Some boards without memory of their own answer with a total of 0: absent.
    """
    return of(device)


def of(device: Device | MigDevice) -> Memory:
    """Read the memory of a GPU, or of a MIG device."""
    info = device.ask("nvmlDeviceGetMemoryInfo", MEMORY_V2)
    reserved = None if info is None else info.reserved
    if info is None:
        info = device.ask("nvmlDeviceGetMemoryInfo")
    total = None if info is None else within(info.total, 1, MAX_BYTES)
    if total is None or info.used > total:
        return Memory()
    return Memory(total, info.used, within(info.free, 0, total), within(reserved, 0, total))


@dataclass(frozen=True, slots=True)
class Bar1:
    """The window through which the CPU and other devices see GPU memory, in bytes."""

    total_bytes: int | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None


def read_bar1(device: Device, _previous: Bar1 | None) -> Bar1:
    """Read nvmlDeviceGetBAR1MemoryInfo."""
    info = device.ask("nvmlDeviceGetBAR1MemoryInfo")
    total = None if info is None else within(info.bar1Total, 1, MAX_BYTES)
    if total is None or info.bar1Used > total:
        return Bar1()
    return Bar1(total, info.bar1Used, within(info.bar1Free, 0, total))


READER = Reader("memory", "memory", Tier.FAST, read)
BAR1_READER = Reader("bar1", "memory", Tier.SLOW, read_bar1)

METRICS: tuple[Row[Memory], ...] = (
    Metric("gpu_memory_total_bytes", "GPU memory installed.", lambda m: m.total_bytes),
    Metric(
        "gpu_memory_used_bytes",
        "GPU memory allocated, without what the driver reserves (drivers before 510 include it).",
        lambda m: m.used_bytes,
    ),
    Metric("gpu_memory_free_bytes", "GPU memory free.", lambda m: m.free_bytes),
    Metric(
        "gpu_memory_reserved_bytes",
        "GPU memory that the driver and firmware keep for themselves.",
        lambda m: m.reserved_bytes,
    ),
    Metric(
        "gpu_memory_used_ratio",
        "Used share of the GPU's memory, 0 to 1, as nvidia-smi shows it.",
        lambda m: m.used_ratio,
    ),
)
BAR1_METRICS: tuple[Row[Bar1], ...] = (
    Metric("gpu_bar1_memory_total_bytes", "Size of the BAR1 window.", lambda b: b.total_bytes),
    Metric("gpu_bar1_memory_used_bytes", "BAR1 window mapped.", lambda b: b.used_bytes),
    Metric("gpu_bar1_memory_free_bytes", "BAR1 window free.", lambda b: b.free_bytes),
)
