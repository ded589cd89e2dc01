"""One plot of a picture: a metric of every GPU over time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from exporter.frozen import dataclass
from exporter.recorder import axis
from exporter.recorder.model import Series
from exporter.recorder.summary import Summary, series_of
from exporter.recorder.svg import LEFT, PLOT, RIGHT, Layout, look, path, text
from exporter.recorder.traces import Trace

LIMIT = re.compile(r"(\w+) [<>]= ([0-9.e+-]+)")  # in a rule's reason
MEMORY_LIMIT = 80.0
LABEL_HEIGHT = 18


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: a metric, and what its numbers are multiplied with to be of this unit.

    The axis goes from `low` to `high`, or around what there is where they are None; it spans
    `least` or more.
    """

    title: str
    metric: str
    unit: str
    factor: float
    low: float | None
    high: float | None
    least: float


PANELS = (
    Panel("GPU utilization", "gpu_utilization_ratio", "%", 100, 0, 100, 100),
    Panel("GPU memory used", "gpu_memory_used_ratio", "%", 100, 0, 100, 100),
    Panel("Temperature", "gpu_temperature_celsius", "°C", 1, None, None, 10),
    Panel("Power", "gpu_power_watts", "W", 1, 0, None, 50),
)


def draw_panel(
    layout: Layout, number: int, panel: Panel, lines: Mapping[Series, Trace]
) -> Iterator[str]:
    """Yield the elements of a plot."""
    top, summary = layout.plot_top(number), layout.summary
    low, high = _range(panel, summary)
    per_unit = PLOT / (high - low)
    yield text(LEFT, top - 8, f"{panel.title}, {panel.unit}", "strong panel")
    for value in axis.ticks(low, high, 5):
        y = top + (high - value) * per_unit
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>'
        yield text(LEFT - 8, y + 4, f"{value:.10g}", "end")
    yield f'<rect class="frame" x="{LEFT}" y="{top}" width="{RIGHT - LEFT}" height="{PLOT}"/>'
    drawn = False
    for position, gpu in enumerate(summary.gpus):
        trace = lines.get(series_of(panel.metric, gpu.gpu, gpu.uuid))
        if trace is not None:
            drawn = True
            runs = (
                [
                    (LEFT + x, top + (high - min(max(value * panel.factor, low), high)) * per_unit)
                    for x, value in run
                ]
                for run in trace.runs
            )
            yield f'<path class="trace" {look(position)} d="{"".join(map(path, runs))}"/>'
    if not drawn:
        yield text((LEFT + RIGHT) / 2, top + PLOT / 2, "no readings", "mid")
    for limit, name in _limits(summary, panel).items():
        if low <= limit <= high:
            y = top + (high - limit) * per_unit
            yield f'<path class="limit" d="M{LEFT} {y:.1f}H{RIGHT}"/>'
            yield text(LEFT + 6, y - 4 if y - top > LABEL_HEIGHT else y + 13, name, "limits halo")


def _range(panel: Panel, summary: Summary) -> tuple[float, float]:
    ranges = [gpu.metrics[panel.metric] for gpu in summary.gpus if panel.metric in gpu.metrics]
    low = min((r.minimum * panel.factor for r in ranges), default=0.0)
    high = max((r.maximum * panel.factor for r in ranges), default=panel.least)
    return axis.around(
        low if panel.low is None else panel.low,
        high if panel.high is None else panel.high,
        panel.least,
    )


def _limits(summary: Summary, panel: Panel) -> dict[float, str]:
    """Return where rules have their thresholds, and the memory's usual one."""
    limits: dict[float, str] = {}
    if panel.metric == "gpu_memory_used_ratio":
        limits[MEMORY_LIMIT] = f"{MEMORY_LIMIT:g} %"
    for mark in summary.marks:
        for metric, number in LIMIT.findall(mark.reason):
            if metric == panel.metric:
                try:
                    limit = round(float(number) * panel.factor, 6)
                except ValueError:
                    continue
                limits[limit] = f"{limit:g} {panel.unit} {mark.rule}"
    return limits
