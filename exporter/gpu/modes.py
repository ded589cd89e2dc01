"""Modes that an administrator sets: persistence, compute, MIG."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.frozen import dataclass
from exporter.gpu.bounds import flag
from exporter.metric import Metric, MetricVec, Row
from exporter.sampling import Device, Reader, Tier

# nvmlComputeMode_t
COMPUTE_MODES = {0: "default", 1: "exclusive_thread", 2: "prohibited", 3: "exclusive_process"}


@dataclass(frozen=True, slots=True)
class PersistenceMode:
    """Whether the driver keeps the GPU ready while nothing uses it: 1 or 0."""

    enabled: int | None


def read_persistence(device: Device, _previous: PersistenceMode | None) -> PersistenceMode:
    """Read nvmlDeviceGetPersistenceMode."""
    return PersistenceMode(flag(device.ask("nvmlDeviceGetPersistenceMode")))


@dataclass(frozen=True, slots=True)
class ComputeMode:
    """Who may compute on the GPU: 1 for the mode in force, 0 for the others; empty if unknown."""

    active: Mapping[str, int]


def read_compute(device: Device, _previous: ComputeMode | None) -> ComputeMode:
    """Read nvmlDeviceGetComputeMode. A mode that is not listed gives no series."""
    number = device.ask("nvmlDeviceGetComputeMode")
    if number not in COMPUTE_MODES:
        return ComputeMode({})
    return ComputeMode({mode: int(number == n) for n, mode in COMPUTE_MODES.items()})


@dataclass(frozen=True, slots=True)
class MigMode:
    """Whether MIG is on now, and whether it will be after the next reset: 1 or 0."""

    enabled: Mapping[str, int | None]


def read_mig(device: Device, _previous: MigMode | None) -> MigMode:
    """Read nvmlDeviceGetMigMode; refused by boards without MIG."""
    current, pending = device.ask("nvmlDeviceGetMigMode") or (None, None)
    return MigMode({"current": flag(current), "pending": flag(pending)})


PERSISTENCE_READER = Reader("persistence_mode", "modes", Tier.SLOW, read_persistence)
COMPUTE_READER = Reader("compute_mode", "modes", Tier.SLOW, read_compute)
MIG_READER = Reader("mig_mode", "modes", Tier.SLOW, read_mig)

PERSISTENCE_METRICS: tuple[Row[PersistenceMode], ...] = (
    Metric(
        "gpu_persistence_mode",
        "1 if the driver keeps the GPU initialised while nothing uses it.",
        lambda m: m.enabled,
    ),
)
COMPUTE_METRICS: tuple[Row[ComputeMode], ...] = (
    MetricVec(
        "gpu_compute_mode",
        "Who may compute on the GPU: 1 for the mode in force, 0 for the others.",
        ("mode",),
        lambda m: m.active,
    ),
)
MIG_METRICS: tuple[Row[MigMode], ...] = (
    MetricVec(
        "gpu_mig_mode",
        "1 if MIG is on: current, and pending (from the next reset on).",
        ("kind",),
        lambda m: m.enabled,
    ),
)
