"""PCIe: throughput, link, errors."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.fields import Field
from exporter.frozen import dataclass
from exporter.gpu.bounds import MAX_BYTES, MAX_PCIE_GENERATION, MAX_PCIE_LANES, count, within
from exporter.metric import Kind, Metric, MetricVec, Row
from exporter.sampling import Device, FieldRequest, Reader, Tier

GPM_TRANSMIT, GPM_RECEIVE = 20, 21  # MiB/s
COUNTER_TRANSMIT, COUNTER_RECEIVE = 0, 1  # nvmlPcieUtilCounter_t
MIB = 1 << 20
KIB = 1 << 10

GENERATIONS = {
    "current": "nvmlDeviceGetCurrPcieLinkGeneration",
    "max": "nvmlDeviceGetMaxPcieLinkGeneration",
    "gpu_max": "nvmlDeviceGetGpuMaxPcieLinkGeneration",
}
WIDTHS = {"current": "nvmlDeviceGetCurrPcieLinkWidth", "max": "nvmlDeviceGetMaxPcieLinkWidth"}
ERRORS = {
    "correctable": Field.PCIE_CORRECTABLE_ERRORS,
    "non_fatal": Field.PCIE_NON_FATAL_ERRORS,
    "fatal": Field.PCIE_FATAL_ERRORS,
    "unsupported_request": Field.PCIE_UNSUPPORTED_REQUESTS,
    "receiver": Field.PCIE_RECEIVER_ERRORS,
    "bad_tlp": Field.PCIE_BAD_TLPS,
    "bad_dllp": Field.PCIE_BAD_DLLPS,
    "lcrc": Field.PCIE_LCRC_ERRORS,
    "nak_received": Field.PCIE_NAKS_RECEIVED,
    "nak_sent": Field.PCIE_NAKS_SENT,
    "l0_to_recovery": Field.PCIE_LINK_RECOVERIES,
}


@dataclass(frozen=True, slots=True)
class PcieThroughput:
    """Bytes per second from the GPU (transmit) and to it (receive)."""

    transmit_bytes_per_second: float | None = None
    receive_bytes_per_second: float | None = None


def read(device: Device, _previous: PcieThroughput | None) -> PcieThroughput:
    """Read profiling counters 20 and 21 (Hopper and later): means over the whole tick.

    The byte counters of fields 197 and 198 are not used: they have 32 bits, which a busy link
    passes several times a second.
    """
    rates = device.gpm()
    return PcieThroughput(
        _bytes_per_second(rates.get(GPM_TRANSMIT), MIB),
        _bytes_per_second(rates.get(GPM_RECEIVE), MIB),
    )


def read_sampled(device: Device, _previous: PcieThroughput | None) -> PcieThroughput | None:
    """Read nvmlDeviceGetPcieThroughput (KiB/s); None: the board has profiling counters for it.

    Each of the two calls blocks for the 20 ms that it measures.
    """
    profiling = device.ask("nvmlGpmQueryDeviceSupport")
    if profiling is not None and profiling.isSupportedDevice:
        return None
    transmit = device.ask("nvmlDeviceGetPcieThroughput", COUNTER_TRANSMIT)
    receive = device.ask("nvmlDeviceGetPcieThroughput", COUNTER_RECEIVE)
    return PcieThroughput(_bytes_per_second(transmit, KIB), _bytes_per_second(receive, KIB))


def _bytes_per_second(rate: float | None, unit_bytes: int) -> float | None:
    return None if rate is None else within(rate * unit_bytes, 0, MAX_BYTES)


@dataclass(frozen=True, slots=True)
class PcieLink:
    """Generation and width of the link, by kind; replays, and errors by type."""

    generation: Mapping[str, float | None]
    width_lanes: Mapping[str, float | None]
    replays: float | None
    errors: Mapping[str, float]


def read_link(device: Device, _previous: PcieLink | None) -> PcieLink:
    """Read the link's generation and width, and fields 94, 169 and 173 to 182.

    "max" is what GPU and slot can do together, "gpu_max" what the GPU can.
    """
    replays = device.field(Field.PCIE_REPLAYS)
    if replays is None:
        replays = device.ask("nvmlDeviceGetPcieReplayCounter")
    return PcieLink(
        generation={
            kind: within(device.ask(call), 1, MAX_PCIE_GENERATION)
            for kind, call in GENERATIONS.items()
        },
        width_lanes={
            kind: within(device.ask(call), 1, MAX_PCIE_LANES) for kind, call in WIDTHS.items()
        },
        replays=count(replays),
        errors={
            kind: number
            for kind, field in ERRORS.items()
            if (number := count(device.field(field))) is not None
        },
    )


READER = Reader("pcie_throughput", "pcie", Tier.FAST, read, gpm=(GPM_TRANSMIT, GPM_RECEIVE))
SAMPLED_READER = Reader("pcie_sampled", "pcie", Tier.BLOCKING, read_sampled)
LINK_READER = Reader(
    "pcie_link",
    "pcie",
    Tier.SLOW,
    read_link,
    tuple(FieldRequest(field) for field in (Field.PCIE_REPLAYS, *ERRORS.values())),
)

METRICS: tuple[Row[PcieThroughput], ...] = (
    Metric(
        "gpu_pcie_transmit_bytes_per_second",
        "Bytes per second from the GPU over PCIe: mean of the last second on Hopper and later, "
        "else a sample of 20 ms.",
        lambda p: p.transmit_bytes_per_second,
    ),
    Metric(
        "gpu_pcie_receive_bytes_per_second",
        "Bytes per second to the GPU over PCIe: mean of the last second on Hopper and later, "
        "else a sample of 20 ms.",
        lambda p: p.receive_bytes_per_second,
    ),
)
LINK_METRICS: tuple[Row[PcieLink], ...] = (
    MetricVec(
        "gpu_pcie_link_generation",
        "PCIe generation: current (drops when idle), max (of GPU and slot), gpu_max (of the GPU).",
        ("kind",),
        lambda p: p.generation,
    ),
    MetricVec(
        "gpu_pcie_link_width",
        "PCIe lanes, current and max (of GPU and slot).",
        ("kind",),
        lambda p: p.width_lanes,
    ),
    Metric(
        "gpu_pcie_replays_total",
        "PCIe packets sent again after an error on the link.",
        lambda p: p.replays,
        Kind.COUNTER,
    ),
    MetricVec(
        "gpu_pcie_errors_total",
        "Errors on the PCIe link since the driver was loaded, by type; l0_to_recovery: times that "
        "the link had to be trained again.",
        ("type",),
        lambda p: p.errors,
        Kind.COUNTER,
    ),
)
