"""Clocks, and the events that hold them down."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.fields import Field
from exporter.frozen import dataclass
from exporter.gpu.bounds import MAX_CLOCK_MEGAHERTZ, MAX_PSTATE, count, within
from exporter.metric import Kind, Metric, MetricVec, Row
from exporter.sampling import Device, FieldRequest, Reader, Tier

# nvmlClockType_t. Graphics and video hardly ever tell more than the SM clock: slow tier.
FAST_DOMAINS = {"sm": 1, "memory": 2}
SLOW_DOMAINS = {"graphics": 0, "video": 3}

# nvmlClocksEventReason* bits.
REASONS = {
    "gpu_idle": 0x1,
    "applications_clocks_setting": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
    "display_clock_setting": 0x100,
    "board_limit": 0x200,
    "reliability": 0x400,
}
# Counters in nanoseconds. "thermal" is the driver's older sum over both thermal slowdowns.
REASON_TIMES = {
    "sw_power_cap": Field.TIME_SW_POWER_CAP,
    "thermal": Field.TIME_THERMAL,
    "sync_boost": Field.TIME_SYNC_BOOST,
    "board_limit": Field.TIME_BOARD_LIMIT,
    "low_utilization": Field.TIME_LOW_UTILIZATION,
    "reliability": Field.TIME_RELIABILITY,
    "sw_thermal_slowdown": Field.TIME_SW_THERMAL,
    "hw_thermal_slowdown": Field.TIME_HW_THERMAL,
    "hw_power_brake_slowdown": Field.TIME_HW_POWER_BRAKE,
}


_Values = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Clocks:
    """Clocks in hertz by domain, active event reasons, and their seconds."""

    hertz: _Values
    active: _Values
    seconds: _Values


def read(device: Device, previous: Clocks | None) -> Clocks:
    """Read SM and memory clocks, and event reasons (535; before: throttle reasons)."""
    before = previous or Clocks({}, {}, {})
    bits = device.ask("nvmlDeviceGetCurrentClocksEventReasons")
    if bits is None:
        bits = device.ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    active = {} if bits is None else {r: int(bits & bit != 0) for r, bit in REASONS.items()}
    seconds = {reason: _seconds(device.field(f)) for reason, f in REASON_TIMES.items()}
    return Clocks(
        hertz=_shared(_hertz(device, "nvmlDeviceGetClockInfo", FAST_DOMAINS), before.hertz),
        active=_shared(active, before.active),
        seconds=_shared(seconds, before.seconds),
    )


@dataclass(frozen=True, slots=True)
class SlowClocks:
    """What is read now and then: the P-state, and clocks in hertz of the other domains."""

    hertz: _Values
    performance_state: int | None


def read_slow(device: Device, _previous: SlowClocks | None) -> SlowClocks:
    """Read graphics and video clocks, and the P-state: clocks and reasons tell of it sooner."""
    return SlowClocks(
        _hertz(device, "nvmlDeviceGetClockInfo", SLOW_DOMAINS),
        within(device.ask("nvmlDeviceGetPerformanceState"), 0, MAX_PSTATE),  # 32: unknown
    )


@dataclass(frozen=True, slots=True)
class MaxClocks:
    """Highest clocks in hertz, by domain."""

    hertz: _Values


def read_max(device: Device, _previous: MaxClocks | None) -> MaxClocks:
    """Read nvmlDeviceGetMaxClockInfo of every domain."""
    return MaxClocks(_hertz(device, "nvmlDeviceGetMaxClockInfo", FAST_DOMAINS | SLOW_DOMAINS))


@dataclass(frozen=True, slots=True)
class AllClocks:
    """Clocks in hertz of both tiers, by domain."""

    fast: Clocks | None
    slow: SlowClocks | None

    @property
    def hertz(self) -> _Values:
        """One mapping of both tiers."""
        return {**(self.fast.hertz if self.fast else {}), **(self.slow.hertz if self.slow else {})}


def _hertz(device: Device, call: str, domains: Mapping[str, int]) -> dict[str, float | None]:
    megahertz = {
        domain: within(device.ask(call, number), 0, MAX_CLOCK_MEGAHERTZ)
        for domain, number in domains.items()
    }
    return {domain: None if mhz is None else mhz * 1e6 for domain, mhz in megahertz.items()}


def _shared(now: _Values, before: _Values) -> _Values:
    """Return the mapping of before if it says the same: two minutes of them are kept."""
    return before if before == now else now


def _seconds(nanoseconds: float | None) -> float | None:
    known = count(nanoseconds)
    return None if known is None else known / 1e9


READER = Reader(
    "clocks", "clocks", Tier.FAST, read, tuple(FieldRequest(f) for f in REASON_TIMES.values())
)
SLOW_READER = Reader("slow_clocks", "clocks", Tier.SLOW, read_slow)
MAX_READER = Reader("max_clocks", "clocks", Tier.STATIC, read_max)

METRICS: tuple[Row[Clocks], ...] = (
    MetricVec(
        "gpu_clock_event_active",
        "1 while this reason holds the clocks down.",
        ("reason",),
        lambda c: c.active,
    ),
    MetricVec(
        "gpu_clock_event_seconds_total",
        "Time that this reason has held the clocks down, since the driver was loaded.",
        ("reason",),
        lambda c: c.seconds,
        Kind.COUNTER,
    ),
)
SLOW_METRICS: tuple[Row[SlowClocks], ...] = (
    Metric(
        "gpu_performance_state",
        "Performance state: 0 is the fastest, 15 the slowest.",
        lambda c: c.performance_state,
    ),
)
ALL_METRICS: tuple[Row[AllClocks], ...] = (
    MetricVec("gpu_clock_hertz", "Current clock, by domain.", ("domain",), lambda c: c.hertz),
)
MAX_METRICS: tuple[Row[MaxClocks], ...] = (
    MetricVec(
        "gpu_clock_max_hertz",
        "Highest clock that the GPU can run at, by domain.",
        ("domain",),
        lambda c: c.hertz,
    ),
)
