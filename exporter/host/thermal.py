"""The kernel's thermal zones: CPU packages, boards, chipsets."""

from pathlib import Path

from exporter.frozen import dataclass
from exporter.host.procfs import SYS, names, text
from exporter.metric import MetricVec, Row

# No sensor: its driver answers a constant 20 °C ("faked temp sensor" in int3400_thermal.c).
NO_SENSOR = "INT3400 Thermal"
PREFIX = "thermal_zone"
# No sensor of a running node measures beyond these; firmware without a reading does.
COLDEST_CELSIUS, HOTTEST_CELSIUS = -50, 200


@dataclass(frozen=True, slots=True)
class Zone:
    """One thermal zone with a believable reading."""

    zone: str
    type: str
    celsius: float


@dataclass(frozen=True, slots=True)
class Thermal:
    """The zones that answered."""

    zones: tuple[Zone, ...]


def _celsius(millidegrees: int) -> float | None:
    """Return degrees, or None for an answer that is no reading.

    Exactly 0 is what firmware says that has none (acpitz often); a true 0.000 °C is lost with it.
    """
    celsius = millidegrees / 1000
    plausible = COLDEST_CELSIUS < celsius < HOTTEST_CELSIUS and celsius != 0
    return celsius if plausible else None


def _zone(thermal: Path, name: str) -> Zone | None:
    """Read one zone, or None where it has no reading."""
    try:
        zone_type = text(f"{thermal}/{name}/type").strip()
        celsius = _celsius(int(text(f"{thermal}/{name}/temp")))
    except (OSError, ValueError):
        # Asleep, off or gone (EAGAIN, ENODATA, EINVAL, ENOENT): this zone alone is absent.
        return None
    if celsius is None or zone_type == NO_SENSOR:
        return None
    return Zone(name.removeprefix(PREFIX), zone_type, celsius)


def read(sys: Path = SYS) -> Thermal:
    """Read /sys/class/thermal/thermal_zone*/{type,temp} (millidegrees Celsius).

    A kernel without thermal zones, as in most virtual machines, gives none. A read may wait for
    firmware: this group is for the slow tier.

    Raises:
        OSError: the zones cannot be listed.
    """
    thermal = sys / "class" / "thermal"
    zones = (_zone(thermal, name) for name in names(thermal) if name.startswith(PREFIX))
    return Thermal(tuple(zone for zone in zones if zone is not None))


METRICS: tuple[Row[Thermal], ...] = (
    MetricVec(
        "host_thermal_zone_celsius",
        "Temperature of a thermal zone of the kernel.",
        ("zone", "type"),
        lambda t: {(zone.zone, zone.type): zone.celsius for zone in t.zones},
    ),
)
