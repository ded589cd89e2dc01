"""What dcgm-exporter's default counters are in our readings.

Names, types and help texts are those of its etc/default-counters.csv.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from exporter.frozen import dataclass
from exporter.gpu.memory import Memory
from exporter.gpu.mig import Instance
from exporter.gpu.profiling import Profiling
from exporter.metric import Kind, Metric, MetricVec, Row
from exporter.snapshot import Gpu
from exporter.xid.table import xid
from exporter.xid.view import GpuXids

T = TypeVar("T")

MIB = 1 << 20
HERTZ_PER_MHZ = 1e6
MILLIJOULES_PER_JOULE = 1000.0
# Field 449: KiB/s, divided by 1000, though dcgm-exporter calls it a counter. See docs/dcgm.md.
NVLINK_UNIT_BYTES = 1024 * 1000
DIGITS = 3  # 0.29 is 29 %, not 28.999999999999996
NO_XID = 0, "No Error"


@dataclass(frozen=True, slots=True)
class Entity:
    """What a series is about: a GPU, or a GPU instance of it.

    Attributes:
        gpu: The board.
        instance: The GPU instance; None: the whole board.
        xids: XID errors of the board; None where nothing tells of them.
    """

    gpu: Gpu
    instance: Instance | None
    xids: GpuXids | None

    @property
    def memory(self) -> Memory | None:
        """Memory of the instance, else of the GPU."""
        return self.instance.memory if self.instance else self.gpu.memory

    @property
    def activity(self) -> Profiling | None:
        """Profiling counters of the instance, else of the GPU."""
        return self.instance.activity if self.instance else self.gpu.profiling


def _of(
    part: Callable[[Entity], T | None], value: Callable[[T], float | None], factor: float = 1
) -> Callable[[Entity], float | None]:
    """Return what gives a value of a part, in dcgm-exporter's unit: times `factor`."""

    def read(entity: Entity) -> float | None:
        thing = part(entity)
        plain = None if thing is None else value(thing)
        if plain is None:
            return None
        scaled = plain * factor
        return round(scaled, DIGITS) if factor != 1 else scaled

    return read


def _mebibytes(value: Callable[[Memory], int | None]) -> Callable[[Entity], float | None]:
    """Return what gives a part of the memory in whole MiB, rounded down as NVIDIA's tools do."""

    def read(entity: Entity) -> float | None:
        size = None if entity.memory is None else value(entity.memory)
        return None if size is None else size // MIB

    return read


def _nvlink(entity: Entity) -> float | None:
    link = entity.gpu.nvlink
    if link is None:
        return None
    sent, received = link.transmit_bytes_per_second, link.receive_bytes_per_second
    if sent is None or received is None:
        return None
    return round((sent + received) / NVLINK_UNIT_BYTES, DIGITS)


def _last_xid(entity: Entity) -> dict[tuple[str, str], float | None]:
    if entity.xids is None:
        return {}
    last = entity.xids.last_seconds
    number, text = NO_XID
    if last:
        number = max(last, key=lambda each: (last[each], each))
        text = xid(number).mnemonic
    return {(str(number), text): number}


def _is_licensed(entity: Entity) -> float | None:
    vgpu = entity.gpu.vgpu_license
    return max(vgpu.licensed.values(), default=None) if vgpu else None


COUNTERS: tuple[Row[Entity], ...] = (
    Metric(
        "DCGM_FI_DEV_SM_CLOCK",
        "SM clock frequency (in MHz).",
        _of(lambda e: e.gpu.clocks, lambda c: c.hertz.get("sm"), 1 / HERTZ_PER_MHZ),
    ),
    Metric(
        "DCGM_FI_DEV_MEM_CLOCK",
        "Memory clock frequency (in MHz).",
        _of(lambda e: e.gpu.clocks, lambda c: c.hertz.get("memory"), 1 / HERTZ_PER_MHZ),
    ),
    Metric(
        "DCGM_FI_DEV_MEMORY_TEMP",
        "Memory temperature (in C).",
        _of(lambda e: e.gpu.temperature, lambda t: t.memory_celsius),
    ),
    Metric(
        "DCGM_FI_DEV_GPU_TEMP",
        "GPU temperature (in C).",
        _of(lambda e: e.gpu.temperature, lambda t: t.core_celsius),
    ),
    Metric(
        "DCGM_FI_DEV_POWER_USAGE",
        "Power draw (in W).",
        _of(lambda e: e.gpu.power, lambda p: p.draw_watts),
    ),
    Metric(
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        "Total energy consumption since boot (in mJ).",
        _of(lambda e: e.gpu.power, lambda p: p.energy_joules, MILLIJOULES_PER_JOULE),
        Kind.COUNTER,
    ),
    Metric(
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
        "Total number of PCIe retries.",
        _of(lambda e: e.gpu.pcie_link, lambda p: p.replays),
        Kind.COUNTER,
    ),
    Metric(
        "DCGM_FI_DEV_GPU_UTIL",
        "GPU utilization (in %).",
        _of(lambda e: e.gpu.utilization, lambda u: u.gpu_ratio, 100),
    ),
    Metric(
        "DCGM_FI_DEV_MEM_COPY_UTIL",
        "Memory utilization (in %).",
        _of(lambda e: e.gpu.utilization, lambda u: u.memory_ratio, 100),
    ),
    Metric(
        "DCGM_FI_DEV_ENC_UTIL",
        "Encoder utilization (in %).",
        _of(lambda e: e.gpu.engines, lambda n: n.ratios.get("encoder"), 100),
    ),
    Metric(
        "DCGM_FI_DEV_DEC_UTIL",
        "Decoder utilization (in %).",
        _of(lambda e: e.gpu.engines, lambda n: n.ratios.get("decoder"), 100),
    ),
    MetricVec(
        "DCGM_FI_DEV_XID_ERRORS",
        "Value of the last XID error encountered.",
        ("err_code", "err_msg"),
        _last_xid,
    ),
    Metric(
        "DCGM_FI_DEV_FB_FREE",
        "Framebuffer memory free (in MiB).",
        _mebibytes(lambda m: m.free_bytes),
    ),
    Metric(
        "DCGM_FI_DEV_FB_USED",
        "Framebuffer memory used (in MiB).",
        _mebibytes(lambda m: m.used_bytes),
    ),
    Metric(
        "DCGM_FI_DEV_FB_RESERVED",
        "Framebuffer memory reserved (in MiB).",
        _mebibytes(lambda m: m.reserved_bytes),
    ),
    Metric(
        "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
        "Total number of NVLink bandwidth counters for all lanes.",
        _nvlink,
        Kind.COUNTER,
    ),
    Metric("DCGM_FI_DEV_VGPU_LICENSE_STATUS", "vGPU License status", _is_licensed),
    Metric(
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        "Number of remapped rows for uncorrectable errors",
        _of(lambda e: e.gpu.remapped_rows, lambda r: r.rows.get("uncorrectable")),
        Kind.COUNTER,
    ),
    Metric(
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        "Number of remapped rows for correctable errors",
        _of(lambda e: e.gpu.remapped_rows, lambda r: r.rows.get("correctable")),
        Kind.COUNTER,
    ),
    Metric(
        "DCGM_FI_DEV_ROW_REMAP_FAILURE",
        "Whether remapping of rows has failed",
        _of(lambda e: e.gpu.remapped_rows, lambda r: r.failure),
    ),
    Metric(
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
        "Ratio of time the graphics engine is active.",
        _of(lambda e: e.activity, lambda p: p.graphics_ratio),
    ),
    Metric(
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
        "Ratio of cycles the tensor (HMMA) pipe is active.",
        _of(lambda e: e.activity, lambda p: p.tensor_ratio),
    ),
    Metric(
        "DCGM_FI_PROF_DRAM_ACTIVE",
        "Ratio of cycles the device memory interface is active sending or receiving data.",
        _of(lambda e: e.activity, lambda p: p.dram_ratio),
    ),
    Metric(
        "DCGM_FI_PROF_PCIE_TX_BYTES",
        "The rate of data transmitted over the PCIe bus - including both protocol headers and data"
        " payloads - in bytes per second.",
        _of(lambda e: e.gpu.pcie, lambda p: p.transmit_bytes_per_second),
    ),
    Metric(
        "DCGM_FI_PROF_PCIE_RX_BYTES",
        "The rate of data received over the PCIe bus - including both protocol headers and data"
        " payloads - in bytes per second.",
        _of(lambda e: e.gpu.pcie, lambda p: p.receive_bytes_per_second),
    ),
)
