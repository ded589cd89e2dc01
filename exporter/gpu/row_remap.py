"""How the board repairs its memory: rows remapped (Ampere and later), pages retired (before)."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.fields import Field
from exporter.frozen import dataclass
from exporter.gpu.bounds import count, flag, within
from exporter.metric import Metric, MetricVec, Row
from exporter.sampling import Device, FieldRequest, Reader, Tier

AVAILABILITIES = ("max", "high", "partial", "low", "none")
MAX_BANKS = 0xFFFFFFFE  # all bits: "no value"


@dataclass(frozen=True, slots=True)
class RemappedRows:
    """Rows remapped by the errors that led to it; whether more wait, and whether one failed."""

    rows: Mapping[str, float | None]
    inactive_rows: Mapping[str, float | None]
    pending: float | None
    failure: float | None


def read(device: Device, _previous: RemappedRows | None) -> RemappedRows:
    """Read fields 142 to 145, and 301 and 302 (610); refused while MIG is on."""
    return RemappedRows(
        rows={
            "correctable": count(device.field(Field.REMAPPED_ROWS_CORRECTABLE)),
            "uncorrectable": count(device.field(Field.REMAPPED_ROWS_UNCORRECTABLE)),
        },
        inactive_rows={
            "correctable": count(device.field(Field.REMAPPED_ROWS_CORRECTABLE_INACTIVE)),
            "uncorrectable": count(device.field(Field.REMAPPED_ROWS_UNCORRECTABLE_INACTIVE)),
        },
        pending=flag(device.field(Field.ROW_REMAP_PENDING)),
        failure=flag(device.field(Field.ROW_REMAP_FAILURE)),
    )


@dataclass(frozen=True, slots=True)
class RowRemapBanks:
    """Memory banks by how many of their spare rows are left."""

    banks: Mapping[str, float]


def read_banks(device: Device, _previous: RowRemapBanks | None) -> RowRemapBanks:
    """Read nvmlDeviceGetRowRemapperHistogram. No bank at all is no histogram."""
    histogram = device.ask("nvmlDeviceGetRowRemapperHistogram")
    if histogram is None:
        return RowRemapBanks({})
    counts = {a: within(getattr(histogram, a), 0, MAX_BANKS) for a in AVAILABILITIES}
    banks = {a: number for a, number in counts.items() if number is not None}
    return RowRemapBanks(banks if any(banks.values()) else {})


@dataclass(frozen=True, slots=True)
class Repair:
    """Whether a repair waits for the next reset, by unit: 1 or 0."""

    pending: Mapping[str, float | None]


def read_repair(device: Device, _previous: Repair | None) -> Repair:
    """Read nvmlDeviceGetRepairStatus (580, Ampere and later)."""
    channel, tpc = device.ask("nvmlDeviceGetRepairStatus") or (None, None)
    return Repair({"memory_channel": _flag(channel), "tpc": _flag(tpc)})


@dataclass(frozen=True, slots=True)
class RetiredPages:
    """Pages taken out of use, by cause, and whether more wait for a reboot."""

    pages: Mapping[str, float | None]
    pending: float | None


def read_retired(device: Device, _previous: RetiredPages | None) -> RetiredPages:
    """Read fields 29 to 31 (before Ampere)."""
    return RetiredPages(
        pages={
            "single_bit_ecc": count(device.field(Field.RETIRED_PAGES_SINGLE_BIT)),
            "double_bit_ecc": count(device.field(Field.RETIRED_PAGES_DOUBLE_BIT)),
        },
        pending=flag(device.field(Field.RETIRED_PAGES_PENDING)),
    )


def _flag(number: int | None) -> int | None:
    return None if number is None else int(number != 0)


READER = Reader(
    "remapped_rows",
    "row_remap",
    Tier.SLOW,
    read,
    (
        FieldRequest(Field.REMAPPED_ROWS_CORRECTABLE),
        FieldRequest(Field.REMAPPED_ROWS_UNCORRECTABLE),
        FieldRequest(Field.REMAPPED_ROWS_CORRECTABLE_INACTIVE),
        FieldRequest(Field.REMAPPED_ROWS_UNCORRECTABLE_INACTIVE),
        FieldRequest(Field.ROW_REMAP_PENDING),
        FieldRequest(Field.ROW_REMAP_FAILURE),
    ),
)
BANKS_READER = Reader("row_remap_banks", "row_remap", Tier.SLOW, read_banks)
REPAIR_READER = Reader("repair", "row_remap", Tier.SLOW, read_repair)
RETIRED_READER = Reader(
    "retired_pages",
    "row_remap",
    Tier.SLOW,
    read_retired,
    (
        FieldRequest(Field.RETIRED_PAGES_SINGLE_BIT),
        FieldRequest(Field.RETIRED_PAGES_DOUBLE_BIT),
        FieldRequest(Field.RETIRED_PAGES_PENDING),
    ),
)

METRICS: tuple[Row[RemappedRows], ...] = (
    MetricVec(
        "gpu_remapped_rows",
        "Memory rows replaced by spare ones, by the errors that led to it (Ampere and later).",
        ("type",),
        lambda r: r.rows,
    ),
    MetricVec(
        "gpu_remapped_rows_inactive",
        "Row remappings that are not in use, by the errors that led to them (driver 610).",
        ("type",),
        lambda r: r.inactive_rows,
    ),
    Metric(
        "gpu_row_remap_pending",
        "1 if rows wait for a reset of the GPU to be remapped.",
        lambda r: r.pending,
    ),
    Metric(
        "gpu_row_remap_failure",
        "1 if a row could not be remapped: replace the board.",
        lambda r: r.failure,
    ),
)
BANKS_METRICS: tuple[Row[RowRemapBanks], ...] = (
    MetricVec(
        "gpu_row_remap_banks",
        "Memory banks by how many spare rows they have left: max, high, partial, low, none.",
        ("availability",),
        lambda b: b.banks,
    ),
)
REPAIR_METRICS: tuple[Row[Repair], ...] = (
    MetricVec(
        "gpu_repair_pending",
        "1 if a repair of this unit waits for a reset: memory_channel, or tpc (a group of SMs).",
        ("unit",),
        lambda r: r.pending,
    ),
)
RETIRED_METRICS: tuple[Row[RetiredPages], ...] = (
    MetricVec(
        "gpu_retired_pages",
        "Memory pages taken out of use, by cause (before Ampere).",
        ("cause",),
        lambda r: r.pages,
    ),
    Metric(
        "gpu_retired_pages_pending",
        "1 if pages wait for a reboot to be retired.",
        lambda r: r.pending,
    ),
)
