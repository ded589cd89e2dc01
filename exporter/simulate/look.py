"""One simulated GPU at one moment, and what several answers tell of it in NVML's units."""

from __future__ import annotations

from exporter.frozen import dataclass
from exporter.simulate.ailments import SOUND, Ailments
from exporter.simulate.board import Board
from exporter.simulate.scenario import Moment
from exporter.simulate.tenants import Tenant

# Of one lane, after encoding, by generation.
PCIE_LANE_BYTES_PER_SECOND = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9}
PCIE_TRANSMIT_SHARE = 0.35  # of what the GPU receives: answers are shorter than prompts
REPLAY_GPU, REPLAY_SECONDS = 6, 240.0  # one GPU sits in a bad slot
LINK_INACTIVE, LINK_ACTIVE = 0, 1


@dataclass(frozen=True, slots=True)
class Look:
    """One GPU at one moment."""

    board: Board
    gpu: int
    uuid: str
    bus_id: str
    moment: Moment
    ails: Ailments = SOUND
    driver_version: str = ""
    tenants: tuple[Tenant, ...] = ()


def min_milliwatts(look: Look) -> int:
    """Return the lowest power limit that can be set."""
    return 1000 * look.board.power.min_watts


def default_milliwatts(look: Look) -> int:
    """Return the power limit from the factory, which is in force."""
    return 1000 * look.board.power.default_watts


def max_milliwatts(look: Look) -> int:
    """Return the highest power limit that can be set."""
    return 1000 * look.board.power.max_watts


def pcie_rate(look: Look, share: float) -> float:
    """Return bytes per second for a share of the link's bandwidth."""
    board = look.board
    return share * board.pcie_lanes * PCIE_LANE_BYTES_PER_SECOND[board.pcie_generation]


def pcie_replays(look: Look) -> int:
    """Return how many PCIe packets were sent again."""
    return int(look.moment.seconds // REPLAY_SECONDS) if look.gpu == REPLAY_GPU else 0


def has_link(look: Look, link: int) -> bool:
    """Return whether the GPU has this NVLink, and it is up."""
    nvlinks = look.board.nvlinks
    return nvlinks is not None and link < nvlinks.count and link not in look.ails.links_down


def link_state(look: Look, link: int) -> int | None:
    """Return the state of an NVLink (field 165)."""
    if link in look.ails.links_down:
        return LINK_INACTIVE
    return LINK_ACTIVE if has_link(look, link) else None
