"""NVLink by link: state, speed, bytes, errors, and what is at the other end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from exporter.fields import Field
from exporter.frozen import dataclass
from exporter.gpu.bounds import MAX_BYTES, count, within
from exporter.gpu.identity import sysfs_bus_id
from exporter.gpu.nvlink import KIB, LINKS
from exporter.metric import Kind, MetricVec, Row
from exporter.sampling import Device, FieldRequest, Reader, Tier

ACTIVE = 1  # field 165: 0 inactive, 1 active, 2 sleep, 3 active without traffic
MEGABYTE = 1_000_000  # field 164 is in MB/s
MAX_SPEED = MAX_BYTES // MEGABYTE

# The first three up to Hopper, the others from Blackwell on.
ERRORS = {
    "replay": Field.NVLINK_REPLAY_ERRORS,
    "recovery": Field.NVLINK_RECOVERY_ERRORS,
    "crc": Field.NVLINK_CRC_ERRORS,
    "malformed_packet": Field.NVLINK5_MALFORMED_PACKETS,
    "buffer_overrun": Field.NVLINK5_BUFFER_OVERRUNS,
    "receive": Field.NVLINK5_RECEIVE_ERRORS,
    "remote": Field.NVLINK5_REMOTE_ERRORS,
    "general": Field.NVLINK5_GENERAL_ERRORS,
    "local_integrity": Field.NVLINK5_LOCAL_INTEGRITY,
    "transmit_discard": Field.NVLINK5_TRANSMIT_DISCARDS,
    "recovery_successful": Field.NVLINK5_RECOVERIES_SUCCESSFUL,
    "recovery_failed": Field.NVLINK5_RECOVERIES_FAILED,
    "effective": Field.NVLINK5_EFFECTIVE_ERRORS,
    "symbol": Field.NVLINK5_SYMBOL_ERRORS,
}
# Up to Hopper, over all links.
DATA_ERRORS = {"crc": Field.NVLINK_DATA_CRC_ERRORS, "ecc": Field.NVLINK_DATA_ECC_ERRORS}
BIT_ERROR_RATES = {
    "effective": Field.NVLINK5_EFFECTIVE_BIT_ERROR_RATE,
    "symbol": Field.NVLINK5_SYMBOL_BIT_ERROR_RATE,
}
NO_BIT_ERRORS = 0xFF  # exponent of 15e-255: so the link says that it has seen none

# nvmlNvlinkVersion_t, nvmlIntNvLinkDeviceType_t. A number that is not here is exported as it is.
VERSIONS = {1: "1.0", 2: "2.0", 3: "2.2", 4: "3.0", 5: "3.1", 6: "4.0", 7: "5.0", 8: "6.0"}
REMOTES = {0: "gpu", 1: "npu", 2: "switch", 0xFF: ""}


@dataclass(frozen=True, slots=True)
class NvLinks:
    """By link: whether it is up, its speed and bytes, and errors by (link, type)."""

    active: Mapping[str, float]
    speed_bytes_per_second: Mapping[str, float]
    transmit_bytes: Mapping[str, float]
    receive_bytes: Mapping[str, float]
    errors: Mapping[tuple[str, str], float]
    bit_error_ratio: Mapping[tuple[str, str], float]
    data_errors: Mapping[str, float]  # over all links, by type


def read(device: Device, _previous: NvLinks | None) -> NvLinks:
    """Read the fields of every link; each link and field is supported or not."""
    states = {link: state for link in range(LINKS) if (state := _state(device, link)) is not None}
    kinds = DATA_ERRORS if states else {}
    return NvLinks(
        active={str(link): int(state == ACTIVE) for link, state in states.items()},
        speed_bytes_per_second={
            str(link): MEGABYTE * speed
            for link in states
            if (speed := within(device.field(Field.NVLINK_SPEED, link), 1, MAX_SPEED))  # 0: down
        },
        transmit_bytes=_bytes(
            device, states, Field.NVLINK_DATA_TRANSMIT, Field.NVLINK5_TRANSMIT_BYTES
        ),
        receive_bytes=_bytes(
            device, states, Field.NVLINK_DATA_RECEIVE, Field.NVLINK5_RECEIVE_BYTES
        ),
        errors=_by_type(device, states, ERRORS),
        bit_error_ratio={
            name: ratio
            for name, packed in _by_type(device, states, BIT_ERROR_RATES).items()
            if (ratio := bit_error_ratio(int(packed))) <= 1
        },
        data_errors={
            kind: number
            for kind, field in kinds.items()
            if (number := count(device.field(field))) is not None
        },
    )


def bit_error_ratio(packed: int) -> float:
    """Return the rate in fields 220 and 222: exponent in bits 0 to 7, mantissa in bits 8 to 11.

    The rate is mantissa / 10 ** exponent, as firmware of network ports writes it too.
    """
    exponent, mantissa = packed & 0xFF, packed >> 8 & 0xF
    return 0.0 if exponent == NO_BIT_ERRORS else float(f"{mantissa}e-{exponent}")


def _state(device: Device, link: int) -> int | float | None:
    state = device.field(Field.NVLINK_STATE, link)
    if state is not None:
        return state
    answer: int | None = device.ask("nvmlDeviceGetNvLinkState", link)  # drivers before 525
    return answer


def _bytes(
    device: Device, links: Iterable[int], kib_field: Field, bytes_field: Field
) -> dict[str, float]:
    counts: dict[str, float] = {}
    for link in links:
        kib = count(device.field(kib_field, link))
        there = count(device.field(bytes_field, link)) if kib is None else kib * KIB
        if there is not None:
            counts[str(link)] = there
    return counts


def _by_type(
    device: Device, links: Iterable[int], fields: Mapping[str, Field]
) -> dict[tuple[str, str], float]:
    """Return what there is: each generation of NVLink has a part of these fields."""
    return {
        (str(link), kind): number
        for link in links
        for kind, field in fields.items()
        if (number := count(device.field(field, link))) is not None
    }


@dataclass(frozen=True, slots=True)
class NvLinkPeers:
    """By link: version of NVLink, sort of device at the other end, and its PCI address."""

    versions: Mapping[str, str]
    remote_types: Mapping[str, str]
    remote_pci_bus_ids: Mapping[str, str]

    def labels(self) -> dict[tuple[str, str, str, str], float]:
        """Return 1 by link, version, type and address; "" for what the driver does not tell."""
        return {
            (
                link,
                version,
                self.remote_types.get(link, ""),
                self.remote_pci_bus_ids.get(link, ""),
            ): 1
            for link, version in self.versions.items()
        }


def read_peers(device: Device, _previous: NvLinkPeers | None) -> NvLinkPeers:
    """Read field 166, nvmlDeviceGetNvLinkRemote{DeviceType,PciInfo}: of links that are up."""
    versions, types, addresses = {}, {}, {}
    for link in range(LINKS):
        version = device.field(Field.NVLINK_VERSION, link)
        if not version:
            continue
        versions[str(link)] = VERSIONS.get(int(version), str(int(version)))
        kind = device.ask("nvmlDeviceGetNvLinkRemoteDeviceType", link)
        if kind is not None:
            types[str(link)] = REMOTES.get(kind, str(kind))
        pci = device.ask("nvmlDeviceGetNvLinkRemotePciInfo", link)
        if pci is not None:
            addresses[str(link)] = sysfs_bus_id(pci.busId)
    return NvLinkPeers(versions, types, addresses)


def _requests(link: int) -> tuple[FieldRequest, ...]:
    transmit = FieldRequest(Field.NVLINK_DATA_TRANSMIT, link)
    receive = FieldRequest(Field.NVLINK_DATA_RECEIVE, link)
    alone = (Field.NVLINK_STATE, Field.NVLINK_SPEED, *ERRORS.values(), *BIT_ERROR_RATES.values())
    return (
        *(FieldRequest(field, link) for field in alone),
        transmit,
        receive,
        FieldRequest(Field.NVLINK5_TRANSMIT_BYTES, link, transmit),
        FieldRequest(Field.NVLINK5_RECEIVE_BYTES, link, receive),
    )


READER = Reader(
    "nvlinks",
    "nvlink",
    Tier.SLOW,
    read,
    (
        *(request for link in range(LINKS) for request in _requests(link)),
        *(FieldRequest(field) for field in DATA_ERRORS.values()),
    ),
)
PEERS_READER = Reader(
    "nvlink_peers",
    "nvlink",
    Tier.STATIC,
    read_peers,
    tuple(FieldRequest(Field.NVLINK_VERSION, link) for link in range(LINKS)),
)

METRICS: tuple[Row[NvLinks], ...] = (
    MetricVec(
        "gpu_nvlink_active",
        "1 while the link is up; 0 while it is inactive, asleep or closed for traffic.",
        ("link",),
        lambda n: n.active,
    ),
    MetricVec(
        "gpu_nvlink_speed_bytes_per_second",
        "Speed of the link in one direction.",
        ("link",),
        lambda n: n.speed_bytes_per_second,
    ),
    MetricVec(
        "gpu_nvlink_link_transmit_bytes_total",
        "Payload bytes sent over the link since the driver was loaded.",
        ("link",),
        lambda n: n.transmit_bytes,
        Kind.COUNTER,
    ),
    MetricVec(
        "gpu_nvlink_link_receive_bytes_total",
        "Payload bytes received over the link since the driver was loaded.",
        ("link",),
        lambda n: n.receive_bytes,
        Kind.COUNTER,
    ),
    MetricVec(
        "gpu_nvlink_errors_total",
        "Errors of the link since the driver was loaded, by type.",
        ("link", "type"),
        lambda n: n.errors,
        Kind.COUNTER,
    ),
    MetricVec(
        "gpu_nvlink_bit_error_ratio",
        "Bit error rate of the link, by type: symbol (after error correction), effective (what "
        "reached packets). 0: none seen.",
        ("link", "type"),
        lambda n: n.bit_error_ratio,
    ),
    MetricVec(
        "gpu_nvlink_data_errors_total",
        "CRC and ECC errors of data over all links since the driver was loaded, up to Hopper.",
        ("type",),
        lambda n: n.data_errors,
        Kind.COUNTER,
    ),
)
PEERS_METRICS: tuple[Row[NvLinkPeers], ...] = (
    MetricVec(
        "gpu_nvlink_info",
        "What is at the other end of the link (gpu, switch, npu); always 1.",
        ("link", "version", "remote_type", "remote_pci_bus_id"),
        lambda n: n.labels(),
        Kind.INFO,
    ),
)
