"""The columns of the table of GPUs: which reading, on which axis, beside which limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from exporter.frozen import dataclass
from exporter.statuspage import spark, units
from exporter.statuspage.spark import Scale
from exporter.statuspage.view import GpuStatus, Status

SHARE = Scale(0.0, 1.0)
COOL_CELSIUS, WARM_CELSIUS, MARGIN_CELSIUS = 20.0, 80.0, 5.0
LEAST_WATTS, LEAST_RATE = 50.0, 1e9
HEADROOM = 1.05


@dataclass(frozen=True, slots=True)
class Column:
    """A reading as a column: one axis for all GPUs, so that rows can be compared.

    Attributes:
        name: Its head.
        legend: What stands below that.
        readings: In a GPU's history: one is drawn as a band, two as lines.
        scale: The axis.
        form: How its numbers are written.
        note: What a GPU's number is to be seen beside; "" for nothing.
        limit: Where a GPU itself has a limit.
        metric: What a rule on it compares; "" where none can.
        lines: Thresholds of rules.
    """

    name: str
    legend: str
    readings: tuple[str, ...]
    scale: Scale
    form: Callable[[float | None], str]
    note: Callable[[GpuStatus], str] = lambda _: ""
    limit: Callable[[GpuStatus], float | None] = lambda _: None
    metric: str = ""
    lines: tuple[float, ...] = ()

    @property
    def clip(self) -> str:
        """Name of the part of the graph beyond the lowest threshold."""
        return f"over-{self.name}"


def columns(status: Status) -> tuple[Column, ...]:
    """Return the columns; that of NVLink only where a GPU has it."""
    several = (
        _utilization(status),
        _memory(status),
        _temperature(status),
        _power(status),
        _link(status, "PCIe", "pcie"),
    )
    if all(gpu.nvlink_transmit_bytes_per_second is None for gpu in status.gpus):
        return several
    return (*several, _link(status, "NVLink", "nvlink"))


def thresholds(status: Status, metric: str) -> tuple[float, ...]:
    """Return where rules have their thresholds for a metric."""
    found = {rule.threshold for rule in status.rules if rule.metric == metric}
    return tuple(sorted(line for line in found if line is not None))


def share(name: str, reading: str, lines: tuple[float, ...]) -> Column:
    """Return the column of a share, from 0 to 100 %."""
    marks = ", ".join(units.percent(line) for line in lines)
    legend = f"0–100 %, line: {marks}" if lines else "0–100 %"
    return Column(name, legend, (reading,), SHARE, units.percent, lines=lines)


def _utilization(status: Status) -> Column:
    metric = "gpu_utilization_ratio"
    return replace(
        share("Utilization", "utilization_ratio", thresholds(status, metric)),
        metric=metric,
        note=lambda gpu: _known(gpu.sm_clock_hertz, "", units.hertz),
    )


def _memory(status: Status) -> Column:
    metric = "gpu_memory_used_ratio"
    return replace(
        share("VRAM", "memory_used_ratio", thresholds(status, metric)),
        metric=metric,
        note=lambda gpu: units.of_total(gpu.memory_used_bytes, gpu.memory_total_bytes),
    )


def _temperature(status: Status) -> Column:
    slowdowns = [gpu.temperature_slowdown_celsius or 0.0 for gpu in status.gpus]
    hottest = max([WARM_CELSIUS, *slowdowns, _highest(status.gpus, "temperature_celsius")])
    scale = Scale(COOL_CELSIUS, hottest + MARGIN_CELSIUS)
    legend = f"{scale.low:.0f}–{scale.high:.0f} °C"
    return Column(
        name="Temperature",
        legend=f"{legend}, line: slowdown" if any(slowdowns) else legend,
        readings=("temperature_celsius",),
        scale=scale,
        form=units.celsius,
        note=lambda gpu: _known(gpu.memory_temperature_celsius, "memory ", units.celsius),
        limit=lambda gpu: gpu.temperature_slowdown_celsius,
        metric="gpu_temperature_celsius",
        lines=thresholds(status, "gpu_temperature_celsius"),
    )


def _power(status: Status) -> Column:
    limits = [gpu.power_limit_watts or 0.0 for gpu in status.gpus]
    most = max([LEAST_WATTS, *limits, _highest(status.gpus, "power_watts")])
    legend = f"0–{HEADROOM * most:.0f} W"
    return Column(
        name="Power",
        legend=f"{legend}, line: limit" if any(limits) else legend,
        readings=("power_watts",),
        scale=Scale(0.0, HEADROOM * most),
        form=units.watts,
        note=lambda gpu: _known(gpu.power_limit_watts, "of ", units.watts),
        limit=lambda gpu: gpu.power_limit_watts,
        metric="gpu_power_watts",
        lines=thresholds(status, "gpu_power_watts"),
    )


def _link(status: Status, name: str, kind: str) -> Column:
    transmit = f"{kind}_transmit_bytes_per_second"
    receive = f"{kind}_receive_bytes_per_second"
    top = max(LEAST_RATE, *(_highest(status.gpus, reading) for reading in (transmit, receive)))
    return Column(
        name=name,
        legend=f"0–{units.rate(top)}: out, dashed in",
        readings=(transmit, receive),
        scale=Scale(0.0, top),
        form=units.rate,
        note=lambda gpu: _known(getattr(gpu, receive), "in ", units.rate),
    )


def _known(value: float | None, before: str, form: Callable[[float | None], str]) -> str:
    return "" if value is None else f"{before}{form(value)}"


def _highest(gpus: Sequence[GpuStatus], reading: str) -> float:
    found = spark.extremes(gpu.history.get(reading) for gpu in gpus)
    return found[1] if found else 0.0
