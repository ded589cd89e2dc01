"""What ails a simulated GPU, as data: planted for demos, alerts and tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from exporter.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Ailments:
    """One GPU's troubles; as it stands, it has none.

    Errors are counts since the driver was loaded, those `_before` of the time before that.
    `link_errors` are those of an NVLink, of each type; `pcie_lanes` those that still work.
    `recovery_action`, `compute_mode` and `fabric_state` are NVML's numbers.
    """

    dram_corrected: int = 0
    dram_corrected_before: int = 0
    dram_uncorrected: int = 0
    dram_uncorrected_before: int = 0
    sram_corrected: int = 0
    sram_uncorrected: int = 0
    sram_threshold_exceeded: bool = False
    rows_correctable: int = 0
    rows_uncorrectable: int = 0
    row_remap_pending: bool = False
    row_remap_failure: bool = False
    channel_repair_pending: bool = False
    pages_single_bit: int = 0
    pages_double_bit: int = 0
    pages_pending: bool = False
    recovery_action: int = 0
    fabric_state: int = 3
    fabric_degraded: bool = False
    persistence_off: bool = False
    compute_mode: int = 0
    links_down: frozenset[int] = frozenset()
    link_errors: Mapping[int, int] = field(default_factory=dict)
    pcie_lanes: int | None = None
    pcie_errors: int = 0


SOUND = Ailments()
