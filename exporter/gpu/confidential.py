"""Confidential computing. The driver has one state for all GPUs of the node."""

from __future__ import annotations

from exporter.frozen import dataclass
from exporter.gpu.bounds import MAX_BYTES, within
from exporter.metric import Metric, Row
from exporter.sampling import Device, Reader, Tier


@dataclass(frozen=True, slots=True)
class Confidential:
    """Whether it is on, whether work is accepted, and memory in bytes; flags are 1 or 0.

    What only has a meaning while it is on is None while it is off.
    """

    enabled: int | None = None
    ready: int | None = None
    devtools_enabled: int | None = None
    total_bytes: int | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None


def read(device: Device, _previous: Confidential | None) -> Confidential:
    """Read nvmlSystemGetConfComputeState (535) and, while it is on, readiness and memory."""
    state = device.ask("nvmlSystemGetConfComputeState")
    if state is None:
        return Confidential()
    if state.ccFeature == 0:
        return Confidential(enabled=0)
    ready = device.ask("nvmlSystemGetConfComputeGpusReadyState")
    memory = device.ask("nvmlDeviceGetConfComputeProtectedMemoryUsage")
    total = None if memory is None else within(memory.total, 1, MAX_BYTES)
    return Confidential(
        enabled=1,
        ready=None if ready is None else int(ready != 0),
        devtools_enabled=int(state.devToolsMode != 0),
        total_bytes=total,
        used_bytes=within(memory.used, 0, total) if total else None,
        free_bytes=within(memory.free, 0, total) if total else None,
    )


READER = Reader("confidential", "confidential", Tier.SLOW, read)

METRICS: tuple[Row[Confidential], ...] = (
    Metric(
        "gpu_confidential_compute_enabled",
        "1 if confidential computing is on.",
        lambda c: c.enabled,
    ),
    Metric(
        "gpu_confidential_compute_ready",
        "1 if the GPUs accept work; 0 until somebody has attested them and set them ready.",
        lambda c: c.ready,
    ),
    Metric(
        "gpu_confidential_compute_devtools_enabled",
        "1 if debuggers and profilers can look inside: nothing is confidential.",
        lambda c: c.devtools_enabled,
    ),
    Metric(
        "gpu_memory_protected_total_bytes",
        "GPU memory protected by confidential computing.",
        lambda c: c.total_bytes,
    ),
    Metric(
        "gpu_memory_protected_used_bytes",
        "Protected GPU memory allocated.",
        lambda c: c.used_bytes,
    ),
    Metric(
        "gpu_memory_protected_free_bytes",
        "Protected GPU memory free.",
        lambda c: c.free_bytes,
    ),
)
