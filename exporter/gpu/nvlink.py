"""NVLink: bytes over all links, and the state and errors of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporter.fields import ALL_LINKS, Field
from exporter.metric import Kind, Metric, MetricVec, Row
from exporter.sampling import Device, FieldRequest, Reader, Tier

LINKS = 18  # per GPU, up to NVLink 5; those that a board lacks are asked for once
KIB = 1 << 10
ACTIVE = 1  # field 165: 0 inactive, 1 active, 2 sleep, 3 active without traffic

TRANSMIT = FieldRequest(Field.NVLINK_DATA_TRANSMIT, ALL_LINKS)
RECEIVE = FieldRequest(Field.NVLINK_DATA_RECEIVE, ALL_LINKS)

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


@dataclass(frozen=True, slots=True)
class NvLink:
    """Payload bytes over all links at `read_at` since the driver was loaded, and their rates."""

    read_at: float
    transmit_bytes: float | None = None
    receive_bytes: float | None = None
    transmit_bytes_per_second: float | None = None
    receive_bytes_per_second: float | None = None


def read(device: Device, previous: NvLink | None) -> NvLink:
    """Read fields 138 and 139 (KiB), summed over the links by the driver.

    A board of NVLink 5 that refuses them has fields 202 and 204 (bytes) of each link.
    """
    now = device.now()
    transmit = _total_bytes(device, TRANSMIT, Field.NVLINK5_TRANSMIT_BYTES)
    receive = _total_bytes(device, RECEIVE, Field.NVLINK5_RECEIVE_BYTES)
    elapsed = now - previous.read_at if previous else 0.0
    if previous is None or not 0 < elapsed <= device.max_gap_seconds:
        return NvLink(now, transmit, receive)
    return NvLink(
        now,
        transmit,
        receive,
        _rate(previous.transmit_bytes, transmit, elapsed),
        _rate(previous.receive_bytes, receive, elapsed),
    )


@dataclass(frozen=True, slots=True)
class NvLinks:
    """Per link: whether it is up, and errors by (link, type)."""

    active: Mapping[str, float]
    errors: Mapping[tuple[str, str], float]


def read_links(device: Device, _previous: NvLinks | None) -> NvLinks:
    """Read state and error counters of every link; each link and field is supported or not."""
    active: dict[str, float] = {}
    errors: dict[tuple[str, str], float] = {}
    for link in range(LINKS):
        state = device.field(Field.NVLINK_STATE, link)
        if state is None:  # drivers before 525
            state = device.ask("nvmlDeviceGetNvLinkState", link)
        if state is None:
            continue
        active[str(link)] = int(state == ACTIVE)
        for kind, field in ERRORS.items():
            count = device.field(field, link)
            if count is not None:  # each generation of NVLink has a part of them
                errors[str(link), kind] = count
    return NvLinks(active, errors)


def _total_bytes(device: Device, total: FieldRequest, of_link: Field) -> float | None:
    kib = device.field(total.field, total.scope)
    if kib is not None:
        return kib * KIB
    counts = [device.field(of_link, link) for link in range(LINKS)]
    there = [count for count in counts if count is not None]
    return sum(there) if there else None


def _rate(before: float | None, after: float | None, elapsed: float) -> float | None:
    if before is None or after is None or after < before:  # the driver restarted its count
        return None
    return (after - before) / elapsed


READER = Reader(
    "nvlink",
    "nvlink",
    Tier.FAST,
    read,
    (
        TRANSMIT,
        RECEIVE,
        *(FieldRequest(Field.NVLINK5_TRANSMIT_BYTES, link, TRANSMIT) for link in range(LINKS)),
        *(FieldRequest(Field.NVLINK5_RECEIVE_BYTES, link, RECEIVE) for link in range(LINKS)),
    ),
)
LINKS_READER = Reader(
    "nvlinks",
    "nvlink",
    Tier.SLOW,
    read_links,
    tuple(
        FieldRequest(field, link)
        for link in range(LINKS)
        for field in (Field.NVLINK_STATE, *ERRORS.values())
    ),
)

METRICS: tuple[Row[NvLink], ...] = (
    Metric(
        "gpu_nvlink_transmit_bytes_total",
        "Payload bytes sent over all NVLinks since the driver was loaded.",
        lambda n: n.transmit_bytes,
        Kind.COUNTER,
    ),
    Metric(
        "gpu_nvlink_receive_bytes_total",
        "Payload bytes received over all NVLinks since the driver was loaded.",
        lambda n: n.receive_bytes,
        Kind.COUNTER,
    ),
    Metric(
        "gpu_nvlink_transmit_bytes_per_second",
        "Payload bytes per second sent over all NVLinks, mean of the last second.",
        lambda n: n.transmit_bytes_per_second,
    ),
    Metric(
        "gpu_nvlink_receive_bytes_per_second",
        "Payload bytes per second received over all NVLinks, mean of the last second.",
        lambda n: n.receive_bytes_per_second,
    ),
)
LINKS_METRICS: tuple[Row[NvLinks], ...] = (
    MetricVec(
        "gpu_nvlink_active",
        "1 while the link is up; 0 while it is inactive, asleep or closed for traffic.",
        ("link",),
        lambda n: n.active,
    ),
    MetricVec(
        "gpu_nvlink_errors_total",
        "Errors of the link since the driver was loaded, by type.",
        ("link", "type"),
        lambda n: n.errors,
        Kind.COUNTER,
    ),
)
