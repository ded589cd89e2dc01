"""Which processes use a GPU: their memory, and how busy each keeps it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from heapq import nsmallest
from types import MappingProxyType
from typing import Any

from exporter.frozen import dataclass
from exporter.gpu.bounds import MAX_BYTES, within
from exporter.metric import Metric, Row
from exporter.sampling import Device, ProcessSample, Reader, RunningProcess, Tier

KEPT = 100  # processes of one GPU that are told apart
FULL_PERCENT = 100  # some drivers answer with garbage above it
FRESH_MICROSECONDS = 2_000_000  # age of a sample that may still tell of the present

# By driver, the newer function and the one before 510. A process may be in several of the lists,
# with the same memory.
LISTS = (
    ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"),
    ("nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v2"),
    ("nvmlDeviceGetMPSComputeRunningProcesses_v3", "nvmlDeviceGetMPSComputeRunningProcesses_v2"),
)
# The newer one since 550.
SAMPLES = ("nvmlDeviceGetProcessesUtilizationInfo", "nvmlDeviceGetProcessUtilization")

Instance = tuple[int, int]  # of MIG: GPU instance, compute instance


@dataclass(frozen=True, slots=True)
class Activity:
    """How busy a process kept the GPU when the driver last sampled it: shares of time, 0 to 1.

    `engine_ratios` has the engines that it used at all.
    """

    sm_ratio: float
    memory_ratio: float
    engine_ratios: Mapping[str, float]


IDLE = Activity(0.0, 0.0, MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """One process on one GPU. `activity` is None where the driver does not sample it."""

    pid: int
    used_bytes: int | None
    activity: Activity | None
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes on one GPU.

    Attributes:
        count: How many the driver lists; None where it lists none on principle.
        heaviest: Those with most memory, most first, at most KEPT.
        rest_count: How many more there are, or have no PID that means anything here (0).
        rest_bytes: The memory of these, as far as it is known; None: it is not.
        rest_sm_ratio: The sum of their shares.
        cursor: The newest sample's time by the driver's clock, in microseconds; 0: none yet.
    """

    count: int | None = None
    heaviest: tuple[GpuProcess, ...] = ()
    rest_count: int = 0
    rest_bytes: int | None = 0
    rest_sm_ratio: float = 0.0
    cursor: int = 0


def read(device: Device, previous: Processes | None) -> Processes:
    """Read nvmlDeviceGet{Compute,Graphics,MPSCompute}RunningProcesses and the samples of each.

    nvmlDeviceGetProcessesUtilizationInfo (before 550: ProcessUtilization) tells of those that were
    not idle; it is not there while MIG is on.
    """
    lists = [answer for calls in LISTS if (answer := _ask(device, calls)) is not None]
    if not lists:
        return Processes()
    activities, cursor = _activities(device, previous)
    every = _joined(lists, activities)
    named = [process for process in every if process.pid > 0]
    heaviest = tuple(nsmallest(KEPT, named, key=_lightness))
    shown = {process.pid for process in heaviest}
    rest = [process for process in every if process.pid not in shown]
    return Processes(
        len(every),
        heaviest,
        len(rest),
        total_bytes(rest),
        sum(process.activity.sm_ratio for process in rest if process.activity),
        cursor,
    )


def total_bytes(processes: Iterable[GpuProcess]) -> int | None:
    """Return the memory of all of which it is known; None if there are some, but it is of none."""
    sizes = [process.used_bytes for process in processes]
    known = [size for size in sizes if size is not None]
    return sum(known) if known or not sizes else None


def _activities(
    device: Device, previous: Processes | None
) -> tuple[Mapping[int, Activity] | None, int]:
    """Return the activity of each PID that was not idle, None if it cannot be known; the cursor."""
    wall = int(time.time() * 1e6)
    cursor = previous.cursor if previous else 0
    if cursor > wall + FRESH_MICROSECONDS:  # the clock was set back: nothing would be newer
        previous, cursor = None, 0
    samples: list[ProcessSample] | None = _ask(device, SAMPLES, cursor)
    if samples is None:
        return None, cursor
    newest = max((sample.at_microseconds for sample in samples), default=cursor)
    if previous is None and samples:  # the buffer may hold what is long over
        samples = [s for s in samples if s.at_microseconds >= wall - FRESH_MICROSECONDS]
        if not samples:
            return None, newest
    return _by_pid(samples), newest


def _ask(device: Device, calls: tuple[str, str], *args: object) -> Any:  # noqa: ANN401  as ask
    newer, older = calls
    answer = device.ask(newer, *args)
    return device.ask(older, *args) if answer is None else answer


def _by_pid(samples: Sequence[ProcessSample]) -> Mapping[int, Activity]:
    """Return the mean of each PID's samples; there is mostly one."""
    sorted_by_pid: dict[int, list[ProcessSample]] = {}
    for sample in samples:
        if max(share or 0 for share in sample[2:]) <= FULL_PERCENT:
            sorted_by_pid.setdefault(sample.pid, []).append(sample)
    return {pid: _mean(of_pid) for pid, of_pid in sorted_by_pid.items()}


def _mean(samples: list[ProcessSample]) -> Activity:
    full = FULL_PERCENT * len(samples)
    engines = {
        "encoder": sum(sample.encoder for sample in samples),
        "decoder": sum(sample.decoder for sample in samples),
        "jpeg": sum(sample.jpeg or 0 for sample in samples),
        "ofa": sum(sample.ofa or 0 for sample in samples),
    }
    return Activity(
        sum(sample.sm for sample in samples) / full,
        sum(sample.memory for sample in samples) / full,
        {engine: percent / full for engine, percent in engines.items() if percent},
    )


def _joined(
    lists: list[list[RunningProcess]], activities: Mapping[int, Activity] | None
) -> list[GpuProcess]:
    """Return each process once; a PID of 0, which says nothing, as often as it comes."""
    nameless = [
        GpuProcess(0, within(process.used_bytes, 0, MAX_BYTES), None)
        for listed in lists
        for process in listed
        if process.pid == 0
    ]
    used: dict[int, dict[Instance | None, int | None]] = {}
    for listed in lists:
        for pid, listed_bytes, gpu_instance, compute_instance in listed:
            if pid == 0:
                continue
            used_bytes = within(listed_bytes, 0, MAX_BYTES)
            instance = None if gpu_instance is None else (gpu_instance, compute_instance or 0)
            of_pid = used.setdefault(pid, {})
            before = of_pid.get(instance)
            of_pid[instance] = before if used_bytes is None else max(before or 0, used_bytes)
    return nameless + [
        GpuProcess(
            pid,
            sum(known) if (known := [b for b in of_pid.values() if b is not None]) else None,
            None if activities is None else activities.get(pid, IDLE),
            tuple(instance for instance in of_pid if instance is not None),
        )
        for pid, of_pid in used.items()
    ]


def _lightness(process: GpuProcess) -> tuple[int, float, int]:
    busy = process.activity.sm_ratio if process.activity else 0.0
    return -(process.used_bytes or 0), -busy, process.pid


READER = Reader("processes", "processes", Tier.SLOW, read)

METRICS: tuple[Row[Processes], ...] = (
    Metric(
        "gpu_processes",
        "Processes that the driver lists on this GPU.",
        lambda p: p.count,
    ),
)
