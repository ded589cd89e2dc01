"""Step 2: what the GPUs say of their memory: ECC, rows, pages, repairs."""

from __future__ import annotations

from collections.abc import Callable

from exporter.doctor.finding import Kind, Severity, Step, change
from exporter.doctor.words import counted
from exporter.snapshot import Gpu

STEP = Step.HEALTH
MANY_CORRECTED = 100  # errors since the driver was loaded
MANY_PAGES = 60  # from here on, NVIDIA's guide to RMA takes a board back
NO_ECC_BY_DESIGN = ("GeForce", "GeForce RTX", "Titan", "Titan RTX")

UNCORRECTED = Kind(
    "ecc-uncorrected",
    STEP,
    Severity.ERROR,
    "ECC has found memory errors that it could not correct since the driver was loaded; programs "
    "that used that memory were ended, or have computed with wrong data.",
    "Drain the GPU, then nvidia-smi --gpu-reset -i <GPU>, which takes the bad row out of use. If "
    "it comes again, have the board checked with NVIDIA's field diagnostic.",
)
CORRECTED = Kind(
    "ecc-corrected",
    STEP,
    Severity.NOTE,
    f"ECC has corrected {MANY_CORRECTED} memory errors or more since the driver was loaded.",
    "Nothing now. Watch gpu_ecc_errors_total; if it keeps growing, plan to replace the board.",
)
SRAM = Kind(
    "sram-threshold",
    STEP,
    Severity.ERROR,
    "The board has had more SRAM errors than NVIDIA's limit.",
    "Drain the GPU and have the board replaced.",
)
NO_ECC = Kind(
    "ecc-off",
    STEP,
    Severity.WARNING,
    "ECC is switched off on a board that has it: memory errors go unseen into results.",
    "nvidia-smi -e 1 -i <GPU>, then reset the GPU or reboot.",
)
ECC_PENDING = Kind(
    "ecc-pending",
    STEP,
    Severity.NOTE,
    "ECC is to be switched on or off at the next reset of the GPU.",
    "nvidia-smi --gpu-reset -i <GPU> when nothing uses it.",
)
REMAP_FAILED = Kind(
    "row-remap-failed",
    STEP,
    Severity.ERROR,
    "A bad row of memory could not be replaced: there are no spare rows for it.",
    "Drain the GPU and have the board replaced.",
)
REMAP_PENDING = Kind(
    "row-remap-pending",
    STEP,
    Severity.WARNING,
    "A bad row of memory waits for a reset of the GPU to be replaced.",
    "Drain the GPU, then nvidia-smi --gpu-reset -i <GPU>.",
)
FEW_SPARES = Kind(
    "spare-rows-low",
    STEP,
    Severity.WARNING,
    "Some memory banks have few or no spare rows left.",
    "Plan to replace the board: the next bad row there cannot be replaced.",
)
REPAIR = Kind(
    "repair-pending",
    STEP,
    Severity.WARNING,
    "A repair of the board waits for a reset of the GPU.",
    "Drain the GPU, then nvidia-smi --gpu-reset -i <GPU>.",
)
PAGES_PENDING = Kind(
    "retired-pages-pending",
    STEP,
    Severity.WARNING,
    "Bad pages of memory wait for a reboot to be taken out of use.",
    "Drain the node and reboot it.",
)
MANY_RETIRED = Kind(
    "retired-pages-many",
    STEP,
    Severity.WARNING,
    f"{MANY_PAGES} pages of memory or more are out of use.",
    "Plan to replace the board.",
)


def _errors(gpu: Gpu, kind: str) -> int:
    """Return memory errors since the driver was loaded."""
    return int(gpu.ecc.errors.get((kind, "volatile")) or 0) if gpu.ecc else 0


def _uncorrected(gpu: Gpu) -> str | None:
    errors = _errors(gpu, "uncorrected")
    return f"{counted(errors, 'uncorrected memory error')}" if errors else None


def _corrected(gpu: Gpu) -> str | None:
    errors = _errors(gpu, "corrected")
    return f"{errors} corrected memory errors" if errors >= MANY_CORRECTED else None


def _sram(gpu: Gpu) -> str | None:
    is_so = gpu.ecc_sram and gpu.ecc_sram.threshold_exceeded
    return "too many SRAM errors" if is_so else None


def _ecc_off(gpu: Gpu) -> str | None:
    brand = gpu.board_info.brand if gpu.board_info else ""
    mode = gpu.ecc_mode.enabled.get("current") if gpu.ecc_mode else None
    return "ECC is off" if mode == 0 and brand not in NO_ECC_BY_DESIGN else None


def _ecc_pending(gpu: Gpu) -> str | None:
    return change("ECC", gpu.ecc_mode.enabled) if gpu.ecc_mode else None


def _remap_failed(gpu: Gpu) -> str | None:
    is_so = gpu.remapped_rows and gpu.remapped_rows.failure
    return "a row of memory could not be remapped" if is_so else None


def _remap_pending(gpu: Gpu) -> str | None:
    is_so = gpu.remapped_rows and gpu.remapped_rows.pending
    return "a row of memory waits to be remapped" if is_so else None


def _few_spares(gpu: Gpu) -> str | None:
    banks = gpu.row_remap_banks.banks if gpu.row_remap_banks else {}
    none, low = int(banks.get("none", 0)), int(banks.get("low", 0))
    if not none and not low:
        return None
    return f"{counted(none, 'memory bank')} without spare rows, {low} with few"


def _repair(gpu: Gpu) -> str | None:
    pending = gpu.repair.pending if gpu.repair else {}
    units = [unit for unit, waits in pending.items() if waits]
    return f"a repair waits: {', '.join(units)}" if units else None


def _pages_pending(gpu: Gpu) -> str | None:
    is_so = gpu.retired_pages and gpu.retired_pages.pending
    return "pages of memory wait to be retired" if is_so else None


def _many_retired(gpu: Gpu) -> str | None:
    counts = gpu.retired_pages.pages.values() if gpu.retired_pages else ()
    pages = int(sum(count or 0 for count in counts))
    return f"{pages} pages of memory are retired" if pages >= MANY_PAGES else None


SAYINGS: tuple[tuple[Kind, Callable[[Gpu], str | None]], ...] = (
    (UNCORRECTED, _uncorrected),
    (SRAM, _sram),
    (REMAP_FAILED, _remap_failed),
    (REMAP_PENDING, _remap_pending),
    (FEW_SPARES, _few_spares),
    (REPAIR, _repair),
    (PAGES_PENDING, _pages_pending),
    (MANY_RETIRED, _many_retired),
    (NO_ECC, _ecc_off),
    (ECC_PENDING, _ecc_pending),
    (CORRECTED, _corrected),
)
