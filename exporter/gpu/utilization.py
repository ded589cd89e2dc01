"""How busy a GPU and its engines are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporter.metric import Kind, Metric, MetricVec, Row
from exporter.sampling import Device, Reader, Tier

FULL_PERCENT = 100  # some drivers answer with garbage above it


@dataclass(frozen=True, slots=True)
class Utilization:
    """Busy shares (0 to 1) at `read_at`, and the integral of the first since the daemon started."""

    read_at: float
    gpu_ratio: float | None = None
    memory_ratio: float | None = None
    busy_seconds: float | None = None


def read(device: Device, previous: Utilization | None) -> Utilization:
    """Read nvmlDeviceGetUtilizationRates; not there while MIG is on.

    A hole in the readings adds nothing to the integral: a missing sample tells nothing.
    """
    now = device.now()
    rates = device.ask("nvmlDeviceGetUtilizationRates")
    gpu_ratio = None if rates is None else _ratio(rates.gpu)
    busy = previous.busy_seconds if previous else None
    if gpu_ratio is not None:
        elapsed = now - previous.read_at if previous else 0.0
        counted = elapsed if elapsed <= device.max_gap_seconds else 0.0
        busy = (busy or 0.0) + gpu_ratio * counted
    return Utilization(
        read_at=now,
        gpu_ratio=gpu_ratio,
        memory_ratio=None if rates is None else _ratio(rates.memory),
        busy_seconds=busy,
    )


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
    return percent / 100 if percent <= FULL_PERCENT else None


READER = Reader("utilization", "utilization", Tier.FAST, read)
ENGINES_READER = Reader("engines", "utilization", Tier.SLOW, read_engines)

METRICS: tuple[Row[Utilization], ...] = (
    Metric(
        "gpu_utilization_ratio",
        "Share of the last moments (1/6 s to 1 s by product) with a kernel running, 0 to 1.",
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
