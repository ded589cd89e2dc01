"""The nodes that can be simulated: drivers, boards, and what ails them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from types import MappingProxyType

from exporter.frozen import dataclass
from exporter.simulate.ailments import Ailments
from exporter.simulate.board import Board, MigSlice
from exporter.simulate.boards import A100, B200, GB10, H100, L40S, MIG, RTX_4090, T4


@dataclass(frozen=True, slots=True)
class Profile:
    """A node: driver, GPUs in NVML's order, their PCI addresses as NVML writes them, their ails."""

    driver_version: str
    nvml_version: str
    cuda_version: str
    boards: tuple[Board, ...]
    bus_ids: tuple[str, ...]
    ailments: Mapping[int, Ailments] = field(default_factory=dict)


def with_mig(board: Board) -> Board:
    """Return a board with MIG on, and three MIG devices at sparse numbers."""
    return replace(board, nvlinks=None, mig=True, mig_slices=_SLICES, refuses=board.refuses | MIG)


_SLICES = (MigSlice(1, 3), MigSlice(5, 2), MigSlice(13, 1))
_BUSES = ("1B", "43", "52", "61", "9D", "C3", "D1", "DF")  # of a DGX H100
_BUS_IDS = tuple(f"00000000:{bus}:00.0" for bus in _BUSES)

# GPU 1 lost a row of memory and needs a reset; GPU 2 has no spare rows left; GPU 3 has a bad
# NVLink, one that is down, and half of its PCIe lanes; GPU 4 has weak SRAM; GPU 5 is not on the
# fabric, GPU 6 is on a slow one; GPU 7 was left in modes that nobody wants.
_TROUBLES: Mapping[int, Ailments] = MappingProxyType(
    {
        1: Ailments(
            dram_corrected=212,
            dram_uncorrected=1,
            rows_uncorrectable=1,
            row_remap_pending=True,
            channel_repair_pending=True,
            recovery_action=1,  # GPU reset
        ),
        2: Ailments(
            dram_corrected_before=1904,
            dram_uncorrected_before=9,
            rows_correctable=2,
            rows_uncorrectable=8,
            row_remap_failure=True,
        ),
        3: Ailments(links_down=frozenset({5}), link_errors={9: 71}, pcie_lanes=8, pcie_errors=340),
        4: Ailments(
            sram_corrected=31,
            sram_uncorrected=4,
            sram_threshold_exceeded=True,
            recovery_action=4,  # drain and reset
        ),
        5: Ailments(fabric_state=2),  # registration in progress
        6: Ailments(fabric_degraded=True),
        7: Ailments(persistence_off=True, compute_mode=2),  # prohibited
    }
)

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "h100x8": Profile("580.95.05", "13.580.95.05", "13.0", (H100,) * 8, _BUS_IDS),
        "b200x8": Profile("590.48.01", "13.590.48.01", "13.1", (B200,) * 8, _BUS_IDS),
        "b200x8-sick": Profile(
            "590.48.01", "13.590.48.01", "13.1", (B200,) * 8, _BUS_IDS, _TROUBLES
        ),
        "a100-mig": Profile(
            "550.163.01",
            "12.550.163.01",
            "12.4",
            (with_mig(A100), A100),
            _BUS_IDS[:2],
        ),
        "h100-mig": Profile(
            "580.95.05", "13.580.95.05", "13.0", (with_mig(H100), H100), _BUS_IDS[:2]
        ),
        "l40s": Profile("570.172.08", "12.570.172.08", "12.8", (L40S,) * 4, _BUS_IDS[:4]),
        "t4": Profile("535.261.03", "12.535.261.03", "12.2", (T4,), _BUS_IDS[:1]),
        "geforce": Profile("590.48.01", "13.590.48.01", "13.1", (RTX_4090,), ("00000000:01:00.0",)),
        "gb10": Profile("580.95.05", "13.580.95.05", "13.0", (GB10,), ("0000000F:01:00.0",)),
        "none": Profile("", "", "", (), ()),  # no driver on this machine
    }
)
