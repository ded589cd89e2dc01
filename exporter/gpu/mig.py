"""MIG devices: profile, memory, and what their GPU instance does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from exporter.frozen import dataclass
from exporter.gpu import memory, profiling
from exporter.gpu.memory import Memory
from exporter.gpu.profiling import Profiling
from exporter.metric import Kind, MetricVec, Row
from exporter.sampling import Device, MigDevice, Reader, Tier

ENABLED = 1  # nvmlDeviceGetMigMode
IN_NAME = " MIG "  # "NVIDIA A100-SXM4-40GB MIG 1g.5gb"


@dataclass(frozen=True, slots=True)
class Instance:
    """A MIG device: a compute instance, in the GPU instance whose memory and activity it shows.

    Compute instances that share a GPU instance show the same.
    """

    gpu_instance: int
    compute_instance: int
    profile: str
    memory: Memory
    activity: Profiling


@dataclass(frozen=True, slots=True)
class Mig:
    """The MIG devices of a GPU, by UUID."""

    instances: Mapping[str, Instance]


NOTHING = Mig(MappingProxyType({}))  # the same each time, so that no page is made anew for it


def read(device: Device, previous: Mig | None) -> Mig:
    """Read nvmlDeviceGetMigMode, and each MIG device that is there now.

    One that changes or goes while it is read is left out, and so is the activity of one that was
    not there at the reading before.
    """
    mode = device.ask("nvmlDeviceGetMigMode")
    if mode is None or mode[0] != ENABLED:
        return NOTHING
    known = previous.instances if previous else {}
    activities: dict[int, Profiling] = {}
    instances = {}
    for part in device.mig_devices():
        uuid = part.ask("nvmlDeviceGetUUID")
        numbers = _numbers(part)
        if not uuid or numbers is None:
            continue
        name, used = part.ask("nvmlDeviceGetName"), memory.of(part)
        if numbers[0] not in activities:
            activities[numbers[0]] = profiling.of(device.mig_gpm(numbers[0], profiling.ALL))
        if part.ask("nvmlDeviceGetUUID") != uuid:  # a handle may pass to another MIG device
            continue
        activity = activities[numbers[0]] if uuid in known else Profiling()
        instances[uuid] = Instance(*numbers, _profile(name), used, activity)
    return Mig(instances)


def _numbers(part: MigDevice) -> tuple[int, int] | None:
    """Return the ids of the GPU instance and of the compute instance in it."""
    gpu_instance = part.ask("nvmlDeviceGetGpuInstanceId")
    compute_instance = part.ask("nvmlDeviceGetComputeInstanceId")
    if gpu_instance is None or compute_instance is None:
        return None
    return gpu_instance, compute_instance


def _profile(name: str | None) -> str:
    """Return "1g.5gb" of a MIG device's name; "" where it does not say."""
    return (name or "").partition(IN_NAME)[2]


READER = Reader("mig", "mig", Tier.MIG, read)


def _each(value: Callable[[Instance], float | None]) -> Callable[[Mig], dict[str, float | None]]:
    """Return what gives a value of every MIG device, by UUID."""
    return lambda m: {uuid: value(instance) for uuid, instance in m.instances.items()}


def _pipes(m: Mig) -> dict[tuple[str, str], float | None]:
    return {
        (uuid, pipe): share
        for uuid, instance in m.instances.items()
        for pipe, share in instance.activity.pipes.items()
    }


UUID = ("mig_uuid",)
METRICS: tuple[Row[Mig], ...] = (
    MetricVec(
        "gpu_mig_info",
        "What the MIG device is; always 1. Join other series with it on mig_uuid.",
        ("mig_uuid", "gpu_instance", "compute_instance", "profile"),
        lambda m: {
            (uuid, str(i.gpu_instance), str(i.compute_instance), i.profile): 1
            for uuid, i in m.instances.items()
        },
        Kind.INFO,
    ),
    MetricVec(
        "gpu_mig_memory_total_bytes",
        "Memory of the MIG device's GPU instance.",
        UUID,
        _each(lambda i: i.memory.total_bytes),
    ),
    MetricVec(
        "gpu_mig_memory_used_bytes",
        "Memory of the GPU instance allocated.",
        UUID,
        _each(lambda i: i.memory.used_bytes),
    ),
    MetricVec(
        "gpu_mig_memory_free_bytes",
        "Memory of the GPU instance free.",
        UUID,
        _each(lambda i: i.memory.free_bytes),
    ),
    MetricVec(
        "gpu_mig_memory_reserved_bytes",
        "Memory of the GPU instance that the driver and firmware keep for themselves.",
        UUID,
        _each(lambda i: i.memory.reserved_bytes),
    ),
    MetricVec(
        "gpu_mig_memory_used_ratio",
        "Used share of the GPU instance's memory, 0 to 1.",
        UUID,
        _each(lambda i: i.memory.used_ratio),
    ),
    MetricVec(
        "gpu_mig_graphics_engine_active_ratio",
        "Share of time with work on the GPU instance since the reading before, 0 to 1 (Hopper and "
        "later, as all that follows).",
        UUID,
        _each(lambda i: i.activity.graphics_ratio),
    ),
    MetricVec(
        "gpu_mig_sm_active_ratio",
        "Mean share of the GPU instance's streaming multiprocessors that had work, 0 to 1.",
        UUID,
        _each(lambda i: i.activity.sm_ratio),
    ),
    MetricVec(
        "gpu_mig_sm_occupancy_ratio",
        "Mean share of the warps that these streaming multiprocessors can hold, 0 to 1.",
        UUID,
        _each(lambda i: i.activity.occupancy_ratio),
    ),
    MetricVec(
        "gpu_mig_tensor_active_ratio",
        "Share of time in which the GPU instance's tensor cores worked, 0 to 1.",
        UUID,
        _each(lambda i: i.activity.tensor_ratio),
    ),
    MetricVec(
        "gpu_mig_dram_active_ratio",
        "Share of the GPU instance's memory bandwidth that was used, 0 to 1.",
        UUID,
        _each(lambda i: i.activity.dram_ratio),
    ),
    MetricVec(
        "gpu_mig_pipe_active_ratio",
        "Share of time in which a pipe of the GPU instance worked, 0 to 1.",
        ("mig_uuid", "pipe"),
        _pipes,
    ),
)
