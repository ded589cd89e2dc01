"""Power draw, its limits, and energy."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.fields import Field
from exporter.frozen import dataclass
from exporter.gpu.bounds import MAX_MILLIWATTS, count, within
from exporter.metric import Kind, Metric, MetricVec, Row
from exporter.sampling import Device, FieldRequest, Reader, Tier


@dataclass(frozen=True, slots=True)
class Power:
    """Draw in watts (mean of the last second on Ampere and later), energy in joules."""

    draw_watts: float | None = None
    energy_joules: float | None = None


def read(device: Device, _previous: Power | None) -> Power:
    """Read nvmlDeviceGetPowerUsage (mW) and field 83 (mJ)."""
    energy = count(device.field(Field.ENERGY))
    return Power(
        draw_watts=_watts(device.ask("nvmlDeviceGetPowerUsage")),
        energy_joules=None if energy is None else energy / 1000,
    )


@dataclass(frozen=True, slots=True)
class PowerLimits:
    """Limits in watts, by kind."""

    watts: Mapping[str, float | None]


def read_limits(device: Device, _previous: PowerLimits | None) -> PowerLimits:
    """Read nvmlDeviceGetEnforcedPowerLimit, fields 187 to 190 or the calls before 525, 192 (mW)."""
    lowest = device.field(Field.POWER_LIMIT_MIN)
    highest = device.field(Field.POWER_LIMIT_MAX)
    if lowest is None or highest is None:
        lowest, highest = device.ask("nvmlDeviceGetPowerManagementLimitConstraints") or (None, None)
    default = device.field(Field.POWER_LIMIT_DEFAULT)
    if default is None:
        default = device.ask("nvmlDeviceGetPowerManagementDefaultLimit")
    current = device.field(Field.POWER_LIMIT_CURRENT)
    if current is None:
        current = device.ask("nvmlDeviceGetPowerManagementLimit")
    milliwatts = {
        "enforced": device.ask("nvmlDeviceGetEnforcedPowerLimit"),
        "current": current,
        "requested": device.field(Field.POWER_LIMIT_REQUESTED),
        "default": default,
        "min": lowest,
        "max": highest,
    }
    return PowerLimits({kind: _watts(value) for kind, value in milliwatts.items()})


def _watts(milliwatts: float | None) -> float | None:
    known = within(milliwatts, 0, MAX_MILLIWATTS)
    return None if known is None else known / 1000


READER = Reader("power", "power", Tier.FAST, read, (FieldRequest(Field.ENERGY),))
LIMITS_READER = Reader(
    "power_limits",
    "power",
    Tier.SLOW,
    read_limits,
    (
        FieldRequest(Field.POWER_LIMIT_MIN),
        FieldRequest(Field.POWER_LIMIT_MAX),
        FieldRequest(Field.POWER_LIMIT_DEFAULT),
        FieldRequest(Field.POWER_LIMIT_CURRENT),
        FieldRequest(Field.POWER_LIMIT_REQUESTED),
    ),
)

METRICS: tuple[Row[Power], ...] = (
    Metric(
        "gpu_power_watts",
        "Power drawn by the board; the mean of the last second on Ampere and later.",
        lambda p: p.draw_watts,
    ),
    Metric(
        "gpu_energy_joules_total",
        "Energy consumed since the driver was loaded.",
        lambda p: p.energy_joules,
        Kind.COUNTER,
    ),
)
LIMITS_METRICS: tuple[Row[PowerLimits], ...] = (
    MetricVec(
        "gpu_power_limit_watts",
        "Power limits: enforced (the lowest in force), current (set by anybody), requested (set on "
        "this host), default, min, max.",
        ("limit",),
        lambda p: p.watts,
    ),
)
