"""What may be wrong with a GPU that answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from exporter.snapshot import Gpu

CRITICAL, WARNING = "critical", "warning"

# The first that holds is told: the others come with it.
SLOWDOWNS = {
    "hw_thermal_slowdown": "is too hot: the hardware slows it down",
    "sw_thermal_slowdown": "is hot: the driver slows it down",
    "hw_power_brake_slowdown": "is slowed down by the power brake of its server",
}


def ailments(gpu: Gpu) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong: in one word, how bad, and as the rest of a sentence."""
    for what, severity, check in CHECKS:
        text = check(gpu)
        if text is not None:
            yield what, severity, text


def _recovery(gpu: Gpu) -> str | None:
    word = gpu.recovery.word if gpu.recovery and gpu.recovery.action else None
    return None if word is None else f"is not well: the driver asks for {word.replace('_', ' ')}"


def _remap_failure(gpu: Gpu) -> str | None:
    rows = gpu.remapped_rows
    return "has a bad row of memory that could not be remapped" if rows and rows.failure else None


def _sram(gpu: Gpu) -> str | None:
    sram = gpu.ecc_sram
    return "has had more SRAM errors than it may" if sram and sram.threshold_exceeded else None


def _fabric(gpu: Gpu) -> str | None:
    fabric = gpu.fabric
    if fabric is None or (fabric.registered != 0 and fabric.healthy != 0):
        return None
    if fabric.registered == 0:
        return "is not registered with the NVLink fabric: see the fabric manager"
    return "has an unhealthy NVLink fabric"


def _uncorrected(gpu: Gpu) -> str | None:
    count = gpu.ecc.errors.get(("uncorrected", "volatile")) if gpu.ecc else None
    return f"has had uncorrected memory errors: {count:g}" if count else None


def _reset_wanted(gpu: Gpu) -> str | None:
    rows, pages, repair = gpu.remapped_rows, gpu.retired_pages, gpu.repair
    if rows and rows.pending:
        return "has rows of memory to be remapped: that takes a reset"
    if pages and pages.pending:
        return "has pages of memory to be retired: that takes a reboot"
    if repair and any(repair.pending.values()):
        return "has a repair to be done: that takes a reset"
    return None


def _license(gpu: Gpu) -> str | None:
    licensed = gpu.vgpu_license.licensed if gpu.vgpu_license else {}
    return "is a vGPU without a license" if licensed and not any(licensed.values()) else None


def _slowdown(gpu: Gpu) -> str | None:
    active = gpu.clocks.active if gpu.clocks else {}
    return next((text for reason, text in SLOWDOWNS.items() if active.get(reason)), None)


def _lanes(gpu: Gpu) -> str | None:
    lanes = gpu.pcie_link.width_lanes if gpu.pcie_link else {}
    now, most = lanes.get("current"), lanes.get("max")
    if now is None or most is None or now >= most:
        return None
    return f"has {now:g} of {most:g} PCIe lanes"


def _links(gpu: Gpu) -> str | None:
    active = gpu.nvlinks.active if gpu.nvlinks else {}
    links, up = len(active), sum(active.values())
    # None up: nothing is connected.
    return f"has {links - up:g} of {links} NVLinks down" if 0 < up < links else None


CHECKS: tuple[tuple[str, str, Callable[[Gpu], str | None]], ...] = (
    ("recovery_action", CRITICAL, _recovery),
    ("row_remap_failure", CRITICAL, _remap_failure),
    ("sram_errors", CRITICAL, _sram),
    ("fabric", CRITICAL, _fabric),
    ("ecc_uncorrected", WARNING, _uncorrected),
    ("reset_wanted", WARNING, _reset_wanted),
    ("vgpu_license", WARNING, _license),
    ("slowdown", WARNING, _slowdown),
    ("pcie_width", WARNING, _lanes),
    ("nvlink_down", WARNING, _links),
)
