"""What the simulated driver answers about the health of a GPU, in NVML's units.

None stands for NVML_ERROR_NOT_SUPPORTED.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

from exporter.fields import Field
from exporter.simulate.look import Look

CORRECTED, UNCORRECTED = 0, 1  # nvmlMemoryErrorType_t
VOLATILE, AGGREGATE = 0, 1  # nvmlEccCounterType_t
DRAM, SRAM = 2, 7  # nvmlMemoryLocation_t
FABRIC_COMPLETED = 3
FABRIC_HEALTHY, FABRIC_UNHEALTHY = 1, 2
ALL_WELL = 0b01_01_0001_10_10_10_10  # manager connected, partition assigned, configured, no trouble
BANDWIDTH_BITS, BANDWIDTH_DEGRADED = 0b11, 0b01
CLIQUE = 1


def _ecc_mode(look: Look, _scope: int) -> int | None:
    return None if look.board.ecc is None else int(look.board.ecc)


def _errors(look: Look, kind: int, counter: int, location: int) -> int | None:
    """Answer with the errors of one place; volatile ones are part of the aggregate."""
    if not look.board.ecc or location not in (DRAM, SRAM):
        return None
    ails = look.ails
    now, before = {
        (CORRECTED, DRAM): (ails.dram_corrected, ails.dram_corrected_before),
        (CORRECTED, SRAM): (ails.sram_corrected, 0),
        (UNCORRECTED, DRAM): (ails.dram_uncorrected, ails.dram_uncorrected_before),
        (UNCORRECTED, SRAM): (ails.sram_uncorrected, 0),
    }[kind, location]
    return now + before if counter == AGGREGATE else now


def _total(kind: int, counter: int) -> Callable[[Look, int], int | None]:
    def total(look: Look, _scope: int) -> int | None:
        dram, sram = (_errors(look, kind, counter, place) for place in (DRAM, SRAM))
        return None if dram is None or sram is None else dram + sram

    return total


def _sram(look: Look) -> SimpleNamespace | None:
    """Answer as to root: SEC-DED found all, in the L2 cache."""
    if not look.board.ecc or look.board.row_banks is None:
        return None
    corrected, uncorrected = look.ails.sram_corrected, look.ails.sram_uncorrected
    return SimpleNamespace(
        volatileCor=corrected,
        aggregateCor=corrected,
        volatileUncParity=0,
        aggregateUncParity=0,
        volatileUncSecDed=uncorrected,
        aggregateUncSecDed=uncorrected,
        aggregateUncBucketL2=uncorrected,
        aggregateUncBucketSm=0,
        aggregateUncBucketPcie=0,
        aggregateUncBucketMcu=0,
        aggregateUncBucketOther=0,
        bThresholdExceeded=int(look.ails.sram_threshold_exceeded),
    )


def _banks(look: Look) -> SimpleNamespace | None:
    """Answer that each remapped row is in a bank of its own; one without spares failed."""
    banks = look.board.row_banks
    if banks is None:
        return None
    ails = look.ails
    rows = ails.rows_correctable + ails.rows_uncorrectable
    empty = int(ails.row_remap_failure)
    return SimpleNamespace(max=banks - rows - empty, high=rows, partial=0, low=0, none=empty)


def _rows(count: Callable[[Look], int]) -> Callable[[Look, int], int | None]:
    """Return an answer about remapped rows, which a GPU in MIG mode refuses."""
    return lambda look, _: None if look.board.row_banks is None or look.board.mig else count(look)


def _pages(count: Callable[[Look], int]) -> Callable[[Look, int], int | None]:
    return lambda look, _: count(look) if look.board.retires_pages else None


def _margin(limit: str) -> Callable[[Look, int], int | None]:
    """Return a threshold relative to the highest temperature of normal operation."""

    def margin(look: Look, _scope: int) -> int | None:
        cooling = look.board.cooling
        celsius: int | None = getattr(cooling, limit)
        if not cooling.tells_margin or cooling.gpu_max_celsius is None or celsius is None:
            return None
        return cooling.gpu_max_celsius - celsius

    return margin


def _memory_margin(look: Look, _scope: int) -> int | None:
    return 0 if look.board.cooling.tells_margin else None


def _margin_celsius(look: Look) -> int | None:
    highest = look.board.cooling.gpu_max_celsius
    if highest is None or not look.board.cooling.tells_margin:
        return None
    return highest - round(look.moment.core_celsius)


def _fabric(look: Look) -> SimpleNamespace | None:
    if not look.board.has_fabric:
        return None
    ails = look.ails
    completed = ails.fabric_state == FABRIC_COMPLETED
    mask, summary = ALL_WELL, FABRIC_HEALTHY
    if ails.fabric_degraded:
        mask, summary = mask & ~BANDWIDTH_BITS | BANDWIDTH_DEGRADED, FABRIC_UNHEALTHY
    has_health = completed and look.board.tells_fabric_health
    return SimpleNamespace(
        state=ails.fabric_state,
        status=0,
        cliqueId=CLIQUE if completed else 0,
        clusterUuid=bytes(16),  # of a fabric that is one node
        healthMask=mask if has_health else 0,
        healthSummary=summary if has_health else 0,
    )


def _mig_mode(look: Look) -> list[int] | None:
    return None if look.board.mig is None else [int(look.board.mig)] * 2


def _confidential(look: Look) -> SimpleNamespace | None:
    if not look.board.has_confidential:
        return None
    return SimpleNamespace(environment=0, ccFeature=0, devToolsMode=0)


FIELDS: Mapping[Field, Callable[[Look, int], float | None]] = MappingProxyType(
    {
        Field.ECC_MODE_CURRENT: _ecc_mode,
        Field.ECC_MODE_PENDING: _ecc_mode,
        Field.ECC_CORRECTED_VOLATILE: _total(CORRECTED, VOLATILE),
        Field.ECC_CORRECTED_AGGREGATE: _total(CORRECTED, AGGREGATE),
        Field.ECC_UNCORRECTED_VOLATILE: _total(UNCORRECTED, VOLATILE),
        Field.ECC_UNCORRECTED_AGGREGATE: _total(UNCORRECTED, AGGREGATE),
        Field.REMAPPED_ROWS_CORRECTABLE: _rows(lambda look: look.ails.rows_correctable),
        Field.REMAPPED_ROWS_UNCORRECTABLE: _rows(lambda look: look.ails.rows_uncorrectable),
        Field.ROW_REMAP_PENDING: _rows(lambda look: int(look.ails.row_remap_pending)),
        Field.ROW_REMAP_FAILURE: _rows(lambda look: int(look.ails.row_remap_failure)),
        Field.REMAPPED_ROWS_CORRECTABLE_INACTIVE: lambda *_: None,  # from driver 610 on
        Field.REMAPPED_ROWS_UNCORRECTABLE_INACTIVE: lambda *_: None,
        Field.RETIRED_PAGES_SINGLE_BIT: _pages(lambda look: look.ails.pages_single_bit),
        Field.RETIRED_PAGES_DOUBLE_BIT: _pages(lambda look: look.ails.pages_double_bit),
        Field.RETIRED_PAGES_PENDING: _pages(lambda look: int(look.ails.pages_pending)),
        Field.RECOVERY_ACTION: lambda look, _: look.ails.recovery_action,
        Field.MARGIN_SHUTDOWN: _margin("shutdown_celsius"),
        Field.MARGIN_SLOWDOWN: _margin("slowdown_celsius"),
        Field.MARGIN_MEMORY_MAX: _memory_margin,
        Field.MARGIN_GPU_MAX: _margin("gpu_max_celsius"),
    }
)
CALLS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "nvmlDeviceGetMemoryErrorCounter": _errors,
        "nvmlDeviceGetSramEccErrorStatus": _sram,
        "nvmlDeviceGetRowRemapperHistogram": _banks,
        "nvmlDeviceGetRepairStatus": lambda look: (
            None if look.board.row_banks is None else [int(look.ails.channel_repair_pending), 0]
        ),
        "nvmlDeviceGetMarginTemperature": _margin_celsius,
        "nvmlDeviceGetGpuFabricInfoV": _fabric,
        "nvmlDeviceGetPersistenceMode": lambda look: int(not look.ails.persistence_off),
        "nvmlDeviceGetComputeMode": lambda look: look.ails.compute_mode,
        "nvmlDeviceGetMigMode": _mig_mode,
        "nvmlSystemGetConfComputeState": _confidential,
    }
)
