"""The NVLink fabric of an NVSwitch node: whether the GPU has joined it, and how it fares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from uuid import UUID

from exporter.frozen import dataclass
from exporter.metric import Kind, Metric, MetricVec, Row
from exporter.returns import error_name
from exporter.sampling import Device, Reader, Tier

COMPLETED = 3
# NVML_GPU_FABRIC_STATE_*; 0: not on a fabric. Numbers not listed are exported as they stand.
STATES = {1: "not_started", 2: "in_progress", COMPLETED: "completed"}
HEALTHY = 1
# NVML_GPU_FABRIC_HEALTH_SUMMARY_*; 0: the driver does not say.
HEALTHS = {HEALTHY: "healthy", 2: "unhealthy", 3: "limited_capacity"}
# NVML_GPU_FABRIC_HEALTH_MASK_*: shift, and the value that is the bad one. 0: it does not say.
CONDITIONS = {
    "degraded_bandwidth": (0, 1),
    "route_recovery": (2, 1),
    "route_unhealthy": (4, 1),
    "access_timeout_recovery": (6, 1),
    "partition_unassigned": (12, 2),
    "manager_disconnected": (14, 2),
}
CONDITION_BITS = 0b11
CONFIGURATION_SHIFT, CONFIGURATION_BITS, CONFIGURATION_OK = 8, 0b1111, 1
CONFIGURATIONS = {
    CONFIGURATION_OK: "ok",
    2: "incorrect_sysguid",
    3: "incorrect_chassis_serial",
    4: "no_partition",
    5: "insufficient_nvlinks",
    6: "incompatible_firmware",
    7: "invalid_location",
    8: "invalid_gpu_state",
}


@dataclass(frozen=True, slots=True)
class Fabric:
    """Registration, its words for gpu_fabric_info, and conditions (1: holds); flags are 1 or 0."""

    info: tuple[str, ...] | None = None
    registered: int | None = None
    healthy: int | None = None
    conditions: Mapping[str, int] = field(default_factory=dict)


def read(device: Device, _previous: Fabric | None) -> Fabric:
    """Read nvmlDeviceGetGpuFabricInfoV (550); empty for a GPU that is not on a fabric."""
    answer = device.ask("nvmlDeviceGetGpuFabricInfoV")
    if answer is None or answer.state == 0:
        return Fabric()
    state, mask, summary = answer.state, answer.healthMask, answer.healthSummary
    completed = state == COMPLETED
    configuration = mask >> CONFIGURATION_SHIFT & CONFIGURATION_BITS
    return Fabric(
        info=(
            STATES.get(state, str(state)),
            _status(answer.status) if completed else "",
            HEALTHS.get(summary, str(summary)) if summary else "",
            CONFIGURATIONS.get(configuration, str(configuration)) if configuration else "",
            str(answer.cliqueId) if completed else "",
            str(UUID(bytes=bytes(answer.clusterUuid))) if completed else "",
        ),
        registered=int(completed and answer.status == 0),
        healthy=int(summary == HEALTHY) if summary else None,
        conditions=_conditions(mask),
    )


def _status(code: int) -> str:
    return error_name(code) if code else "success"


def _conditions(mask: int) -> dict[str, int]:
    values = {name: mask >> shift & CONDITION_BITS for name, (shift, _) in CONDITIONS.items()}
    told = {name: int(value == CONDITIONS[name][1]) for name, value in values.items() if value}
    configuration = mask >> CONFIGURATION_SHIFT & CONFIGURATION_BITS
    if configuration:
        told["incorrect_configuration"] = int(configuration != CONFIGURATION_OK)
    return told


READER = Reader("fabric", "fabric", Tier.SLOW, read)

METRICS: tuple[Row[Fabric], ...] = (
    MetricVec(
        "gpu_fabric_info",
        "What the driver tells of the GPU's NVLink fabric; always 1. The status is NVML's word for "
        "how a completed registration went.",
        ("state", "status", "health", "configuration", "clique_id", "cluster_uuid"),
        lambda f: {} if f.info is None else {f.info: 1},
        Kind.INFO,
    ),
    Metric(
        "gpu_fabric_registered",
        "1 if the GPU has joined its NVLink fabric; 0: look at the fabric manager.",
        lambda f: f.registered,
    ),
    Metric(
        "gpu_fabric_healthy",
        "1 if the fabric is healthy for this GPU, 0 if unhealthy or of limited capacity.",
        lambda f: f.healthy,
    ),
    MetricVec(
        "gpu_fabric_condition",
        "1 while this condition holds on the GPU's fabric; each is a bad one.",
        ("condition",),
        lambda f: f.conditions,
    ),
)
