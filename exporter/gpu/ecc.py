"""ECC: memory errors that were corrected, and those that could not be."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from exporter.fields import Field
from exporter.frozen import dataclass
from exporter.gpu.bounds import count, flag
from exporter.metric import Kind, Metric, MetricVec, Row
from exporter.sampling import Device, FieldRequest, Reader, Tier

# By type and counter. Volatile: since the driver was loaded; aggregate: over the board's life.
TOTALS = {
    ("corrected", "volatile"): Field.ECC_CORRECTED_VOLATILE,
    ("corrected", "aggregate"): Field.ECC_CORRECTED_AGGREGATE,
    ("uncorrected", "volatile"): Field.ECC_UNCORRECTED_VOLATILE,
    ("uncorrected", "aggregate"): Field.ECC_UNCORRECTED_AGGREGATE,
}
# nvmlMemoryErrorType_t, nvmlEccCounterType_t, nvmlMemoryLocation_t. From Turing on, a board tells
# "dram" and "sram" only; those before tell the parts of what is now "sram".
TYPES = {"corrected": 0, "uncorrected": 1}
COUNTERS = {"volatile": 0, "aggregate": 1}
LOCATIONS = {
    "l1_cache": 0,
    "l2_cache": 1,
    "dram": 2,
    "register_file": 3,
    "texture_memory": 4,
    "texture_shm": 5,
    "cbu": 6,
    "sram": 7,
}


@dataclass(frozen=True, slots=True)
class Ecc:
    """Errors by (type, counter)."""

    errors: Mapping[tuple[str, str], float | None]


def read(device: Device, _previous: Ecc | None) -> Ecc:
    """Read fields 3 to 6; with ECC off, the driver refuses them."""
    return Ecc(_totals(device))


def _totals(device: Device) -> dict[tuple[str, str], float | None]:
    return {kind: count(device.field(field)) for kind, field in TOTALS.items()}


@dataclass(frozen=True, slots=True)
class EccLocations:
    """Errors by (type, counter, location), and the totals that they were read with."""

    totals: Mapping[tuple[str, str], float | None]
    errors: Mapping[tuple[str, str, str], float]


def read_locations(device: Device, previous: EccLocations | None) -> EccLocations:
    """Read nvmlDeviceGetMemoryErrorCounter of each location, if the totals have changed.

    A total is the sum over the locations, and counts only grow or start anew: as long as the
    totals stand still, so does every part, and the driver is not asked up to 32 times.
    """
    totals = _totals(device)
    if previous is not None and previous.totals == totals:
        return previous
    if all(total is None for total in totals.values()):  # no ECC, or off
        return EccLocations(totals, {})
    errors = {}
    for kind, counter, location in product(TYPES, COUNTERS, LOCATIONS):
        place = (TYPES[kind], COUNTERS[counter], LOCATIONS[location])
        number = count(device.ask("nvmlDeviceGetMemoryErrorCounter", *place))
        if number is not None:
            errors[kind, counter, location] = number
    return EccLocations(totals, errors)


@dataclass(frozen=True, slots=True)
class EccSram:
    """SRAM errors by (type, counter); aggregate uncorrected ones by source; the verdict on them."""

    errors: Mapping[tuple[str, str], float | None]
    sources: Mapping[str, float | None]
    threshold_exceeded: int | None


def read_sram(device: Device, _previous: EccSram | None) -> EccSram:
    """Read nvmlDeviceGetSramEccErrorStatus (535, Ampere and later), which only root may."""
    status: Any = device.ask("nvmlDeviceGetSramEccErrorStatus")
    if status is None:
        return EccSram({}, {}, None)
    return EccSram(
        errors={
            ("corrected", "volatile"): count(status.volatileCor),
            ("corrected", "aggregate"): count(status.aggregateCor),
            ("uncorrected_parity", "volatile"): count(status.volatileUncParity),
            ("uncorrected_parity", "aggregate"): count(status.aggregateUncParity),
            ("uncorrected_sec_ded", "volatile"): count(status.volatileUncSecDed),
            ("uncorrected_sec_ded", "aggregate"): count(status.aggregateUncSecDed),
        },
        sources={
            "l2": count(status.aggregateUncBucketL2),
            "sm": count(status.aggregateUncBucketSm),
            "pcie": count(status.aggregateUncBucketPcie),
            "microcontroller": count(status.aggregateUncBucketMcu),
            "other": count(status.aggregateUncBucketOther),
        },
        threshold_exceeded=int(status.bThresholdExceeded != 0),
    )


@dataclass(frozen=True, slots=True)
class EccMode:
    """Whether ECC is on now, and whether it will be after the next reset: 1 or 0."""

    enabled: Mapping[str, float | None]


def read_mode(device: Device, _previous: EccMode | None) -> EccMode:
    """Read fields 1 and 2."""
    return EccMode(
        {
            "current": flag(device.field(Field.ECC_MODE_CURRENT)),
            "pending": flag(device.field(Field.ECC_MODE_PENDING)),
        }
    )


READER = Reader(
    "ecc", "ecc", Tier.SLOW, read, tuple(FieldRequest(field) for field in TOTALS.values())
)
LOCATIONS_READER = Reader("ecc_locations", "ecc", Tier.SLOW, read_locations, READER.fields)
SRAM_READER = Reader("ecc_sram", "ecc", Tier.SLOW, read_sram)
MODE_READER = Reader(
    "ecc_mode",
    "ecc",
    Tier.SLOW,
    read_mode,
    (FieldRequest(Field.ECC_MODE_CURRENT), FieldRequest(Field.ECC_MODE_PENDING)),
)

METRICS: tuple[Row[Ecc], ...] = (
    MetricVec(
        "gpu_ecc_errors_total",
        "Memory errors found by ECC: corrected or uncorrected, since the driver was loaded "
        "(volatile) or over the board's life (aggregate).",
        ("type", "counter"),
        lambda e: e.errors,
        Kind.COUNTER,
    ),
)
LOCATIONS_METRICS: tuple[Row[EccLocations], ...] = (
    MetricVec(
        "gpu_ecc_location_errors_total",
        "Parts of gpu_ecc_errors_total by where the error was: dram or sram; before Turing, the "
        "parts of sram.",
        ("type", "counter", "location"),
        lambda e: e.errors,
        Kind.COUNTER,
    ),
)
SRAM_METRICS: tuple[Row[EccSram], ...] = (
    MetricVec(
        "gpu_ecc_sram_errors_total",
        "SRAM errors by what found them: parity, or SEC-DED code (Ampere and later, root only).",
        ("type", "counter"),
        lambda e: e.errors,
        Kind.COUNTER,
    ),
    MetricVec(
        "gpu_ecc_sram_source_errors_total",
        "Uncorrected SRAM errors over the board's life, by source (root only).",
        ("source",),
        lambda e: e.sources,
        Kind.COUNTER,
    ),
    Metric(
        "gpu_ecc_sram_threshold_exceeded",
        "1 if there were more SRAM errors than NVIDIA's field diagnostic allows: replace the "
        "board (root only).",
        lambda e: e.threshold_exceeded,
    ),
)
MODE_METRICS: tuple[Row[EccMode], ...] = (
    MetricVec(
        "gpu_ecc_mode",
        "1 if ECC is on: current, and pending (from the next reset on).",
        ("kind",),
        lambda e: e.enabled,
    ),
)
