"""The boards that can be simulated, as data, and what each of them refuses.

Figures are those that nvidia-smi shows on such nodes. Thresholds of boards that only tell margins
are worked out from these.
"""

from __future__ import annotations

from exporter.fields import Field
from exporter.simulate.board import Board, Clocks, Cooling, Memory, NvLinks, Power

TURING, AMPERE, ADA, HOPPER, BLACKWELL = 6, 7, 8, 9, 10  # nvmlDeviceArchitecture_t

# Drivers from before 580 and 570, and a GPU while MIG is on.
_BEFORE_580: frozenset[str | Field] = frozenset({"nvmlDeviceGetRepairStatus"})
_BEFORE_570: frozenset[str | Field] = _BEFORE_580 | {
    "nvmlDeviceGetTemperatureV",
    Field.RECOVERY_ACTION,
}
MIG: frozenset[str | Field] = frozenset(
    {
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetSamples",
        "nvmlDeviceGetEncoderUtilization",
        "nvmlDeviceGetDecoderUtilization",
        "nvmlDeviceGetJpgUtilization",
        "nvmlDeviceGetOfaUtilization",
        "nvmlDeviceGetProcessesUtilizationInfo",
        "nvmlDeviceGetProcessUtilization",
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
        Field.POWER_LIMIT_REQUESTED,
    }
)

H100 = Board(
    name="NVIDIA H100 80GB HBM3",
    architecture=HOPPER,
    compute_capability=(9, 0),
    vbios_version="96.00.A5.00.01",
    memory=Memory(total_mib=81559, reserved_mib=479, bar1_mib=131072, bar1_static=True),
    power=Power(idle_watts=70, min_watts=200, default_watts=700, max_watts=700),
    clocks=Clocks(1980, 1545, 2619, sm_load_mhz=1980, memory_load_mhz=2619),
    cooling=Cooling(76, 95, 89, 95, 87, has_memory_sensor=True, tells_margin=True),
    pcie_generation=5,
    pcie_lanes=16,
    nvlinks=NvLinks(version=4, count=18, link_bytes_per_second=26.5625e9),
    has_gpm=True,
    part_number="692-2G520-0200-000",
    inforom_version="G520.0200.00.05",
    ecc=True,
    row_banks=2560,
    mig=False,
    has_fabric=True,
    has_confidential=True,
)
B200 = Board(
    name="NVIDIA B200",
    architecture=BLACKWELL,
    compute_capability=(10, 0),
    vbios_version="97.00.88.00.0F",
    memory=Memory(total_mib=183359, reserved_mib=729, bar1_mib=262144, bar1_static=True),
    power=Power(idle_watts=140, min_watts=200, default_watts=1000, max_watts=1000),
    clocks=Clocks(1965, 1965, 3996, sm_load_mhz=1965, memory_load_mhz=3996),
    cooling=Cooling(72, 93, 90, 105, 88, has_memory_sensor=True, tells_margin=True),
    pcie_generation=5,
    pcie_lanes=16,
    nvlinks=NvLinks(version=5, count=18, link_bytes_per_second=53.125e9),
    has_gpm=True,
    part_number="692-2G525-0220-001",
    inforom_version="G525.0220.00.03",
    ecc=True,
    row_banks=4096,
    mig=False,
    has_fabric=True,
    tells_fabric_health=True,
    has_platform=True,
    has_confidential=True,
)
A100 = Board(
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
    part_number="692-2G506-0210-002",
    inforom_version="G506.0210.00.04",
    ecc=True,
    row_banks=640,
    mig=False,
)
L40S = Board(
    name="NVIDIA L40S",
    architecture=ADA,
    compute_capability=(8, 9),
    vbios_version="95.02.66.00.02",
    memory=Memory(total_mib=46068, reserved_mib=610, bar1_mib=65536, bar1_static=True),
    power=Power(idle_watts=36, min_watts=100, default_watts=350, max_watts=350),
    clocks=Clocks(2520, 1965, 9001, sm_load_mhz=2520, memory_load_mhz=9001),
    cooling=Cooling(78, 93, 90, None, 88, tells_margin=True),
    pcie_generation=4,
    pcie_lanes=16,
    part_number="900-2G133-0080-000",
    inforom_version="G133.0242.00.03",
    ecc=True,
    row_banks=192,
    refuses=_BEFORE_580,
)
T4 = Board(
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
    refuses=_BEFORE_570 | {"nvmlDeviceGetProcessesUtilizationInfo"},  # and before 550
    part_number="900-2G183-0000-001",
    inforom_version="G183.0200.00.02",
    ecc=True,
    retires_pages=True,
    has_gsp=False,
)
RTX_4090 = Board(
    name="NVIDIA GeForce RTX 4090",
    architecture=ADA,
    compute_capability=(8, 9),
    vbios_version="95.02.3C.40.B8",
    memory=Memory(total_mib=24564, reserved_mib=450, bar1_mib=32768),
    power=Power(idle_watts=24, min_watts=150, default_watts=450, max_watts=600),
    clocks=Clocks(3105, 2415, 10501, sm_load_mhz=2745, memory_load_mhz=10251),
    cooling=Cooling(74, 97, 92, None, 90, tells_margin=True, fans=2),
    pcie_generation=4,
    pcie_lanes=16,
    has_serial=False,
    drives_display=True,
    performance_state=2,
    brand=5,  # GeForce
    inforom_version="G002.0000.00.03",
    ecc=False,  # it could, but is sold with it off
)
# The GPU of a DGX Spark: CPU and GPU share one memory, and no slot parts them.
GB10 = Board(
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
