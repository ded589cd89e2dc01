"""The nodes that can be simulated, as data: boards, drivers, and what each of them refuses.

Figures are those that nvidia-smi shows on such nodes. Thresholds of boards that only tell margins
are worked out from these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from exporter.fields import Field

TURING, AMPERE, ADA, HOPPER, BLACKWELL = 6, 7, 8, 9, 10  # nvmlDeviceArchitecture_t


@dataclass(frozen=True, slots=True)
class Memory:
    """Frame buffer and BAR1 window. `bar1_static`: the driver maps all allocations into BAR1."""

    total_mib: int
    reserved_mib: int
    bar1_mib: int
    bar1_static: bool = False


@dataclass(frozen=True, slots=True)
class Power:
    """Draw when nothing runs, and the limits. The default limit is the one in force."""

    idle_watts: int
    min_watts: int
    default_watts: int
    max_watts: int


@dataclass(frozen=True, slots=True)
class Clocks:
    """Highest clocks, and those that run under load; None where the driver does not tell."""

    sm_max_mhz: int
    video_max_mhz: int
    memory_max_mhz: int | None
    sm_load_mhz: int
    memory_load_mhz: int | None


@dataclass(frozen=True, slots=True)
class Cooling:
    """Steady core temperature at the default power limit, thresholds, and what there is of them."""

    full_load_celsius: int
    shutdown_celsius: int | None = None
    slowdown_celsius: int | None = None
    memory_max_celsius: int | None = None
    gpu_max_celsius: int | None = None
    has_memory_sensor: bool = False
    fans: int | None = None


@dataclass(frozen=True, slots=True)
class NvLinks:
    """NVLinks of one GPU; bytes per second are those of one link and direction."""

    version: int
    count: int
    link_bytes_per_second: float


@dataclass(frozen=True, slots=True)
class Board:
    """One GPU as its driver shows it. `refuses` holds what no other field says: calls, fields."""

    name: str
    architecture: int
    compute_capability: tuple[int, int]
    vbios_version: str
    memory: Memory | None
    power: Power
    clocks: Clocks
    cooling: Cooling
    pcie_generation: int
    pcie_lanes: int
    nvlinks: NvLinks | None = None
    has_gpm: bool = False
    has_serial: bool = True
    drives_display: bool = False
    performance_state: int = 0
    refuses: frozenset[str | Field] = frozenset()


@dataclass(frozen=True, slots=True)
class Profile:
    """A node: driver, GPUs in NVML's order, and their PCI addresses as NVML writes them."""

    driver_version: str
    nvml_version: str
    cuda_version: str
    boards: tuple[Board, ...]
    bus_ids: tuple[str, ...]


# A driver from before 570, and a GPU while MIG is on.
_BEFORE_570: frozenset[str | Field] = frozenset({"nvmlDeviceGetTemperatureV"})
_MIG: frozenset[str | Field] = frozenset(
    {
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetEncoderUtilization",
        "nvmlDeviceGetDecoderUtilization",
        "nvmlDeviceGetJpgUtilization",
        "nvmlDeviceGetOfaUtilization",
    }
)
_NO_POWER_LIMITS: frozenset[str | Field] = frozenset(
    {
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetPowerManagementLimit",
        "nvmlDeviceGetPowerManagementDefaultLimit",
        "nvmlDeviceGetPowerManagementLimitConstraints",
        Field.POWER_LIMIT_MIN,
        Field.POWER_LIMIT_MAX,
        Field.POWER_LIMIT_DEFAULT,
        Field.POWER_LIMIT_CURRENT,
    }
)

_H100 = Board(
    name="NVIDIA H100 80GB HBM3",
    architecture=HOPPER,
    compute_capability=(9, 0),
    vbios_version="96.00.A5.00.01",
    memory=Memory(total_mib=81559, reserved_mib=479, bar1_mib=131072, bar1_static=True),
    power=Power(idle_watts=70, min_watts=200, default_watts=700, max_watts=700),
    clocks=Clocks(1980, 1545, 2619, sm_load_mhz=1980, memory_load_mhz=2619),
    cooling=Cooling(76, 95, 89, 95, 87, has_memory_sensor=True),
    pcie_generation=5,
    pcie_lanes=16,
    nvlinks=NvLinks(version=4, count=18, link_bytes_per_second=26.5625e9),
    has_gpm=True,
)
_B200 = Board(
    name="NVIDIA B200",
    architecture=BLACKWELL,
    compute_capability=(10, 0),
    vbios_version="97.00.88.00.0F",
    memory=Memory(total_mib=183359, reserved_mib=729, bar1_mib=262144, bar1_static=True),
    power=Power(idle_watts=140, min_watts=200, default_watts=1000, max_watts=1000),
    clocks=Clocks(1965, 1965, 3996, sm_load_mhz=1965, memory_load_mhz=3996),
    cooling=Cooling(72, 93, 90, 105, 88, has_memory_sensor=True),
    pcie_generation=5,
    pcie_lanes=16,
    nvlinks=NvLinks(version=5, count=18, link_bytes_per_second=53.125e9),
    has_gpm=True,
)
_A100 = Board(
    name="NVIDIA A100-SXM4-80GB",
    architecture=AMPERE,
    compute_capability=(8, 0),
    vbios_version="92.00.45.00.03",
    memory=Memory(total_mib=81920, reserved_mib=666, bar1_mib=131072),
    power=Power(idle_watts=62, min_watts=100, default_watts=400, max_watts=400),
    clocks=Clocks(1410, 1290, 1593, sm_load_mhz=1410, memory_load_mhz=1593),
    cooling=Cooling(70, 92, 89, 95, 85, has_memory_sensor=True),
    pcie_generation=4,
    pcie_lanes=16,
    nvlinks=NvLinks(version=3, count=12, link_bytes_per_second=25e9),
    refuses=_BEFORE_570,
)
_L40S = Board(
    name="NVIDIA L40S",
    architecture=ADA,
    compute_capability=(8, 9),
    vbios_version="95.02.66.00.02",
    memory=Memory(total_mib=46068, reserved_mib=610, bar1_mib=65536, bar1_static=True),
    power=Power(idle_watts=36, min_watts=100, default_watts=350, max_watts=350),
    clocks=Clocks(2520, 1965, 9001, sm_load_mhz=2520, memory_load_mhz=9001),
    cooling=Cooling(78, 93, 90, None, 88),
    pcie_generation=4,
    pcie_lanes=16,
)
_T4 = Board(
    name="Tesla T4",
    architecture=TURING,
    compute_capability=(7, 5),
    vbios_version="90.04.38.00.03",
    memory=Memory(total_mib=15360, reserved_mib=442, bar1_mib=256),
    power=Power(idle_watts=10, min_watts=60, default_watts=70, max_watts=70),
    clocks=Clocks(1590, 1470, 5001, sm_load_mhz=1590, memory_load_mhz=5000),
    cooling=Cooling(87, 96, 93, None, 85),
    pcie_generation=3,
    pcie_lanes=16,
    refuses=_BEFORE_570,
)
_RTX_4090 = Board(
    name="NVIDIA GeForce RTX 4090",
    architecture=ADA,
    compute_capability=(8, 9),
    vbios_version="95.02.3C.40.B8",
    memory=Memory(total_mib=24564, reserved_mib=450, bar1_mib=32768),
    power=Power(idle_watts=24, min_watts=150, default_watts=450, max_watts=600),
    clocks=Clocks(3105, 2415, 10501, sm_load_mhz=2745, memory_load_mhz=10251),
    cooling=Cooling(74, 97, 92, None, 90, fans=2),
    pcie_generation=4,
    pcie_lanes=16,
    has_serial=False,
    drives_display=True,
    performance_state=2,
)
# The GPU of a DGX Spark: CPU and GPU share one memory, and no slot parts them.
_GB10 = Board(
    name="NVIDIA GB10",
    architecture=BLACKWELL,
    compute_capability=(12, 1),
    vbios_version="9A.0B.1A.00.00",
    memory=None,
    power=Power(idle_watts=5, min_watts=5, default_watts=90, max_watts=90),
    clocks=Clocks(3003, 3003, None, sm_load_mhz=2418, memory_load_mhz=None),
    cooling=Cooling(78),
    pcie_generation=1,
    pcie_lanes=1,
    has_serial=False,
    refuses=_NO_POWER_LIMITS | {"nvmlDeviceGetPcieThroughput"},
)

_BUSES = ("1B", "43", "52", "61", "9D", "C3", "D1", "DF")  # of a DGX H100
_BUS_IDS = tuple(f"00000000:{bus}:00.0" for bus in _BUSES)

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "h100x8": Profile("580.95.05", "13.580.95.05", "13.0", (_H100,) * 8, _BUS_IDS),
        "b200x8": Profile("590.48.01", "13.590.48.01", "13.1", (_B200,) * 8, _BUS_IDS),
        "a100-mig": Profile(
            "550.163.01",
            "12.550.163.01",
            "12.4",
            (replace(_A100, nvlinks=None, refuses=_A100.refuses | _MIG), _A100),
            _BUS_IDS[:2],
        ),
        "l40s": Profile("570.172.08", "12.570.172.08", "12.8", (_L40S,) * 4, _BUS_IDS[:4]),
        "t4": Profile("535.261.03", "12.535.261.03", "12.2", (_T4,), _BUS_IDS[:1]),
        "geforce": Profile(
            "590.48.01", "13.590.48.01", "13.1", (_RTX_4090,), ("00000000:01:00.0",)
        ),
        "gb10": Profile("580.95.05", "13.580.95.05", "13.0", (_GB10,), ("0000000F:01:00.0",)),
        "none": Profile("", "", "", (), ()),  # no driver on this machine
    }
)
