"""What the host's CPUs spend their time on, and its load."""

import os
from dataclasses import replace

import psutil

from exporter.frozen import dataclass
from exporter.metric import Kind, MetricVec, Row

LARGE_STEP_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU time since boot, summed over all CPUs; the modes are disjoint and complete.

    Load is the mean number of tasks that run, wait to run, or wait in uninterruptible sleep.
    """

    user_seconds: float
    nice_seconds: float
    system_seconds: float
    idle_seconds: float
    iowait_seconds: float
    irq_seconds: float
    softirq_seconds: float
    steal_seconds: float
    load_1m: float
    load_5m: float
    load_15m: float


def read() -> Cpu:
    """Read the first line of /proc/stat through psutil, and /proc/loadavg through libc.

    Raises:
        OSError: one of them cannot be read.
        ValueError: /proc/stat is not in the kernel's format.
    """
    times = psutil.cpu_times()
    load_1m, load_5m, load_15m = os.getloadavg()
    return Cpu(
        user_seconds=times.user,
        nice_seconds=times.nice,
        system_seconds=times.system,
        idle_seconds=times.idle,
        iowait_seconds=times.iowait,
        irq_seconds=times.irq,
        softirq_seconds=times.softirq,
        steal_seconds=times.steal,
        load_1m=load_1m,
        load_5m=load_5m,
        load_15m=load_15m,
    )


def following(before: Cpu, after: Cpu) -> Cpu:
    """Return a reading that has not stepped back since the one before.

    The kernel sets idle and iowait back a little at times (proc_stat(5)), which a counter's reader
    would take for a restart and add up whole. A large step is a restart: a CPU went offline.
    """
    return replace(
        after,
        idle_seconds=_held(before.idle_seconds, after.idle_seconds),
        iowait_seconds=_held(before.iowait_seconds, after.iowait_seconds),
    )


def _held(before: float, after: float) -> float:
    return before if 0 < before - after < LARGE_STEP_SECONDS else after


METRICS: tuple[Row[Cpu], ...] = (
    MetricVec(
        "host_cpu_seconds_total",
        "CPU time since boot, all CPUs together. The time of virtual machines is part of user"
        " and nice.",
        ("mode",),
        lambda c: {
            "user": c.user_seconds,
            "nice": c.nice_seconds,
            "system": c.system_seconds,
            "idle": c.idle_seconds,
            "iowait": c.iowait_seconds,
            "irq": c.irq_seconds,
            "softirq": c.softirq_seconds,
            "steal": c.steal_seconds,
        },
        Kind.COUNTER,
    ),
    MetricVec(
        "host_load",
        "Load average: tasks that run, wait to run, or wait in uninterruptible sleep.",
        ("window",),
        lambda c: {"1m": c.load_1m, "5m": c.load_5m, "15m": c.load_15m},
    ),
)
