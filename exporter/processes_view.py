"""What the page shows of processes and workloads: the two halves joined, the largest alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field

from exporter.frozen import dataclass
from exporter.gpu.processes import Activity, GpuProcess
from exporter.metric import Kind, Metric, MetricVec, Row
from exporter.procs import HostProcess

PROCESS_LABELS = ("pid", "process")

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is shown: processes of one GPU, and workloads of the node."""

    processes_per_gpu: int = 20
    workloads: int = 100


@dataclass(frozen=True, slots=True)
class OnGpu:
    """The processes of one GPU that have series of their own, by PID and name.

    `left_out` others have none, with `left_out_bytes` of its memory; None: it is not known.
    """

    processes: Mapping[Labels, GpuProcess]
    left_out: int
    left_out_bytes: int | None


@dataclass(frozen=True, slots=True)
class OnHost:
    """The same processes on the host, each once; without those that we may not see."""

    processes: tuple[HostProcess, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """What a workload has had of all GPUs since it was first seen; None: it cannot be known."""

    gpu_seconds: float = 0.0
    busy_seconds: float | None = None
    energy_joules: float | None = None


@dataclass(frozen=True, slots=True)
class Workloads:
    """What each workload has now, and what it has had; some of these have ended lately."""

    processes: Mapping[str, int] = field(default_factory=dict)
    used_bytes: Mapping[str, int | None] = field(default_factory=dict)
    accounts: Mapping[str, Account] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProcessesView:
    """All of it; GPUs by their index."""

    on_gpu: Mapping[int, OnGpu]
    on_host: OnHost
    workloads: Workloads


def _engines(view: OnGpu) -> dict[Labels, float]:
    return {
        (*labels, engine): ratio
        for labels, process in view.processes.items()
        if process.activity
        for engine, ratio in process.activity.engine_ratios.items()
    }


def _active(part: Callable[[Activity], float]) -> Callable[[OnGpu], dict[Labels, float]]:
    return lambda view: {
        labels: part(process.activity)
        for labels, process in view.processes.items()
        if process.activity
    }


def _of_process(
    value: Callable[[HostProcess], float],
) -> Callable[[OnHost], dict[Labels, float]]:
    return lambda view: {(str(p.pid), p.name): value(p) for p in view.processes}


def _info(process: HostProcess) -> Labels:
    by = process.attribution
    return (
        str(process.pid),
        process.name,
        process.user,
        by.systemd_unit,
        by.container_id,
        by.pod_uid,
        by.slurm_job_id,
        process.workload,
    )


GPU_METRICS: tuple[Row[OnGpu], ...] = (
    Metric(
        "gpu_processes_left_out",
        "Processes on this GPU without series of their own: those with least memory.",
        lambda v: v.left_out,
    ),
    Metric(
        "gpu_processes_left_out_memory_used_bytes",
        "GPU memory of the processes that have no series of their own.",
        lambda v: v.left_out_bytes,
    ),
    MetricVec(
        "gpu_process_memory_used_bytes",
        "Memory of this GPU that the process has.",
        PROCESS_LABELS,
        lambda v: {labels: process.used_bytes for labels, process in v.processes.items()},
    ),
    MetricVec(
        "gpu_process_sm_utilization_ratio",
        "Share of time the process kept the GPU's multiprocessors busy, as the driver sampled it"
        " since the reading before, 0 to 1.",
        PROCESS_LABELS,
        _active(lambda a: a.sm_ratio),
    ),
    MetricVec(
        "gpu_process_memory_activity_ratio",
        "Share of time the process had GPU memory read or written, sampled alike, 0 to 1.",
        PROCESS_LABELS,
        _active(lambda a: a.memory_ratio),
    ),
    MetricVec(
        "gpu_process_engine_utilization_ratio",
        "Share of time the process kept an engine busy, 0 to 1: encoder, decoder, jpeg, ofa;"
        " only engines that it used.",
        (*PROCESS_LABELS, "engine"),
        _engines,
    ),
    MetricVec(
        "gpu_process_mig_info",
        "MIG instances that the process runs on, as the value 1.",
        (*PROCESS_LABELS, "gpu_instance", "compute_instance"),
        lambda v: {
            (*labels, *map(str, instance)): 1
            for labels, process in v.processes.items()
            for instance in process.instances
        },
        Kind.INFO,
    ),
)
HOST_METRICS: tuple[Row[OnHost], ...] = (
    MetricVec(
        "gpu_process_resident_memory_bytes",
        "Host memory (RSS) of a process that uses a GPU.",
        PROCESS_LABELS,
        _of_process(lambda p: p.resident_bytes),
    ),
    MetricVec(
        "gpu_process_cpu_seconds_total",
        "CPU time, user and system, of a process that uses a GPU, since it started.",
        PROCESS_LABELS,
        _of_process(lambda p: p.cpu_seconds),
        Kind.COUNTER,
    ),
    MetricVec(
        "gpu_process_start_time_seconds",
        "When a process that uses a GPU started, since the epoch.",
        PROCESS_LABELS,
        _of_process(lambda p: p.started_at_seconds),
    ),
    MetricVec(
        "gpu_process_info",
        "Who runs a process that uses a GPU, as the value 1.",
        (
            *PROCESS_LABELS,
            "user",
            "systemd_unit",
            "container_id",
            "pod_uid",
            "slurm_job_id",
            "workload",
        ),
        lambda v: {_info(process): 1 for process in v.processes},
        Kind.INFO,
    ),
)
WORKLOAD_METRICS: tuple[Row[Workloads], ...] = (
    MetricVec(
        "gpu_workload_processes",
        "Processes of a workload that use a GPU.",
        ("workload",),
        lambda w: w.processes,
    ),
    MetricVec(
        "gpu_workload_memory_used_bytes",
        "Memory of all GPUs that a workload has.",
        ("workload",),
        lambda w: w.used_bytes,
    ),
    MetricVec(
        "gpu_workload_gpu_seconds_total",
        "Time in which a workload had processes on a GPU, summed over the GPUs.",
        ("workload",),
        lambda w: {name: account.gpu_seconds for name, account in w.accounts.items()},
        Kind.COUNTER,
    ),
    MetricVec(
        "gpu_workload_busy_seconds_total",
        "A workload's part of gpu_busy_seconds_total, by its processes' SM utilization.",
        ("workload",),
        lambda w: {name: account.busy_seconds for name, account in w.accounts.items()},
        Kind.COUNTER,
    ),
    MetricVec(
        "gpu_workload_energy_joules_total",
        "A workload's part of gpu_energy_joules_total, by its processes' SM utilization.",
        ("workload",),
        lambda w: {name: account.energy_joules for name, account in w.accounts.items()},
        Kind.COUNTER,
    ),
)
