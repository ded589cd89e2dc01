"""Everything that is known at one instant. Built once, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace

from exporter.frozen import dataclass
from exporter.gpu.clocks import AllClocks, Clocks, MaxClocks, SlowClocks
from exporter.gpu.confidential import Confidential
from exporter.gpu.ecc import Ecc, EccLocations, EccMode, EccSram
from exporter.gpu.fabric import Fabric
from exporter.gpu.identity import Identity
from exporter.gpu.inventory import BoardInfo, Platform
from exporter.gpu.memory import Bar1, Memory
from exporter.gpu.mig import Mig
from exporter.gpu.modes import ComputeMode, MigMode, PersistenceMode
from exporter.gpu.nvlink import NvLink
from exporter.gpu.nvlinks import NvLinkPeers, NvLinks
from exporter.gpu.pcie import PcieLink, PcieThroughput
from exporter.gpu.power import Power, PowerLimits
from exporter.gpu.processes import Processes
from exporter.gpu.profiling import Profiling
from exporter.gpu.recovery import Recovery
from exporter.gpu.row_remap import RemappedRows, Repair, RetiredPages, RowRemapBanks
from exporter.gpu.temperature import Fans, Margin, MarginThresholds, Temperature, Thresholds
from exporter.gpu.utilization import Engines, Utilization
from exporter.gpu.vgpu import VgpuLicense
from exporter.host.cpu import Cpu
from exporter.host.disk import Disk
from exporter.host.memory import Memory as HostMemory
from exporter.host.pressure import Pressure
from exporter.host.swap import Swap
from exporter.host.thermal import Thermal
from exporter.inference_view import InferenceView
from exporter.processes_view import ProcessesView
from exporter.recorder_view import RecorderView
from exporter.rules_view import RulesView
from exporter.sampling import DriverInfo, Fault
from exporter.scaleout_view import ScaleoutView
from exporter.xid.view import GpuXids, XidView


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. A group that was not read, or whose last read failed, is None."""

    index: int
    uuid: str
    fault: Fault | None = None
    sampled_at: float | None = None  # monotonic seconds of the last fast reading
    identity: Identity | None = None
    board_info: BoardInfo | None = None
    platform: Platform | None = None
    memory: Memory | None = None
    bar1: Bar1 | None = None
    utilization: Utilization | None = None
    engines: Engines | None = None
    temperature: Temperature | None = None
    thresholds: Thresholds | None = None
    temperature_margin: Margin | None = None
    margin_thresholds: MarginThresholds | None = None
    fans: Fans | None = None
    power: Power | None = None
    power_limits: PowerLimits | None = None
    clocks: Clocks | None = None
    slow_clocks: SlowClocks | None = None
    max_clocks: MaxClocks | None = None
    profiling: Profiling | None = None
    mig: Mig | None = None
    pcie_throughput: PcieThroughput | None = None
    pcie_sampled: PcieThroughput | None = None
    pcie_link: PcieLink | None = None
    nvlink: NvLink | None = None
    nvlinks: NvLinks | None = None
    nvlink_peers: NvLinkPeers | None = None
    recovery: Recovery | None = None
    ecc: Ecc | None = None
    ecc_locations: EccLocations | None = None
    ecc_sram: EccSram | None = None
    ecc_mode: EccMode | None = None
    remapped_rows: RemappedRows | None = None
    row_remap_banks: RowRemapBanks | None = None
    repair: Repair | None = None
    retired_pages: RetiredPages | None = None
    fabric: Fabric | None = None
    persistence_mode: PersistenceMode | None = None
    compute_mode: ComputeMode | None = None
    mig_mode: MigMode | None = None
    confidential: Confidential | None = None
    vgpu_license: VgpuLicense | None = None
    processes: Processes | None = None

    @property
    def all_clocks(self) -> AllClocks | None:
        """Clocks of both tiers."""
        if self.clocks is None and self.slow_clocks is None:
            return None
        return AllClocks(self.clocks, self.slow_clocks)

    @property
    def pcie(self) -> PcieThroughput | None:
        """PCIe throughput by profiling counters, else by sampling."""
        profiled = self.pcie_throughput
        if profiled is None or profiled.transmit_bytes_per_second is None:
            return self.pcie_sampled
        return profiled


@dataclass(frozen=True, slots=True)
class Host:
    """The host beside the GPUs. A group that was not read, or whose last read failed, is None."""

    memory: HostMemory | None = None
    swap: Swap | None = None
    pressure: Pressure | None = None
    cpu: Cpu | None = None
    disk: Disk | None = None
    thermal: Thermal | None = None


@dataclass(frozen=True, slots=True)
class Build:
    """Which program this is."""

    version: str
    python_version: str
    simulated: bool


@dataclass(frozen=True, slots=True)
class Reload:
    """How the last attempt to load the config went, and when one last went well."""

    successful: bool
    success_timestamp_seconds: float


@dataclass(frozen=True, slots=True)
class NvmlPause:
    """A pause of NVML: why, for how long still, and whether the driver is let go of yet."""

    reason: str
    remaining_seconds: float
    is_free: bool = False


@dataclass(frozen=True, slots=True)
class Process:
    """This process, by prometheus_client's ProcessCollector: metric name to value."""

    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One instant of the node.

    `now` is when it is looked at, `taken_at` when its poll began (both monotonic seconds).
    """

    taken_at: float
    now: float
    stale_after_seconds: float
    build: Build
    reload: Reload
    driver: DriverInfo | None = None
    driver_problem: str = ""
    nvml_pause: NvmlPause | None = None
    pci_gpus: int | None = None
    gpus: tuple[Gpu, ...] = ()
    host: Host | None = None
    processes: ProcessesView | None = None  # of GPUs and host, joined
    process: Process | None = None
    read_seconds: Mapping[str, float] = field(default_factory=dict)  # by group
    read_errors: Mapping[tuple[str, str], int] = field(default_factory=dict)  # by group, error
    polls: Mapping[str, int] = field(default_factory=dict)  # by result
    rules: RulesView | None = None
    recorder: RecorderView | None = None
    scaleout: ScaleoutView | None = None
    xids: XidView | None = None
    inference: InferenceView | None = None

    def xids_of(self, gpu: Gpu) -> GpuXids | None:
        """Return a GPU's XID errors: they stay when its readings are gone."""
        return self.xids.gpus.get(gpu.uuid) if self.xids else None

    @property
    def is_stale(self) -> bool:
        """Whether the poller is so late that nothing in here may pass for the present."""
        return self.now - self.taken_at > self.stale_after_seconds

    def at(self, now: float) -> Snapshot:
        """Return this snapshot as it is to be shown at `now`: without readings once stale."""
        seen = replace(self, now=now)
        if not seen.is_stale:
            return seen
        bare = tuple(
            Gpu(gpu.index, gpu.uuid, gpu.fault or Fault.ERROR, gpu.sampled_at) for gpu in self.gpus
        )
        rules = replace(self.rules, windows={}) if self.rules else None
        bare_seen = replace(seen, gpus=bare, host=None, processes=None, process=None)
        return replace(bare_seen, read_seconds={}, rules=rules, inference=None)
