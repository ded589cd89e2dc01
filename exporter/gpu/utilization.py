"""How busy a GPU and its engines are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from exporter.frozen import dataclass
from exporter.metric import Kind, Metric, MetricVec, Row
from exporter.sampling import Device, LoadSample, Reader, Tier

FULL_PERCENT = 100  # some drivers answer with garbage above it
MICROSECONDS = 1_000_000
LAG_MICROSECONDS = MICROSECONDS  # a buffer is not later than this from one poll to the next


@dataclass(frozen=True, slots=True)
class Utilization:
    """Busy shares (0 to 1) at `read_at`, and the integral of the first since the daemon started.

    Attributes:
        read_at: Monotonic seconds.
        gpu_ratio: The mean since the reading before, by the driver's samples; where there are
            none, that of its last moments.
        memory_ratio: Of its last moments.
        busy_seconds: The integral.
        due_microseconds: Of the time up to `read_at`, what nothing has spoken for yet.
    """

    read_at: float
    gpu_ratio: float | None = None
    memory_ratio: float | None = None
    busy_seconds: float | None = None
    due_microseconds: int = 0


def read(device: Device, previous: Utilization | None) -> Utilization:
    """Read nvmlDeviceGetUtilizationRates and nvmlDeviceGetSamples; neither while MIG is on."""
    seen = _rates(device)
    # Asked last: what it gave is not lost to a failure.
    return integrated(seen, previous, device.utilization_samples(), device.max_gap_seconds)


def read_rates(device: Device, previous: Utilization | None) -> Utilization:
    """Read nvmlDeviceGetUtilizationRates alone."""
    return integrated(_rates(device), previous, (), device.max_gap_seconds)


def integrated(
    seen: Utilization,
    previous: Utilization | None,
    samples: Sequence[LoadSample],
    max_gap_seconds: float,
) -> Utilization:
    """Return a reading with the time since the one before.

    Each moment is spoken for once: by samples, from the newest back, as far as they reach; by the
    reading itself, where there are none. A hole that samples do not fill adds nothing.

    Args:
        seen: The reading, as a driver without samples gives it.
        previous: The one before.
        samples: What the driver has buffered since; its clock need not be ours.
        max_gap_seconds: The longest time that a sample or a reading speaks for.
    """
    gap = round(max_gap_seconds * MICROSECONDS)
    most_lag = min(LAG_MICROSECONDS, gap // 3)
    elapsed, due, busy = 0, 0, None
    if previous is not None:
        elapsed = round((seen.read_at - previous.read_at) * MICROSECONDS)
        due, busy = previous.due_microseconds + elapsed, previous.busy_seconds
    is_hole = elapsed > gap or due > gap + most_lag
    weighted, spoken, passed = _heard(samples, due, gap)
    if spoken:
        ratio = weighted / (FULL_PERCENT * spoken)  # one rounding: 95 % is exactly 0.95
        left = due - passed
        lag = min(left, most_lag)
    elif seen.gpu_ratio is not None:
        ratio, left, lag = seen.gpu_ratio, due, 0
    else:
        return Utilization(seen.read_at, None, seen.memory_ratio, busy, due)
    bridged = 0 if is_hole else left - lag
    busy = (busy or 0.0) + ratio * (spoken + bridged) / MICROSECONDS
    return Utilization(seen.read_at, ratio, seen.memory_ratio, busy, lag)


def _heard(samples: Sequence[LoadSample], due: int, gap: int) -> tuple[float, int, int]:
    """Return what samples say of the last `due` microseconds.

    Percent times microseconds; microseconds that these are of; and those with what is garbage. Each
    sample speaks for the time since the one before it. Where timestamps do not rise, or leave a
    gap, all that is older stays out.
    """
    weighted: float = 0
    spoken = passed = 0
    for (at, percent), (before, _) in pairwise(reversed(samples)):
        span = min(at - before, due - passed)
        if span <= 0 or at - before > gap:
            break
        passed += span
        if percent is not None and 0 <= percent <= FULL_PERCENT:
            spoken += span
            weighted += percent * span
    return weighted, spoken, passed


def _rates(device: Device) -> Utilization:
    now = device.now()
    rates = device.ask("nvmlDeviceGetUtilizationRates")
    if rates is None:
        return Utilization(now)
    return Utilization(now, _ratio(rates.gpu), _ratio(rates.memory))


@dataclass(frozen=True, slots=True)
class Engines:
    """Busy shares (0 to 1) of the fixed-function engines, by name."""

    ratios: Mapping[str, float | None]


def read_engines(device: Device, _previous: Engines | None) -> Engines:
    """Read nvmlDeviceGet{Encoder,Decoder,Jpg,Ofa}Utilization: [percent, sampling period]."""
    return Engines(
        {
            engine: None if answer is None else _ratio(answer[0])
            for engine, answer in (
                ("encoder", device.ask("nvmlDeviceGetEncoderUtilization")),
                ("decoder", device.ask("nvmlDeviceGetDecoderUtilization")),
                ("jpeg", device.ask("nvmlDeviceGetJpgUtilization")),
                ("ofa", device.ask("nvmlDeviceGetOfaUtilization")),
            )
        }
    )


def _ratio(percent: int) -> float | None:
    return percent / FULL_PERCENT if percent <= FULL_PERCENT else None


READER = Reader("utilization", "utilization", Tier.FAST, read)
RATES_READER = replace(READER, read=read_rates)
ENGINES_READER = Reader("engines", "utilization", Tier.SLOW, read_engines)

METRICS: tuple[Row[Utilization], ...] = (
    Metric(
        "gpu_utilization_ratio",
        "Share of time with a kernel running, 0 to 1: since the poll before, where the driver"
        " samples it several times a second; else of the last moments (1/6 s to 1 s by product).",
        lambda u: u.gpu_ratio,
    ),
    Metric(
        "gpu_memory_activity_ratio",
        "Share of the last moments in which GPU memory was read or written, 0 to 1.",
        lambda u: u.memory_ratio,
    ),
    Metric(
        "gpu_busy_seconds_total",
        "Integral of gpu_utilization_ratio since the exporter started; its rate is the mean load.",
        lambda u: u.busy_seconds,
        Kind.COUNTER,
    ),
)
ENGINES_METRICS: tuple[Row[Engines], ...] = (
    MetricVec(
        "gpu_engine_utilization_ratio",
        "Share of time an engine was busy, 0 to 1: encoder, decoder, jpeg, ofa (optical flow).",
        ("engine",),
        lambda e: e.ratios,
    ),
)
