"""Step 3: what the GPUs are doing now, and what holds them back."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.doctor.facts import Facts, vram
from exporter.doctor.finding import Finding, Kind, Severity, Step, fine
from exporter.doctor.words import GIB, size
from exporter.processes_view import OnGpu
from exporter.procs import HostProcess
from exporter.snapshot import Gpu

STEP = Step.NOW
FULL_SHARE = 0.05  # of its memory free, or less
LOW_LIMIT_SHARE = 0.98  # of the default power limit
NEAR_SLOWDOWN_CELSIUS, NEAR_MEMORY_MAX_CELSIUS = 5, 3  # as the alerts have it
SHOWN_PROCESSES = 12
UNUSED_BYTES = 2 * GIB  # driver, display and MPS take less than this
HEAT = ("sw_thermal_slowdown", "hw_thermal_slowdown")

LOW_LIMIT = Kind(
    "power-limit-low",
    STEP,
    Severity.WARNING,
    "The power limit is below the board's default: the GPU is slower than it could be.",
    "If nobody meant it: nvidia-smi -pl DEFAULT_WATTS -i <GPU>. If nvidia-smi refuses, the BMC or "
    "the rack's power manager has set it.",
)
HOT = Kind(
    "gpu-hot",
    STEP,
    Severity.WARNING,
    "A temperature is close to where the GPU slows down.",
    "Look at fans, filters, the room's air, and whether blanking plates are in place.",
)
THROTTLED = Kind(
    "thermal-slowdown",
    STEP,
    Severity.WARNING,
    "Heat holds the clocks down now.",
    "Look at fans, filters, the room's air, and whether blanking plates are in place.",
)
BRAKED = Kind(
    "power-brake",
    STEP,
    Severity.ERROR,
    "The server or its power supply brakes the GPU: clocks are cut to a fraction.",
    "Look at the power supplies and cables, and at the BMC's log; the rack may be over its limit.",
)
SLOWED = Kind(
    "hw-slowdown",
    STEP,
    Severity.WARNING,
    "The hardware holds the clocks down, for heat or for power.",
    "nvidia-smi -q -d PERFORMANCE -i <GPU>; look at cooling, power cables and the BMC's log.",
)
CAPPED = Kind(
    "power-capped",
    STEP,
    Severity.NOTE,
    "The GPU draws all the power that it may; under full load that is as it should be.",
    "Nothing.",
)
LOCKED = Kind(
    "clocks-set",
    STEP,
    Severity.NOTE,
    "Somebody has set application clocks, which hold the GPU below what it could run at.",
    "Nothing, if that is meant; else nvidia-smi -rac -i <GPU> and nvidia-smi -rgc -i <GPU>.",
)
FULL = Kind(
    "vram-full",
    STEP,
    Severity.NOTE,
    "Nearly all VRAM is taken. Inference servers do so on purpose; another model does not fit.",
    "Nothing, if one server has it. Else see which processes are listed, or give vLLM a smaller "
    "--gpu-memory-utilization.",
)
ORPHANED = Kind(
    "vram-orphaned",
    STEP,
    Severity.WARNING,
    "VRAM is taken, but the driver lists no process: one that ended badly may still hold it.",
    "fuser -v /dev/nvidia* as root shows who has the GPU open. If nobody: nvidia-smi --gpu-reset "
    "-i <GPU>.",
)


def check(facts: Facts) -> Iterator[Finding]:
    """Look at memory, load, temperature, power and processes."""
    gpus = facts.gpus
    if gpus:
        yield fine(STEP, "now", _table(gpus))
    yield from _processes(facts)
    for kind, say in (
        (BRAKED, _braked),
        (SLOWED, _slowed),
        (THROTTLED, _throttled),
        (HOT, _hot),
        (LOW_LIMIT, _low_limit),
        (FULL, _full),
        (LOCKED, _locked),
        (CAPPED, _capped),
    ):
        yield from kind.each(gpus, say)
    if facts.machine.sees_all_processes:
        yield from ORPHANED.each(gpus, _orphaned)


KINDS = (LOW_LIMIT, HOT, THROTTLED, BRAKED, SLOWED, CAPPED, LOCKED, FULL, ORPHANED)


def _table(gpus: tuple[Gpu, ...]) -> str:
    """Return a line for each GPU under a head; a cell of what a board does not tell is "-"."""
    head = ("GPU", "VRAM used", "load", "core", "memory", "power", "limit", "procs")
    rows = [head, *(_row(gpu) for gpu in gpus)]
    wide = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ("  ".join(cell.rjust(w) for cell, w in zip(row, wide, strict=True)) for row in rows)
    return "\n".join(lines)


def _row(gpu: Gpu) -> tuple[str, ...]:
    used = gpu.memory.used_bytes if gpu.memory else None
    load = gpu.utilization.gpu_ratio if gpu.utilization else None
    core = gpu.temperature.core_celsius if gpu.temperature else None
    memory = gpu.temperature.memory_celsius if gpu.temperature else None
    limit = gpu.power_limits.watts.get("enforced") if gpu.power_limits else None
    return (
        str(gpu.index),
        "-" if used is None else f"{used / GIB:.1f} of {size(vram(gpu) or 0)}",
        "-" if load is None else f"{100 * load:.0f} %",
        _cell(core, "C"),
        _cell(memory, "C"),
        _cell(gpu.power.draw_watts if gpu.power else None, "W"),
        _cell(limit, "W"),
        _cell(gpu.processes.count if gpu.processes else None, "").rstrip(),
    )


def _cell(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.0f} {unit}"


def _processes(facts: Facts) -> Iterator[Finding]:
    view = facts.snapshot.processes
    if view is None:
        return
    hosts = {process.pid: process for process in view.on_host.processes}
    lines = [
        f"GPU {index}: {line}"
        for index, on_gpu in sorted(view.on_gpu.items())
        for line in _lines(on_gpu, hosts)
    ]
    if lines:
        rest = len(lines) - SHOWN_PROCESSES
        more = [f"and {rest} more"] if rest > 0 else []
        yield fine(STEP, "processes", "\n".join([*lines[:SHOWN_PROCESSES], *more]))


def _lines(on_gpu: OnGpu, hosts: dict[int, HostProcess]) -> Iterator[str]:
    for (pid, name), process in on_gpu.processes.items():
        host = hosts.get(int(pid))
        used = "" if process.used_bytes is None else f", {size(process.used_bytes)}"
        by = f", {host.workload}" if host else ""
        yield f"{name or 'a process'} (PID {pid}){used}{by}"


def _active(gpu: Gpu, reason: str) -> bool:
    return bool(gpu.clocks and gpu.clocks.active.get(reason))


def _braked(gpu: Gpu) -> str | None:
    return "the power brake is on" if _active(gpu, "hw_power_brake_slowdown") else None


def _slowed(gpu: Gpu) -> str | None:
    named = any(_active(gpu, reason) for reason in (*HEAT, "hw_power_brake_slowdown"))
    is_so = _active(gpu, "hw_slowdown") and not named
    return "hardware slowdown is on" if is_so else None


def _throttled(gpu: Gpu) -> str | None:
    reasons = [reason for reason in HEAT if _active(gpu, reason)]
    return f"held down by {', '.join(reasons)}" if reasons else None


def _hot(gpu: Gpu) -> str | None:
    if gpu.temperature is None or gpu.thresholds is None:
        return None
    limits = gpu.thresholds.celsius
    for what, celsius, limit, near in (
        ("core", gpu.temperature.core_celsius, limits.get("slowdown"), NEAR_SLOWDOWN_CELSIUS),
        (
            "memory",
            gpu.temperature.memory_celsius,
            limits.get("memory_max"),
            NEAR_MEMORY_MAX_CELSIUS,
        ),
    ):
        if celsius is not None and limit is not None and celsius > limit - near:
            return f"{what} at {celsius:.0f} C, slows down at {limit:.0f} C"
    margin = gpu.temperature_margin.celsius if gpu.temperature_margin else None
    if limits.get("slowdown") is None and margin is not None and margin < NEAR_SLOWDOWN_CELSIUS:
        return f"core {margin:.0f} C below its limit"
    return None


def _low_limit(gpu: Gpu) -> str | None:
    watts = gpu.power_limits.watts if gpu.power_limits else {}
    limit, default = watts.get("enforced"), watts.get("default")
    if limit is None or default is None or limit >= LOW_LIMIT_SHARE * default:
        return None
    return f"power limit {limit:.0f} W, default {default:.0f} W"


def _full(gpu: Gpu) -> str | None:
    total = vram(gpu)
    free = gpu.memory.free_bytes if gpu.memory else None
    if total is None or free is None or free > FULL_SHARE * total:
        return None
    return f"{size(free)} of VRAM are free"


def _locked(gpu: Gpu) -> str | None:
    return "application clocks are set" if _active(gpu, "applications_clocks_setting") else None


def _capped(gpu: Gpu) -> str | None:
    return "at the power limit" if _active(gpu, "sw_power_cap") else None


def _orphaned(gpu: Gpu) -> str | None:
    used = gpu.memory.used_bytes if gpu.memory else None
    listed = gpu.processes.count if gpu.processes else None
    # Who uses these is not always told.
    is_part = (gpu.mig and gpu.mig.instances) or (gpu.vgpu_license and gpu.vgpu_license.is_vgpu)
    if used is None or listed != 0 or used < UNUSED_BYTES or is_part:
        return None
    return f"{size(used)} of VRAM taken by no process"
