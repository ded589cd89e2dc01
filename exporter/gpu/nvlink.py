"""NVLink: bytes over all links. What each link does is in nvlinks.py."""

from __future__ import annotations

from exporter.fields import ALL_LINKS, Field
from exporter.frozen import dataclass
from exporter.gpu.bounds import MAX_BYTES, count, within
from exporter.metric import Kind, Metric, Row
from exporter.sampling import Device, FieldRequest, Reader, Tier

LINKS = 18  # per GPU, up to NVLink 5; those that a board lacks are asked for once
KIB = 1 << 10

TRANSMIT = FieldRequest(Field.NVLINK_DATA_TRANSMIT, ALL_LINKS)
RECEIVE = FieldRequest(Field.NVLINK_DATA_RECEIVE, ALL_LINKS)


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


def _total_bytes(device: Device, total: FieldRequest, of_link: Field) -> float | None:
    kib = count(device.field(total.field, total.scope))
    if kib is not None:
        return kib * KIB
    counts = [count(device.field(of_link, link)) for link in range(LINKS)]
    there = [number for number in counts if number is not None]
    return sum(there) if there else None


def _rate(before: float | None, after: float | None, elapsed: float) -> float | None:
    if before is None or after is None or after < before:  # the driver restarted its count
        return None
    return within((after - before) / elapsed, 0, MAX_BYTES)


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
