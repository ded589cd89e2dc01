"""How long the host's tasks wait for CPU, memory and I/O, and what the kernel kills for memory."""

from pathlib import Path

from exporter.frozen import dataclass
from exporter.host.procfs import PROC, number, text_or_empty
from exporter.metric import Kind, Metric, MetricVec, Row


@dataclass(frozen=True, slots=True)
class Stall:
    """Time since boot in which some, or all, tasks that could run waited for one resource.

    None where the kernel measures no such thing.
    """

    some_seconds: float | None
    full_seconds: float | None


@dataclass(frozen=True, slots=True)
class Pressure:
    """Pressure stall information of the whole node; `oom_kills` counts since boot."""

    cpu: Stall
    memory: Stall
    io: Stall
    oom_kills: int | None


def _stall(path: str) -> Stall:
    """Read one PSI file: a line each for `some` and `full`, ending in `total=<microseconds>`."""
    seconds: dict[str, float] = {}
    # Absent: a kernel built or booted without PSI. Refused: EOPNOTSUPP where it is switched off.
    for line in text_or_empty(path).splitlines():
        total = line.rpartition("total=")[2]
        if not total.isdecimal():
            raise ValueError(f"{path}: {line!r} does not end in total=<microseconds>")
        seconds[line.partition(" ")[0]] = int(total) / 1e6
    return Stall(seconds.get("some"), seconds.get("full"))


def read(proc: Path = PROC) -> Pressure:
    """Read /proc/pressure/{cpu,memory,io} (Linux 4.20) and oom_kill of /proc/vmstat (Linux 4.13).

    Raises:
        ValueError: a file is there, but not in the kernel's format.
    """
    return Pressure(
        cpu=_stall(f"{proc}/pressure/cpu"),
        memory=_stall(f"{proc}/pressure/memory"),
        io=_stall(f"{proc}/pressure/io"),
        oom_kills=number(text_or_empty(f"{proc}/vmstat"), "oom_kill "),
    )


def _stalled(pressure: Pressure) -> dict[tuple[str, ...], float | None]:
    return {
        ("cpu", "some"): pressure.cpu.some_seconds,
        ("memory", "some"): pressure.memory.some_seconds,
        ("memory", "full"): pressure.memory.full_seconds,
        ("io", "some"): pressure.io.some_seconds,
        ("io", "full"): pressure.io.full_seconds,
    }


METRICS: tuple[Row[Pressure], ...] = (
    MetricVec(
        "host_pressure_seconds_total",
        "Time since boot in which some, or all (full), tasks that could run waited for the"
        " resource. For the CPU the kernel defines only some.",
        ("resource", "kind"),
        _stalled,
        Kind.COUNTER,
    ),
    Metric(
        "host_oom_kills_total",
        "Processes killed for want of memory since boot, in cgroups too.",
        lambda p: p.oom_kills,
        Kind.COUNTER,
    ),
)
