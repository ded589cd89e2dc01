"""What there is to say of a simulated GPU that does not change."""

from __future__ import annotations

from exporter.fields import Field
from exporter.frozen import dataclass


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
    """Steady core temperature at the default power limit, thresholds, and what there is of them.

    `tells_margin`: the board tells degrees left to its limit, too.
    """

    full_load_celsius: int
    shutdown_celsius: int | None = None
    slowdown_celsius: int | None = None
    memory_max_celsius: int | None = None
    gpu_max_celsius: int | None = None
    has_memory_sensor: bool = False
    tells_margin: bool = False
    fans: int | None = None


@dataclass(frozen=True, slots=True)
class NvLinks:
    """NVLinks of one GPU; bytes per second are those of one link and direction."""

    version: int
    count: int
    link_bytes_per_second: float


@dataclass(frozen=True, slots=True)
class MigSlice:
    """A MIG device: its GPU instance, and how many of the GPU's seven slices that has."""

    gpu_instance: int
    slices: int


@dataclass(frozen=True, slots=True)
class Board:
    """One GPU as its driver shows it. `refuses` holds what no other field says: calls, fields.

    `ecc` and `mig` are on or off, None where there is no such mode; `mig_slices` are its MIG
    devices. `row_banks`: memory banks with spare rows; boards before had pages that they retire.
    """

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
    brand: int = 14  # nvmlBrandType_t: NVIDIA
    part_number: str = ""
    inforom_version: str = ""
    ecc: bool | None = None
    row_banks: int | None = None
    retires_pages: bool = False
    mig: bool | None = None
    mig_slices: tuple[MigSlice, ...] = ()
    has_fabric: bool = False
    tells_fabric_health: bool = False
    has_platform: bool = False
    has_confidential: bool = False
    has_gsp: bool = True
    has_gpm: bool = False
    has_serial: bool = True
    drives_display: bool = False
    performance_state: int = 0
    refuses: frozenset[str | Field] = frozenset()
