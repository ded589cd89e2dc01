"""Temperatures, their thresholds, and fans."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.fields import Field
from exporter.frozen import dataclass
from exporter.gpu.bounds import MAX_FAN_PERCENT, MAX_FANS, within
from exporter.metric import Metric, MetricVec, Row
from exporter.sampling import Device, FieldRequest, Reader, Tier

CORE_SENSOR = 0  # NVML_TEMPERATURE_GPU
PLAUSIBLE_CELSIUS = range(-50, 200)
# nvmlTemperatureThresholds_t
THRESHOLDS = {"shutdown": 0, "slowdown": 1, "memory_max": 2, "gpu_max": 3}
MARGIN_THRESHOLDS = {
    "shutdown": Field.MARGIN_SHUTDOWN,
    "slowdown": Field.MARGIN_SLOWDOWN,
    "memory_max": Field.MARGIN_MEMORY_MAX,
    "gpu_max": Field.MARGIN_GPU_MAX,
}


@dataclass(frozen=True, slots=True)
class Temperature:
    """Sensors, in degrees Celsius."""

    core_celsius: float | None = None
    memory_celsius: float | None = None


def read(device: Device, _previous: Temperature | None) -> Temperature:
    """Read nvmlDeviceGetTemperatureV (before 570: nvmlDeviceGetTemperature) and field 82."""
    core = device.ask("nvmlDeviceGetTemperatureV", CORE_SENSOR)
    if core is None:
        core = device.ask("nvmlDeviceGetTemperature", CORE_SENSOR)
    memory = device.field(Field.MEMORY_TEMPERATURE)
    # A memory sensor that is not there reads 0 on some boards.
    return Temperature(_plausible(core), _plausible(memory) or None)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Temperatures at which the board acts, in degrees Celsius, by name."""

    celsius: Mapping[str, float | None]


def read_thresholds(device: Device, _previous: Thresholds | None) -> Thresholds:
    """Read nvmlDeviceGetTemperatureThreshold for each kind; a 0 means "not set"."""
    return Thresholds(
        {
            name: _plausible(device.ask("nvmlDeviceGetTemperatureThreshold", kind)) or None
            for name, kind in THRESHOLDS.items()
        }
    )


@dataclass(frozen=True, slots=True)
class Margin:
    """Degrees Celsius left until the limit ("T.Limit"); negative above it."""

    celsius: float | None


def read_margin(device: Device, _previous: Margin | None) -> Margin:
    """Read nvmlDeviceGetMarginTemperature (570, Ada and later)."""
    return Margin(_plausible(device.ask("nvmlDeviceGetMarginTemperature")))


@dataclass(frozen=True, slots=True)
class MarginThresholds:
    """Margins at which the board acts, in degrees Celsius (0, or negative), by name."""

    celsius: Mapping[str, float | None]


def read_margin_thresholds(device: Device, _previous: MarginThresholds | None) -> MarginThresholds:
    """Read fields 193 to 196 (525, Ada and later)."""
    return MarginThresholds(
        {name: _plausible(device.field(field)) for name, field in MARGIN_THRESHOLDS.items()}
    )


@dataclass(frozen=True, slots=True)
class Fans:
    """Intended speed as a share of the maximum, by fan number; may pass 1."""

    ratios: Mapping[str, float | None]


def read_fans(device: Device, _previous: Fans | None) -> Fans:
    """Read nvmlDeviceGetFanSpeed_v2 of each fan; passively cooled boards have none."""
    count = within(device.ask("nvmlDeviceGetNumFans"), 0, MAX_FANS) or 0
    percents = {
        str(fan): within(device.ask("nvmlDeviceGetFanSpeed_v2", fan), 0, MAX_FAN_PERCENT)
        for fan in range(count)
    }
    return Fans({fan: None if p is None else p / 100 for fan, p in percents.items()})


def _plausible(celsius: float | None) -> float | None:
    if celsius is None or not PLAUSIBLE_CELSIUS.start <= celsius < PLAUSIBLE_CELSIUS.stop:
        return None
    return celsius


READER = Reader(
    "temperature", "temperature", Tier.FAST, read, (FieldRequest(Field.MEMORY_TEMPERATURE),)
)
THRESHOLDS_READER = Reader("thresholds", "temperature", Tier.STATIC, read_thresholds)
MARGIN_READER = Reader("temperature_margin", "temperature", Tier.SLOW, read_margin)
MARGIN_THRESHOLDS_READER = Reader(
    "margin_thresholds",
    "temperature",
    Tier.STATIC,
    read_margin_thresholds,
    tuple(FieldRequest(field) for field in MARGIN_THRESHOLDS.values()),
)
FANS_READER = Reader("fans", "temperature", Tier.SLOW, read_fans)

METRICS: tuple[Row[Temperature], ...] = (
    Metric("gpu_temperature_celsius", "Temperature of the GPU's core.", lambda t: t.core_celsius),
    Metric(
        "gpu_memory_temperature_celsius",
        "Temperature of the GPU's memory (HBM boards).",
        lambda t: t.memory_celsius,
    ),
)
THRESHOLDS_METRICS: tuple[Row[Thresholds], ...] = (
    MetricVec(
        "gpu_temperature_threshold_celsius",
        "Temperature at which the GPU slows down or shuts down, by threshold.",
        ("threshold",),
        lambda t: t.celsius,
    ),
)
MARGIN_METRICS: tuple[Row[Margin], ...] = (
    Metric(
        "gpu_temperature_margin_celsius",
        "Degrees left until the GPU reaches its limit; negative above it (Ada and later).",
        lambda m: m.celsius,
    ),
)
MARGIN_THRESHOLDS_METRICS: tuple[Row[MarginThresholds], ...] = (
    MetricVec(
        "gpu_temperature_margin_threshold_celsius",
        "Margin at which the GPU slows down or shuts down, by threshold; most are negative.",
        ("threshold",),
        lambda m: m.celsius,
    ),
)
FANS_METRICS: tuple[Row[Fans], ...] = (
    MetricVec(
        "gpu_fan_speed_ratio",
        "Intended fan speed as a share of its maximum; may pass 1.",
        ("fan",),
        lambda f: f.ratios,
    ),
)
