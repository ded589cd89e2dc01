"""Health of a GPU, from the driver's structures and fields to the series of the page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace

import pytest
from nvml_loaded import PLAN, Node
from simulated_node import Node as SimulatedNode
from simulated_node import take

from exporter.board import Plan
from exporter.catalogue import GPU_READERS
from exporter.exposition import Page
from exporter.gpu import fabric
from exporter.sampling import Tier
from exporter.simulate import Planted, SimulatedDriver
from exporter.snapshot import Gpu

NOT_BLOCKING = tuple(reader for reader in GPU_READERS if reader.tier is not Tier.BLOCKING)
QUICK: Plan = replace(PLAN, readers=NOT_BLOCKING)

# What ails GPU 0, by the keys of the fake library.
SICK = (
    "gpu0.ecc_corrected_volatile=212",
    "gpu0.ecc_corrected_aggregate=900",
    "gpu0.ecc_uncorrected_volatile=3",
    "gpu0.ecc_uncorrected_aggregate=5",
    "gpu0.sram_corrected=12",
    "gpu0.sram_uncorrected=1",
    "gpu0.sram_threshold=1",
    "gpu0.ecc_pending=0",
    "gpu0.remapped_correctable=2",
    "gpu0.remapped_uncorrectable=4",
    "gpu0.remapped_pending=1",
    "gpu0.remapped_failure=1",
    "gpu0.repair_channel=1",
    "gpu0.retired_sbe=7",
    "gpu0.retired_dbe=1",
    "gpu0.retired_pending=1",
    "gpu0.recovery_action=4",
    "gpu0.persistence=0",
    "gpu0.compute_mode=2",
    "gpu0.mig_pending=1",
    "gpu0.temp_margin=-3",
)
ECC = {
    'gpu_ecc_errors_total{type="corrected",counter="volatile"}': 212,
    'gpu_ecc_errors_total{type="corrected",counter="aggregate"}': 900,
    'gpu_ecc_errors_total{type="uncorrected",counter="volatile"}': 3,
    'gpu_ecc_errors_total{type="uncorrected",counter="aggregate"}': 5,
    'gpu_ecc_location_errors_total{type="corrected",counter="volatile",location="dram"}': 200,
    'gpu_ecc_location_errors_total{type="corrected",counter="volatile",location="sram"}': 12,
    'gpu_ecc_location_errors_total{type="corrected",counter="aggregate",location="dram"}': 888,
    'gpu_ecc_location_errors_total{type="corrected",counter="aggregate",location="sram"}': 12,
    'gpu_ecc_location_errors_total{type="uncorrected",counter="volatile",location="dram"}': 2,
    'gpu_ecc_location_errors_total{type="uncorrected",counter="volatile",location="sram"}': 1,
    'gpu_ecc_location_errors_total{type="uncorrected",counter="aggregate",location="dram"}': 4,
    'gpu_ecc_location_errors_total{type="uncorrected",counter="aggregate",location="sram"}': 1,
    'gpu_ecc_mode{kind="current"}': 1,
    'gpu_ecc_mode{kind="pending"}': 0,
}
SRAM = {
    'gpu_ecc_sram_errors_total{type="corrected",counter="volatile"}': 12,
    'gpu_ecc_sram_errors_total{type="corrected",counter="aggregate"}': 12,
    'gpu_ecc_sram_errors_total{type="uncorrected_parity",counter="volatile"}': 0,
    'gpu_ecc_sram_errors_total{type="uncorrected_parity",counter="aggregate"}': 0,
    'gpu_ecc_sram_errors_total{type="uncorrected_sec_ded",counter="volatile"}': 1,
    'gpu_ecc_sram_errors_total{type="uncorrected_sec_ded",counter="aggregate"}': 1,
    'gpu_ecc_sram_source_errors_total{source="l2"}': 0,
    'gpu_ecc_sram_source_errors_total{source="sm"}': 1,
    'gpu_ecc_sram_source_errors_total{source="pcie"}': 0,
    'gpu_ecc_sram_source_errors_total{source="microcontroller"}': 0,
    'gpu_ecc_sram_source_errors_total{source="other"}': 0,
    "gpu_ecc_sram_threshold_exceeded": 1,
}
BANKS = {
    'gpu_row_remap_banks{availability="max"}': 2554,
    'gpu_row_remap_banks{availability="high"}': 6,
    'gpu_row_remap_banks{availability="partial"}': 0,
    'gpu_row_remap_banks{availability="low"}': 0,
    'gpu_row_remap_banks{availability="none"}': 0,
}
REPAIR = {
    'gpu_repair_pending{unit="memory_channel"}': 1,
    'gpu_repair_pending{unit="tpc"}': 0,
}
ROWS = {
    'gpu_remapped_rows{type="correctable"}': 2,
    'gpu_remapped_rows{type="uncorrectable"}': 4,
    "gpu_row_remap_pending": 1,
    "gpu_row_remap_failure": 1,
}
PAGES = {
    'gpu_retired_pages{cause="single_bit_ecc"}': 7,
    'gpu_retired_pages{cause="double_bit_ecc"}': 1,
    "gpu_retired_pages_pending": 1,
}
RECOVERY = {"gpu_recovery_action": 4, 'gpu_recovery_action_info{action="drain_and_reset"}': 1}
MODES = {
    "gpu_persistence_mode": 0,
    'gpu_compute_mode{mode="default"}': 0,
    'gpu_compute_mode{mode="exclusive_thread"}': 0,
    'gpu_compute_mode{mode="prohibited"}': 1,
    'gpu_compute_mode{mode="exclusive_process"}': 0,
}
MIG_OFF = {'gpu_mig_mode{kind="current"}': 0, 'gpu_mig_mode{kind="pending"}': 1}
MIG_ON = {'gpu_mig_mode{kind="current"}': 1, 'gpu_mig_mode{kind="pending"}': 1}
CONFIDENTIAL_OFF = {"gpu_confidential_compute_enabled": 0}
CLUSTER = "c5c5c5c5-c5c5-c5c5-c5c5-c5c5c5c5c5c5"
FABRIC = {
    'gpu_fabric_info{state="completed",status="success",health="healthy",configuration="",'
    f'clique_id="32766",cluster_uuid="{CLUSTER}"}}': 1,
    "gpu_fabric_registered": 1,
    "gpu_fabric_healthy": 1,
    'gpu_fabric_condition{condition="degraded_bandwidth"}': 0,
}


def margin(shutdown: int, slowdown: int) -> dict[str, float]:
    """Return the series of a board that tells margins; the other two thresholds are 0."""
    thresholds = {"shutdown": shutdown, "slowdown": slowdown, "memory_max": 0, "gpu_max": 0}
    name = "gpu_temperature_margin_threshold_celsius"
    told = {f'{name}{{threshold="{which}"}}': float(at) for which, at in thresholds.items()}
    return {"gpu_temperature_margin_celsius": -3, **told}


HOPPER = {**ECC, **SRAM, **BANKS, **REPAIR, **ROWS, **MODES, **MIG_OFF, **CONFIDENTIAL_OFF}
BOARDS: dict[str, Mapping[str, float]] = {
    "h100x8": {**HOPPER, **RECOVERY, **FABRIC, **margin(-5, -2)},
    "b200x8": {
        **HOPPER,
        **RECOVERY,
        **FABRIC,
        **margin(-6, -3),
        'gpu_platform_info{chassis_serial="1820725190164",slot="197",tray="13",host="1",'
        'module_id="1",peer_type="2"}': 1,
    },
    # While MIG is on, an A100 refuses its remapped rows, but not the histogram of its banks.
    "a100-mig": {
        **ECC,
        **SRAM,
        **BANKS,
        **REPAIR,
        **RECOVERY,
        **MODES,
        **MIG_ON,
        **CONFIDENTIAL_OFF,
    },
    "l40s": {
        **ECC,
        **SRAM,
        **BANKS,
        **REPAIR,
        **ROWS,
        **RECOVERY,
        **MODES,
        **CONFIDENTIAL_OFF,
        **margin(-10, -7),
    },
    "t4": {**ECC, **PAGES, **MODES},
    "geforce": {**RECOVERY, **MODES, **margin(-11, -6)},
    "gb10": {**RECOVERY, **MODES},
}
GROUPS = re.compile(
    r"gpu_(ecc|remapped|row_remap|repair|retired|recovery|fabric|persistence|compute_mode|mig_mode"
    r"|confidential|memory_protected|temperature_margin|platform)_?"
)


def page(node: Node, gpu: int = 0, plan: Plan = QUICK) -> dict[str, float]:
    """Return the series of one GPU on the page, without the labels `gpu` and `uuid`."""
    snapshot = node.poller(plan).tick()
    return series(Page(openmetrics=False).plain(snapshot).decode(), gpu)


def series(text: str, gpu: int) -> dict[str, float]:
    """Return name and own labels of one GPU's series, and their values."""
    found = re.findall(rf'^(\w+){{gpu="{gpu}",uuid="[^"]*",?(.*)}} (\S+)$', text, re.MULTILINE)
    return {f"{name}{{{own}}}" if own else name: float(value) for name, own, value in found}


def health(node: Node) -> dict[str, float]:
    """Return what GPU 0's page has of this subject."""
    return {name: value for name, value in page(node).items() if GROUPS.match(name)}


@pytest.mark.parametrize("profile", BOARDS)
def test_each_board_shows_the_health_it_has(node: Node, profile: str) -> None:
    """Value and labels of every series of a board that is not well; what it lacks has none."""
    node.connect(f"profile={profile}", *SICK)
    assert health(node) == BOARDS[profile]


def test_board_info_is_what_a_person_orders_by(node: Node) -> None:
    """Brand, part, firmware and place of a board; "" for what a GeForce does not tell."""
    node.connect()
    (told,) = [name for name in page(node, gpu=3) if name.startswith("gpu_board_info")]
    assert told == (
        'gpu_board_info{brand="NVIDIA",part_number="692-2G520-0200-000",'
        'inforom_version="G520.0200.00.05",gsp_firmware_version="580.95.05",module_id="4",'
        'minor_number="3",virtualization="none"}'
    )


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("geforce", ("GeForce RTX", "", "G002.0000.00.03", "580.95.05", "1", "none")),
        ("t4", ("NVIDIA", "900-2G183-0000-001", "G183.0200.00.02", "", "1", "none")),
        ("vgpu", ("NVIDIA RTX vWS", "", "", "580.95.05", "1", "vgpu_guest")),
    ],
)
def test_board_info_of_boards_that_tell_less(
    node: Node, profile: str, expected: tuple[str, ...]
) -> None:
    """What a board does not say is an empty label, and its virtualization is a word."""
    node.connect(f"profile={profile}")
    board = node.read(node.device(), Tier.STATIC)["board_info"]
    assert (
        board.brand,
        board.part_number,
        board.inforom_version,
        board.gsp_firmware_version,
        board.module_id,
        board.virtualization,
    ) == expected


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (0, "none"),
        (1, "gpu_reset"),
        (2, "node_reboot"),
        (3, "drain_p2p"),
        (4, "drain_and_reset"),
        (5, "recover_imex_domain"),
        (6, "bus_reset"),
        (7, "system_reboot"),
        (8, "8"),
    ],
)
def test_recovery_action_is_a_number_and_a_word(node: Node, number: int, word: str) -> None:
    """The number that an alert compares and the word that a person reads say the same."""
    node.connect(f"gpu0.recovery_action={number}")
    told = {name: v for name, v in page(node).items() if "recovery_action" in name}
    assert told == {
        "gpu_recovery_action": number,
        f'gpu_recovery_action_info{{action="{word}"}}': 1,
    }


def test_rows_that_a_newer_driver_counts_apart(node: Node) -> None:
    """From driver 610 on, remappings that are not in use have a count of their own."""
    node.connect(
        "driver=610.10", "gpu0.remapped_correctable_inactive=3", "gpu0.remapped_correctable=1"
    )
    told = page(node)
    assert told['gpu_remapped_rows_inactive{type="correctable"}'] == 3
    assert told['gpu_remapped_rows_inactive{type="uncorrectable"}'] == 0
    assert told['gpu_remapped_rows{type="correctable"}'] == 1


def test_ecc_off_is_no_count_of_errors(node: Node) -> None:
    """With ECC off the mode says so, no count passes for 0, and no location is asked for."""
    node.connect("gpu0.ecc_mode=0")
    told = {name: value for name, value in page(node).items() if name.startswith("gpu_ecc")}
    assert told == {'gpu_ecc_mode{kind="current"}': 0, 'gpu_ecc_mode{kind="pending"}': 0}
    assert node.calls().count("nvmlDeviceGetMemoryErrorCounter", 0) == 0


def test_locations_are_asked_for_only_when_the_totals_have_moved(node: Node) -> None:
    """At rest they cost nothing; a new error is at its place at the next slow reading."""
    node.connect("gpu0.ecc_corrected_volatile=1")
    device = node.device()
    last = node.read(device, Tier.SLOW)
    asked = node.calls().count("nvmlDeviceGetMemoryErrorCounter", 0)
    assert asked == 2 * 2 * 8
    rest = node.read(device, Tier.SLOW, last=last)
    assert rest["ecc_locations"] is last["ecc_locations"]
    assert node.calls().count("nvmlDeviceGetMemoryErrorCounter", 0) == asked
    node.put("gpu0.ecc_corrected_volatile=5", "gpu0.sram_corrected=2")
    errors = node.read(device, Tier.SLOW, last=rest)["ecc_locations"].errors
    assert (errors["corrected", "volatile", "dram"], errors["corrected", "volatile", "sram"]) == (
        3,
        2,
    )
    assert node.calls().count("nvmlDeviceGetMemoryErrorCounter", 0) == asked + 2 * 2 * 2


def test_sram_detail_without_root_costs_only_itself(node: Node) -> None:
    """Who may not see it has no series of it, is not asked again, and the GPU is as well as ever.

    Nor does a GPU that fails later on pass for one that is forbidden.
    """
    node.connect("gpu0.call.nvmlDeviceGetSramEccErrorStatus.ret=4")
    device = node.device()
    readings = node.read(device)
    assert readings["ecc_sram"].threshold_exceeded is None
    assert readings["ecc"].errors["corrected", "volatile"] == 0
    node.read(device)
    assert node.calls().count("nvmlDeviceGetSramEccErrorStatus", 0) == 1
    assert not device.denied
    assert not [name for name in page(node) if "sram_" in name]


@pytest.mark.parametrize(
    ("lines", "series"),
    [
        (
            ["fabric_state=1"],
            'state="not_started",status="",health="healthy",configuration=""',
        ),
        (["fabric_state=2", "fabric_health=0", "fabric_mask=0"], 'state="in_progress",status=""'),
        (["fabric_status=999"], 'state="completed",status="unknown"'),
        (["fabric_state=7"], 'state="7",status=""'),
    ],
)
def test_gpu_that_has_not_joined_its_fabric(node: Node, lines: list[str], series: str) -> None:
    """Registration that has not begun, goes on or failed is not registered; the words say which."""
    node.connect(*(f"gpu0.{line}" for line in lines))
    told = page(node)
    assert told["gpu_fabric_registered"] == 0
    assert [name for name in told if name.startswith("gpu_fabric_info{" + series)]


def test_gpu_off_the_fabric_has_no_fabric(node: Node) -> None:
    """State 0 is "not supported", as a refusal is: nothing to be registered with; asked once."""
    node.connect("gpu0.fabric_state=0", "gpu1.call.nvmlDeviceGetGpuFabricInfoV.ret=3")
    for gpu in (0, 1):
        assert not [name for name in page(node, gpu) if name.startswith("gpu_fabric")]
    assert node.calls().count("nvmlDeviceGetGpuFabricInfoV", 1) == 2  # opened twice, asked once


def test_fabric_conditions_are_the_bits_of_the_mask() -> None:
    """Each two-bit part alone: 0 says nothing, else the bad value is 1; four bits have words."""
    for name, (shift, bad) in fabric.CONDITIONS.items():
        good = 3 - bad
        assert fabric._conditions(bad << shift) == {name: 1}
        assert fabric._conditions(good << shift) == {name: 0}
    assert fabric._conditions(0) == {}
    assert fabric._conditions(1 << 8) == {"incorrect_configuration": 0}
    assert fabric._conditions(5 << 8) == {"incorrect_configuration": 1}


def test_unhealthy_fabric(node: Node) -> None:
    """Summary, conditions and the configuration's fault come from one answer."""
    mask = 0b10_10_0101_01_10_01_00
    node.connect("gpu0.fabric_health=3", f"gpu0.fabric_mask={mask}")
    told = page(node)
    assert told["gpu_fabric_healthy"] == 0
    (info,) = [name for name in told if name.startswith("gpu_fabric_info")]
    assert 'health="limited_capacity",configuration="insufficient_nvlinks"' in info
    conditions = {
        name.split('"')[1]: value
        for name, value in told.items()
        if name.startswith("gpu_fabric_condition")
    }
    assert conditions == {
        "route_recovery": 1,
        "route_unhealthy": 0,
        "access_timeout_recovery": 1,
        "partition_unassigned": 1,
        "manager_disconnected": 1,
        "incorrect_configuration": 1,
    }


def test_older_driver_knows_an_older_structure_of_the_fabric(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that refuses version 3 is asked with version 2, which has no summary."""
    monkeypatch.setattr("pynvml.nvmlGpuFabricInfo_v3", 0x9000028)
    node.connect()
    told = page(node)
    assert told["gpu_fabric_registered"] == 1
    assert "gpu_fabric_healthy" not in told
    assert told['gpu_fabric_condition{condition="degraded_bandwidth"}'] == 0


def test_confidential_computing(node: Node) -> None:
    """While it is on: readiness, debug mode, and the protected memory in bytes."""
    node.connect("gpu0.conf_compute=1", "gpu0.conf_compute_devtools=1")
    told = {n: v for n, v in page(node, 5).items() if "confidential" in n or "protected" in n}
    total = 81559 << 20
    assert told == {
        "gpu_confidential_compute_enabled": 1,
        "gpu_confidential_compute_ready": 0,
        "gpu_confidential_compute_devtools_enabled": 1,
        "gpu_memory_protected_total_bytes": total,
        "gpu_memory_protected_used_bytes": total // 4,
        "gpu_memory_protected_free_bytes": total - total // 4,
    }
    node.put("gpu0.conf_compute_ready=1")
    assert page(node)["gpu_confidential_compute_ready"] == 1


def test_compute_mode_that_is_not_known_is_none_of_those_that_are(node: Node) -> None:
    """A mode of a newer driver gives no series rather than four times 0."""
    node.connect("gpu0.compute_mode=9")
    told = page(node)
    assert not [name for name in told if name.startswith("gpu_compute_mode")]
    assert told["gpu_persistence_mode"] == 1


CALLS = {
    "nvmlDeviceGetMemoryErrorCounter": "ecc_locations",
    "nvmlDeviceGetSramEccErrorStatus": "ecc_sram",
    "nvmlDeviceGetRowRemapperHistogram": "row_remap_banks",
    "nvmlDeviceGetRepairStatus": "repair",
    "nvmlDeviceGetGpuFabricInfoV": "fabric",
    "nvmlDeviceGetPersistenceMode": "persistence_mode",
    "nvmlDeviceGetComputeMode": "compute_mode",
    "nvmlDeviceGetMigMode": "mig_mode",
    "nvmlSystemGetConfComputeState": "confidential",
    "nvmlDeviceGetConfComputeProtectedMemoryUsage": "confidential",
    "nvmlSystemGetConfComputeGpusReadyState": "confidential",
    "nvmlDeviceGetMarginTemperature": "temperature_margin",
    "nvmlDeviceGetPlatformInfo": "platform",
    "nvmlDeviceGetModuleId": "board_info",
}


@pytest.mark.parametrize(("call", "group"), CALLS.items())
def test_call_that_fails_costs_only_its_reading(node: Node, call: str, group: str) -> None:
    """An error of the moment on one call leaves that group out, with the driver's word for it."""
    node.connect("profile=b200x8", "gpu0.conf_compute=1", f"call.{call}.ret=999")
    outcome = node.take(node.device(), Tier.STATIC, Tier.SLOW)
    assert outcome.errors == {group: "unknown"}
    assert [name for name, reading in outcome.readings.items() if reading is None] == [group]
    assert outcome.fault is None


FIELDS = {
    1: {"ecc_mode"},
    4: {"ecc", "ecc_locations"},
    144: {"remapped_rows"},
    30: {"retired_pages"},
    230: {"recovery"},
    192: {"power_limits"},
    194: {"margin_thresholds"},
}


@pytest.mark.parametrize(("field", "groups"), FIELDS.items())
def test_field_that_fails_costs_only_its_reading(node: Node, field: int, groups: set[str]) -> None:
    """The same for a field in a batch: the others of the batch are there."""
    node.connect(f"gpu0.field.{field}.ret=999")
    outcome = node.take(node.device())
    assert set(outcome.errors) == groups
    missing = {name for name, reading in outcome.readings.items() if reading is None}
    assert missing - {"pcie_sampled"} == groups  # which profiling counters make needless


def test_health_costs_the_fast_tick_nothing(node: Node) -> None:
    """Nothing of it is asked in the fast tier; a slow reading takes so many calls, and no more."""
    node.connect()
    device = node.device()
    last = node.read(device)

    def made(*tiers: Tier) -> dict[str, int]:
        before = node.calls()
        node.read(device, *tiers, last=last)
        after = node.calls()
        names = {*CALLS, "nvmlDeviceGetFieldValues"}
        counts = {name: after.count(name) - before.count(name) for name in names}
        return {name: count for name, count in counts.items() if count}

    assert made(Tier.FAST) == {"nvmlDeviceGetFieldValues": 1}
    slow = made(Tier.SLOW)
    del slow["nvmlDeviceGetFieldValues"]  # one batch for all groups, in parts of 128
    assert slow == {
        "nvmlDeviceGetSramEccErrorStatus": 1,
        "nvmlDeviceGetRowRemapperHistogram": 1,
        "nvmlDeviceGetRepairStatus": 1,
        "nvmlDeviceGetGpuFabricInfoV": 1,
        "nvmlDeviceGetPersistenceMode": 1,
        "nvmlDeviceGetComputeMode": 1,
        "nvmlDeviceGetMigMode": 1,
        "nvmlSystemGetConfComputeState": 1,
        "nvmlDeviceGetMarginTemperature": 1,
    }


def test_histogram_of_no_bank_is_none() -> None:
    """A driver that answers with nothing but 0 has no histogram: no bank is not a bad bank."""
    nothing = dict.fromkeys(("max", "high", "partial", "low", "none"), 0)
    planted = Planted(calls={"nvmlDeviceGetRowRemapperHistogram": SimpleNamespace(**nothing)})
    driver = SimulatedDriver("h100x8", planted={0: planted})
    banks = [
        take(driver.open(gpu, GPU_READERS, 3.0), (Tier.SLOW,), {})["row_remap_banks"].banks
        for gpu in driver.connect()[1][:2]
    ]
    assert banks[0] == {}
    assert sum(banks[1].values()) == 2560


@pytest.mark.parametrize(("unlicensed", "value"), [(0, 1), (1, 0)])
def test_license_of_a_vgpu(node: Node, unlicensed: int, value: int) -> None:
    """A virtual machine's GPU tells whether the product that it runs is licensed."""
    node.connect("profile=vgpu", f"gpu0.vgpu_unlicensed={unlicensed}")
    told = {name: v for name, v in page(node).items() if "vgpu_licensed" in name}
    assert told == {'gpu_vgpu_licensed{product="NVIDIA RTX Virtual Workstation"}': value}


def test_gpu_that_is_no_vgpu_is_not_asked_for_a_license(node: Node) -> None:
    """On bare metal it costs nothing: the mode is asked for once."""
    node.connect()
    device = node.device()
    last = node.read(device, Tier.SLOW)
    asked = node.calls().count("nvmlDeviceGetVirtualizationMode", 0)
    node.read(device, Tier.SLOW, last=last)
    assert node.calls().count("nvmlDeviceGetVirtualizationMode", 0) == asked == 1
    assert node.calls().count("nvmlDeviceGetGridLicensableFeatures_v4", 0) == 0


def test_requested_power_limit(node: Node) -> None:
    """The limit that was asked for on this host stands beside the others."""
    node.connect("gpu0.power_limit_mw=450000")
    told = page(node)
    limits = {name.split('"')[1]: v for name, v in told.items() if "power_limit" in name}
    assert limits == {
        "enforced": 450,
        "current": 450,
        "requested": 450,
        "default": 700,
        "min": 200,
        "max": 700,
    }


def test_sick_node_of_the_simulation_has_one_trouble_of_each_kind() -> None:
    """What alerts and people are to find there is there, on one GPU each; GPU 0 is well."""
    groups_of_all = SimulatedNode("b200x8-sick").read(0.0, Tier.SLOW)
    gpus = [Gpu(index, "", **groups) for index, groups in enumerate(groups_of_all)]
    assert {gpu.index for gpu in gpus if gpu.recovery and gpu.recovery.action} == {1, 4}
    assert {gpu.index for gpu in gpus if gpu.remapped_rows and gpu.remapped_rows.pending} == {1}
    assert {gpu.index for gpu in gpus if gpu.remapped_rows and gpu.remapped_rows.failure} == {2}
    assert {g.index for g in gpus if g.nvlinks and 0 in g.nvlinks.active.values()} == {3}
    assert {g.index for g in gpus if g.nvlinks and any(g.nvlinks.errors.values())} == {3}
    assert {g.index for g in gpus if g.pcie_link and g.pcie_link.width_lanes["current"] == 8} == {3}
    assert {gpu.index for gpu in gpus if gpu.ecc_sram and gpu.ecc_sram.threshold_exceeded} == {4}
    assert {gpu.index for gpu in gpus if gpu.fabric and not gpu.fabric.registered} == {5}
    assert {gpu.index for gpu in gpus if gpu.fabric and gpu.fabric.healthy == 0} == {6}
    assert {g.index for g in gpus if g.persistence_mode and not g.persistence_mode.enabled} == {7}
    assert {g.index for g in gpus if g.ecc and g.ecc.errors["uncorrected", "volatile"]} == {1, 4}
    kept = gpus[2].ecc
    assert kept
    assert kept.errors["corrected", "volatile"] == 0
    assert kept.errors["corrected", "aggregate"] == 1904
    for gpu in gpus:  # a total is the sum of its parts
        assert gpu.ecc
        assert gpu.ecc_locations
        for (kind, counter), total in gpu.ecc.errors.items():
            parts = [gpu.ecc_locations.errors[kind, counter, at] for at in ("dram", "sram")]
            assert sum(parts) == total
