"""NVLink and PCIe: every generation's counters, with their units, on the boards that have them."""

from __future__ import annotations

import pytest
from nvml_loaded import Node, flat
from scripted import Clock
from simulated_node import take

from exporter.catalogue import GPU_READERS
from exporter.fields import Field
from exporter.gpu.nvlinks import bit_error_ratio
from exporter.sampling import Tier
from exporter.simulate import Planted, SimulatedDriver

UP_TO_HOPPER = {"replay": 161, "recovery": 162, "crc": 163}
BLACKWELL = {
    "malformed_packet": 206,
    "buffer_overrun": 207,
    "receive": 208,
    "remote": 209,
    "general": 210,
    "local_integrity": 211,
    "transmit_discard": 212,
    "recovery_successful": 213,
    "recovery_failed": 214,
    "effective": 219,
    "symbol": 221,
}
PCIE = {
    "l0_to_recovery": 169,
    "correctable": 173,
    "nak_received": 174,
    "receiver": 175,
    "bad_tlp": 176,
    "nak_sent": 177,
    "bad_dllp": 178,
    "non_fatal": 179,
    "fatal": 180,
    "unsupported_request": 181,
    "lcrc": 182,
}


@pytest.mark.parametrize(
    ("profile", "links", "kinds", "megabytes", "version"),
    [
        ("h100x8", 18, UP_TO_HOPPER, 26562, "4.0"),
        ("b200x8", 18, BLACKWELL, 53125, "5.0"),
        ("a100-mig", 12, UP_TO_HOPPER, 25000, "3.0"),
    ],
)
def test_each_generation_of_nvlink(
    node: Node, profile: str, links: int, kinds: dict[str, int], megabytes: int, version: str
) -> None:
    """Every error counter is that of its field and link; speed, version and remote end are told."""
    planted = [f"gpu0.field.{field}.3.value={field}" for field in kinds.values()]
    node.connect(f"profile={profile}", "gpu0.mig_mode=0", "gpu0.link_errors=5", *planted)
    device = node.device()
    read = node.read(device, Tier.STATIC, Tier.SLOW)
    found = read["nvlinks"]
    assert found.errors == {
        (str(link), kind): field if link == 3 else 5
        for link in range(links)
        for kind, field in kinds.items()
    }
    names = {str(link) for link in range(links)}
    assert found.speed_bytes_per_second == dict.fromkeys(names, megabytes * 1e6)
    assert set(read["nvlink_peers"].labels()) == {
        (str(link), version, "switch", f"0000:{5 + link % 4:02x}:00.0") for link in range(links)
    }
    assert set(found.data_errors) == ({"crc", "ecc"} if kinds is UP_TO_HOPPER else set())
    assert bool(found.bit_error_ratio) == (kinds is BLACKWELL)


def test_bytes_of_the_links_add_up(node: Node) -> None:
    """The bytes of all links together are those of the GPU, from either of the two fields."""
    node.connect("profile=b200x8")
    device = node.device()
    whole = node.read(device, Tier.FAST)["nvlink"]
    links = node.read(device, Tier.SLOW)["nvlinks"]
    assert sum(links.transmit_bytes.values()) == whole.transmit_bytes > 0
    assert sum(links.receive_bytes.values()) == whole.receive_bytes > 0
    node.put("gpu0.field.138.ret=3", "gpu0.field.139.ret=3")
    substituted = node.device()
    node.read(substituted, Tier.SLOW)
    assert node.read(substituted, Tier.SLOW)["nvlinks"].transmit_bytes == links.transmit_bytes


@pytest.mark.parametrize(
    ("packed", "ratio"),
    [
        (0x10F, 1e-15),
        (0x308, 3e-8),
        (0xF0C, 15e-12),
        (0x00A, 0.0),
        (0x100, 1.0),
        (0xFFF, 0.0),  # 15e-255: no error seen
        (0xABCD10F, 1e-15),  # the rest of the word says nothing
    ],
)
def test_bit_error_rates(packed: int, ratio: float) -> None:
    """A packed rate is its mantissa times ten to the minus exponent; the floor of firmware is 0."""
    assert bit_error_ratio(packed) == ratio


def test_bit_error_rates_are_of_their_link(node: Node) -> None:
    """Blackwell's two rates, link by link."""
    node.connect(
        "profile=b200x8", f"gpu0.field.220.value={0x30B}", f"gpu0.field.222.7.value={0x205}"
    )
    ratios = node.read(node.device(), Tier.SLOW)["nvlinks"].bit_error_ratio
    assert {ratio for (_, kind), ratio in ratios.items() if kind == "effective"} == {3e-11}
    assert ratios["7", "symbol"] == 2e-5
    assert ratios["6", "symbol"] == 1e-15


def test_a_link_that_is_down(node: Node) -> None:
    """It is shown as down, without speed, counters or remote end; the others have theirs."""
    node.connect("gpu0.links_inactive=0x20")
    read = node.read(node.device(), Tier.STATIC, Tier.SLOW)
    assert read["nvlinks"].active["5"] == 0
    for group in ("speed_bytes_per_second", "transmit_bytes", "receive_bytes"):
        assert set(getattr(read["nvlinks"], group)) == {str(n) for n in range(18) if n != 5}
    assert "5" not in {link for link, _ in read["nvlinks"].errors}
    assert set(read["nvlink_peers"].versions) == {str(n) for n in range(18) if n != 5}


@pytest.mark.parametrize("profile", ["l40s", "t4", "geforce", "gb10"])
def test_boards_without_links(node: Node, profile: str) -> None:
    """A board without NVLink has not one value of it, and is not asked for ever."""
    node.connect(f"profile={profile}")
    device = node.device()
    node.read(device, Tier.STATIC, Tier.SLOW)
    seen = flat(node.read(device, Tier.STATIC, Tier.SLOW))  # now without what was refused
    assert not [name for name in seen if name.startswith("nvlink")]
    before = node.calls().fields[0]
    node.read(device, Tier.SLOW)
    after = node.calls().fields[0]
    asked = {field for field in after if after[field] > before[field]}
    assert not asked & {field.value for field in Field if field.name.startswith("NVLINK")}


@pytest.mark.parametrize("profile", ["h100x8", "b200x8", "a100-mig", "l40s", "t4", "geforce"])
def test_pcie_errors(node: Node, profile: str) -> None:
    """Each type is that of its field; a GPU in a slot of an older generation is told from one."""
    node.connect(f"profile={profile}", *(f"gpu0.field.{n}.value={n}" for n in PCIE.values()))
    link = node.read(node.device(), Tier.SLOW)["pcie_link"]
    assert link.errors == PCIE
    assert link.generation["gpu_max"] == link.generation["max"]


def test_a_gpu_that_is_in_no_slot_has_no_pcie_errors(node: Node) -> None:
    """GB10 shares a die with the CPU."""
    node.connect("profile=gb10")
    assert node.read(node.device(), Tier.SLOW)["pcie_link"].errors == {}


def test_the_slow_tick_costs_few_calls(node: Node) -> None:
    """All fields of all links and of PCIe come in two calls, and none that was refused again."""
    node.connect()
    device = node.device()
    node.read(device, Tier.SLOW)
    before = node.calls()
    node.read(device, Tier.SLOW)
    calls = node.calls()
    assert calls.count("nvmlDeviceGetFieldValues") - before.count("nvmlDeviceGetFieldValues") == 2
    assert calls.count("nvmlDeviceGetNvLinkState") == 0
    assert not {n for n in calls.fields[0] if calls.fields[0][n] > before.fields[0][n]} & set(
        BLACKWELL.values()
    )


def test_planted_faults_of_the_simulation() -> None:
    """A link down, errors on another and a narrow PCIe link can be planted, and taken back."""
    planted: dict[int, Planted] = {}
    driver = SimulatedDriver("h100x8", Clock(), planted=planted)
    device = driver.open(driver.connect()[1][2], GPU_READERS, 3.0)
    sound = take(device, (Tier.SLOW,), {})
    planted[2] = Planted(
        calls={"nvmlDeviceGetCurrPcieLinkWidth": 8},
        fields={
            (Field.NVLINK_STATE, 4): 0,
            (Field.NVLINK_CRC_ERRORS, 9): 71,
            (Field.NVLINK_SPEED, 4): None,
        },
    )
    sick = take(device, (Tier.SLOW,), {})
    assert sick["pcie_link"].width_lanes == {"current": 8, "max": 16}
    assert sick["nvlinks"].active == {**sound["nvlinks"].active, "4": 0}
    assert sick["nvlinks"].errors == {**sound["nvlinks"].errors, ("9", "crc"): 71}
    assert "4" not in sick["nvlinks"].speed_bytes_per_second
    planted.clear()
    again = take(device, (Tier.SLOW,), {})
    assert (again["nvlinks"], again["pcie_link"]) == (sound["nvlinks"], sound["pcie_link"])
