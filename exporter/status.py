"""Metrics about the GPUs' health as seen by us, the driver, and the exporter itself."""

from __future__ import annotations

from exporter.frozen import dataclass
from exporter.metric import Kind, Metric, MetricVec, Row
from exporter.sampling import Fault
from exporter.snapshot import Process, Snapshot


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a GPU gives readings, and if not, why."""

    fault: Fault | None


# One for each: a page takes over what stands for the very objects of the page before.
HEALTHS = {fault: Health(fault) for fault in (None, *Fault)}

GPU_METRICS: tuple[Row[Health], ...] = (
    Metric(
        "gpu_up",
        "1 while the GPU answers; 0 when it is lost, hung or not permitted: see gpu_fault.",
        lambda h: int(h.fault is None),
    ),
    MetricVec(
        "gpu_fault",
        "1 for the reason why the GPU gives no readings, 0 for the others.",
        ("reason",),
        lambda h: {fault.value: int(fault is h.fault) for fault in Fault},
    ),
)

SNAPSHOT_METRICS: tuple[Row[Snapshot], ...] = (
    MetricVec(
        "gpu_driver_info",
        "Versions of the driver, of NVML, and the newest CUDA that the driver runs; always 1.",
        ("driver_version", "nvml_version", "cuda_version"),
        lambda s: (
            {(s.driver.driver_version, s.driver.nvml_version, s.driver.cuda_version): 1}
            if s.driver
            else {}
        ),
        Kind.INFO,
    ),
    MetricVec(
        "gpu_devices",
        "NVIDIA GPUs on the PCI bus, and in the driver's list.",
        ("source",),
        lambda s: {"pci": s.pci_gpus, "nvml": len(s.gpus) if s.driver else None},
    ),
    MetricVec(
        "gpu_exporter_build_info",
        "Version of the exporter, and whether its GPUs are simulated; always 1.",
        ("version", "python_version", "simulated"),
        lambda s: {
            (s.build.version, s.build.python_version, str(s.build.simulated).lower()): 1,
        },
        Kind.INFO,
    ),
    Metric(
        "gpu_exporter_nvml_up",
        "1 while NVML is loaded and initialised.",
        lambda s: int(s.driver is not None),
    ),
    Metric(
        "gpu_exporter_nvml_paused",
        "1 while NVML is let go of by order, so that the driver can be changed.",
        lambda s: int(s.nvml_pause is not None and s.nvml_pause.is_free),
    ),
    Metric(
        "gpu_exporter_nvml_pause_remaining_seconds",
        "Time until a pause of NVML ends by itself; 0 without one.",
        lambda s: s.nvml_pause.remaining_seconds if s.nvml_pause else 0.0,
    ),
    MetricVec(
        "gpu_exporter_sample_age_seconds",
        "Time since the GPU last gave readings.",
        ("gpu",),
        lambda s: {
            str(g.index): None if g.sampled_at is None else s.now - g.sampled_at for g in s.gpus
        },
    ),
    MetricVec(
        "gpu_exporter_read_duration_seconds",
        "Time that the last reading of the group took, over all GPUs.",
        ("group",),
        lambda s: s.read_seconds,
    ),
    MetricVec(
        "gpu_exporter_read_errors_total",
        "Readings that failed, by group and by the driver's word for the error.",
        ("group", "error"),
        lambda s: s.read_errors,
        Kind.COUNTER,
    ),
    MetricVec(
        "gpu_exporter_polls_total",
        "Polls by result: complete, partial (a GPU or group failed), skipped (the last was late).",
        ("result",),
        lambda s: s.polls,
        Kind.COUNTER,
    ),
    Metric(
        "gpu_exporter_config_last_reload_successful",
        "1 if the config that was last loaded was good.",
        lambda s: int(s.reload.successful),
    ),
    Metric(
        "gpu_exporter_config_last_reload_success_timestamp_seconds",
        "When a good config was last loaded, in seconds since the epoch.",
        lambda s: s.reload.success_timestamp_seconds,
    ),
)

PROCESS_METRICS: tuple[Row[Process], ...] = (
    Metric(
        "process_cpu_seconds_total",
        "User and system CPU time spent.",
        lambda p: p.values.get("process_cpu_seconds_total"),
        Kind.COUNTER,
    ),
    Metric(
        "process_resident_memory_bytes",
        "Resident memory size.",
        lambda p: p.values.get("process_resident_memory_bytes"),
    ),
    Metric(
        "process_virtual_memory_bytes",
        "Virtual memory size.",
        lambda p: p.values.get("process_virtual_memory_bytes"),
    ),
    Metric(
        "process_start_time_seconds",
        "Start of the process, in seconds since the epoch.",
        lambda p: p.values.get("process_start_time_seconds"),
    ),
    Metric(
        "process_open_fds",
        "Open file descriptors.",
        lambda p: p.values.get("process_open_fds"),
    ),
    Metric(
        "process_max_fds",
        "Most file descriptors that may be open.",
        lambda p: p.values.get("process_max_fds"),
    ),
)
