"""What a GPU does while it is busy: profiling counters (GPM), on Hopper and later.

They need neither root nor DCGM, and take no lock that a profiler would need. All of them come with
the one query of the tick, for the time since the tick before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from exporter.frozen import dataclass
from exporter.metric import Metric, MetricVec, Row
from exporter.sampling import Device, Reader, Tier

# nvmlGpmMetricId_t, in percent.
GRAPHICS, SM, OCCUPANCY, TENSOR, DRAM = 1, 2, 3, 5, 10
PIPES = {"integer": 4, "tensor_hmma": 7, "tensor_imma": 9, "fp64": 11, "fp32": 12, "fp16": 13}
ALL = (GRAPHICS, SM, OCCUPANCY, TENSOR, DRAM, *PIPES.values())

FULL_PERCENT = 100.0
SLACK_PERCENT = 1.0  # two counters are not read at the same instant


@dataclass(frozen=True, slots=True)
class Profiling:
    """Shares (0 to 1) of the time since the reading before."""

    graphics_ratio: float | None = None
    sm_ratio: float | None = None
    occupancy_ratio: float | None = None
    tensor_ratio: float | None = None
    dram_ratio: float | None = None
    pipes: Mapping[str, float | None] = field(default_factory=dict)


def read(device: Device, _previous: Profiling | None) -> Profiling:
    """Read nvmlGpmMetricsGet: metrics 1 to 5, 7 and 9 to 13."""
    return of(device.gpm())


def of(percents: Mapping[int, float]) -> Profiling:
    """Return the shares behind these metrics: all None where there are no such counters."""
    percent = percents.get
    return Profiling(
        graphics_ratio=ratio(percent(GRAPHICS)),
        sm_ratio=ratio(percent(SM)),
        occupancy_ratio=ratio(percent(OCCUPANCY)),
        tensor_ratio=ratio(percent(TENSOR)),
        dram_ratio=ratio(percent(DRAM)),
        pipes={pipe: ratio(percent(metric)) for pipe, metric in PIPES.items()},
    )


def ratio(percent: float | None) -> float | None:
    """Return a percentage as a share; None where it is none."""
    if percent is None or not 0 <= percent <= FULL_PERCENT + SLACK_PERCENT:
        return None
    return min(percent, FULL_PERCENT) / 100


READER = Reader("profiling", "profiling", Tier.FAST, read, gpm=ALL)

METRICS: tuple[Row[Profiling], ...] = (
    Metric(
        "gpu_graphics_engine_active_ratio",
        "Share of the last second with compute or graphics work on the GPU, 0 to 1 (Hopper and "
        "later).",
        lambda p: p.graphics_ratio,
    ),
    Metric(
        "gpu_sm_active_ratio",
        "Mean share of the streaming multiprocessors that had work in the last second, 0 to 1 "
        "(Hopper and later).",
        lambda p: p.sm_ratio,
    ),
    Metric(
        "gpu_sm_occupancy_ratio",
        "Mean share of the warps that the streaming multiprocessors can hold, 0 to 1 (Hopper and "
        "later).",
        lambda p: p.occupancy_ratio,
    ),
    Metric(
        "gpu_tensor_active_ratio",
        "Share of the last second in which the tensor cores worked, 0 to 1 (Hopper and later).",
        lambda p: p.tensor_ratio,
    ),
    Metric(
        "gpu_dram_active_ratio",
        "Share of the memory's bandwidth that was used in the last second, 0 to 1 (Hopper and "
        "later).",
        lambda p: p.dram_ratio,
    ),
    MetricVec(
        "gpu_pipe_active_ratio",
        "Share of the last second in which a pipe worked, 0 to 1: fp64, fp32, fp16, integer, "
        "tensor_hmma, tensor_imma (Hopper and later).",
        ("pipe",),
        lambda p: p.pipes,
    ),
)
