"""What the page shows of XID errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from exporter.frozen import dataclass
from exporter.metric import Kind, MetricVec, Row
from exporter.xid.ledger import Count, Result, Source
from exporter.xid.table import Severity, xid


@dataclass(frozen=True, slots=True)
class GpuXids:
    """XID errors of one GPU, by number; those that are announced have 0 until they happen."""

    totals: Mapping[int, int]
    last_seconds: Mapping[int, float]  # since the epoch


@dataclass(frozen=True, slots=True)
class XidView:
    """XID errors of the node.

    Attributes:
        gpus: By UUID.
        unlisted: Of PCI addresses that are none of NVML's GPUs, by address and number.
        sources: Whether each source is being read; without those that do not apply here.
        events: How often each source had each result.
    """

    gpus: Mapping[str, GpuXids] = field(default_factory=dict)
    unlisted: Mapping[tuple[str, int], Count] = field(default_factory=dict)
    sources: Mapping[Source, bool] = field(default_factory=dict)
    events: Mapping[tuple[Source, Result], int] = field(default_factory=dict)

    def critical_since(self, timestamp_seconds: float) -> set[str]:
        """Return UUIDs of the GPUs that have had a critical XID since that time."""
        return {
            uuid
            for uuid, gpu in self.gpus.items()
            for number, last in gpu.last_seconds.items()
            if last >= timestamp_seconds and xid(number).severity is Severity.CRITICAL
        }


_MEANING = ("xid", "mnemonic", "class", "action")


def _meaning(number: int) -> tuple[str, ...]:
    row = xid(number)
    return str(number), row.mnemonic, row.severity.value, row.action


GPU_METRICS: tuple[Row[GpuXids], ...] = (
    MetricVec(
        "gpu_xid_errors_total",
        "XID errors since the node booted, as far as known; the frequent and the grave ones are"
        " born at 0.",
        ("xid",),
        lambda x: {str(number): total for number, total in x.totals.items()},
        Kind.COUNTER,
    ),
    MetricVec(
        "gpu_xid_last_timestamp_seconds",
        "When the XID last happened, in seconds since the epoch, with NVIDIA's name for it and the"
        " action to take; only XIDs that did happen.",
        _MEANING,
        lambda x: {_meaning(number): last for number, last in x.last_seconds.items()},
    ),
)

METRICS: tuple[Row[XidView], ...] = (
    MetricVec(
        "gpu_xid_unlisted_errors_total",
        "XID errors at a PCI address where NVML lists no GPU: it was gone when the driver started.",
        ("pci_bus_id", "xid"),
        lambda v: {(bus_id, str(xid)): count.total for (bus_id, xid), count in v.unlisted.items()},
        Kind.COUNTER,
    ),
    MetricVec(
        "gpu_xid_unlisted_last_timestamp_seconds",
        "When that last happened, in seconds since the epoch.",
        ("pci_bus_id", *_MEANING),
        lambda v: {
            (bus_id, *_meaning(xid)): count.last_seconds
            for (bus_id, xid), count in v.unlisted.items()
        },
    ),
    MetricVec(
        "gpu_exporter_xid_source_up",
        "1 while XID errors are taken from this source.",
        ("source",),
        lambda v: {source.value: int(is_up) for source, is_up in v.sources.items()},
    ),
    MetricVec(
        "gpu_exporter_xid_events_total",
        "What each source told of XID errors, by what became of it.",
        ("source", "result"),
        lambda v: {
            (source.value, result.value): times for (source, result), times in v.events.items()
        },
        Kind.COUNTER,
    ),
)
