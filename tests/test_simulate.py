"""The simulated node: complete for every reader, and true to each board."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from simulated_node import NODES, Node

import exporter.gpu
from exporter.catalogue import GPU_READERS
from exporter.fields import Field
from exporter.gpu.clocks import MaxClocks
from exporter.gpu.identity import Identity
from exporter.gpu.memory import Memory
from exporter.gpu.pcie import PcieThroughput
from exporter.gpu.profiling import PIPES
from exporter.sampling import (
    Driver,
    DriverAbsentError,
    OpenDevice,
    Tier,
)
from exporter.simulate import PROFILES, SimulatedDriver

MIB = 1 << 20


SINCE_610 = {
    Field.REMAPPED_ROWS_CORRECTABLE_INACTIVE,
    Field.REMAPPED_ROWS_UNCORRECTABLE_INACTIVE,
}
# No profile is in that mode, or in a virtual machine.
NOT_ON_ANY_NODE = {
    "nvmlDeviceGetGridLicensableFeatures",
    "nvmlSystemGetConfComputeGpusReadyState",
    "nvmlDeviceGetConfComputeProtectedMemoryUsage",
}


def absent(groups: dict[str, Any]) -> set[str]:
    """Return what is not there, as "group", "group.attribute" or "group.attribute.key"."""
    missing = set()
    for group, reading in groups.items():
        if reading is None:
            missing.add(group)
            continue
        for field in dataclasses.fields(reading):
            value = getattr(reading, field.name)
            name = f"{group}.{field.name}"
            if value is None or value in ("", {}):
                missing.add(name)
            elif isinstance(value, Mapping):
                for key, part in value.items():
                    last = key[-1] if isinstance(key, tuple) else key
                    missing |= {f"{name}.{last}"} if part is None else set()
    return missing


def test_is_a_driver() -> None:
    """For the type checker and at run time, the simulation fits the seam."""
    driver: Driver = SimulatedDriver("h100x8")
    _, gpus = driver.connect()
    device: OpenDevice = driver.open(gpus[0], GPU_READERS, 3.0)
    driver.abandon()
    assert len(gpus) == driver.pci_gpus() == 8
    assert not device.denied


@pytest.mark.parametrize("profile", NODES)
def test_every_reader_reads_every_gpu(profile: str) -> None:
    """No reader asks anything that the simulation does not know."""
    node = Node(profile)
    node.read(0.0)
    for groups in node.read(1.0):
        assert set(groups) == {reader.group for reader in GPU_READERS}
    assert all(device.answers > 0 for device in node.devices)


OF_MIG_DEVICES = {
    *("nvmlDeviceGetUUID", "nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId"),
}


def test_every_question_in_the_source_has_an_answer() -> None:
    """Each call that a reader names, fallbacks too, is answered with a value on some board."""
    files = Path(str(exporter.gpu.__file__)).parent.glob("*.py")
    source = "".join(file.read_text() for file in files)
    calls = set(re.findall(r'"(nvml[A-Z]\w+)"', source)) - NOT_ON_ANY_NODE
    arguments: dict[str, tuple[object, ...]] = {
        "nvmlDeviceGetTemperatureV": (0,),
        "nvmlDeviceGetTemperature": (0,),
        "nvmlDeviceGetTemperatureThreshold": (0,),
        "nvmlDeviceGetFanSpeed_v2": (0,),
        "nvmlDeviceGetClockInfo": (0,),
        "nvmlDeviceGetMaxClockInfo": (0,),
        "nvmlDeviceGetPcieThroughput": (0,),
        "nvmlDeviceGetNvLinkState": (0,),
        "nvmlDeviceGetNvLinkRemoteDeviceType": (0,),
        "nvmlDeviceGetNvLinkRemotePciInfo": (0,),
        "nvmlDeviceGetMemoryErrorCounter": (0, 0, 2),
        "nvmlDeviceGetProcessesUtilizationInfo": (0,),
        "nvmlDeviceGetProcessUtilization": (0,),
    }
    devices = [device for profile in NODES for device in Node(profile).devices]
    parts = [part for device in devices for part in device.mig_devices()]
    assert len(calls) > 30
    for call in calls:
        asked = parts if call in OF_MIG_DEVICES else devices
        answers = [one.ask(call, *arguments.get(call, ())) for one in asked]
        assert any(answer is not None for answer in answers), call


def test_every_field_and_counter_that_is_declared_has_a_value() -> None:
    """Each field and profiling counter of a reader has a value on some board."""
    declared = {request for reader in GPU_READERS for request in reader.fields}
    # No board needs substitutes, and no profile has a driver of 610 or later.
    silent_fields = {r for r in declared if r.instead_of is None and r.field not in SINCE_610}
    silent_counters = {metric for reader in GPU_READERS for metric in reader.gpm}
    assert silent_fields
    assert silent_counters
    for profile in NODES:
        node = Node(profile)
        node.read(0.0)
        node.clock.seconds += 1.0
        for device in node.devices:
            for tier in Tier:
                device.begin(tier)
                asked = {r for reader in GPU_READERS if reader.tier is tier for r in reader.fields}
                silent_fields -= {r for r in asked if device.field(r.field, r.scope) is not None}
                if tier is Tier.FAST:
                    silent_counters -= device.gpm().keys()
    assert not silent_fields
    assert not silent_counters


NO_NVLINK = {
    "nvlink.transmit_bytes",
    "nvlink.receive_bytes",
    "nvlink.transmit_bytes_per_second",
    "nvlink.receive_bytes_per_second",
    "nvlinks.active",
    "nvlinks.speed_bytes_per_second",
    "nvlinks.transmit_bytes",
    "nvlinks.receive_bytes",
    "nvlinks.errors",
    "nvlinks.bit_error_ratio",
    "nvlinks.data_errors",
    "nvlink_peers.versions",
    "nvlink_peers.remote_types",
    "nvlink_peers.remote_pci_bus_ids",
}
BEFORE_NVLINK_5, NVLINK_5 = {"nvlinks.bit_error_ratio"}, {"nvlinks.data_errors"}
SAMPLED = {"pcie_sampled.transmit_bytes_per_second", "pcie_sampled.receive_bytes_per_second"}
NEEDLESS = {"pcie_sampled"}  # with profiling counters
PROFILED = {"pcie_throughput.transmit_bytes_per_second", "pcie_throughput.receive_bytes_per_second"}
PROFILED |= {
    f"profiling.{name}_ratio" for name in ("graphics", "sm", "occupancy", "tensor", "dram")
}
PROFILED |= {f"profiling.pipes.{pipe}" for pipe in PIPES}
NO_FANS = {"fans.ratios"}
NO_MEMORY_SENSOR = {"temperature.memory_celsius", "thresholds.celsius.memory_max"}
BEFORE_575 = {
    f"clocks.seconds.{reason}"
    for reason in ("sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
}
MIG = {
    "utilization.gpu_ratio",
    "utilization.memory_ratio",
    "utilization.busy_seconds",
    *(f"engines.ratios.{engine}" for engine in ("encoder", "decoder", "jpeg", "ofa")),
}
POWER_LIMITS = ("enforced", "current", "requested", "default", "min", "max")
COUNTERS = ("volatile", "aggregate")
NO_SRAM = {"ecc_sram.errors", "ecc_sram.sources", "ecc_sram.threshold_exceeded"}
NO_ECC_ERRORS = NO_SRAM | {
    "ecc_locations.errors",
    *(f"{part}.{c}" for part in ("ecc.errors", "ecc_locations.totals") for c in COUNTERS),
}
NO_ECC = NO_ECC_ERRORS | {"ecc_mode.enabled.current", "ecc_mode.enabled.pending"}
NO_RETIRED_PAGES = {
    "retired_pages.pages.single_bit_ecc",
    "retired_pages.pages.double_bit_ecc",
    "retired_pages.pending",
}
BEFORE_610 = {f"remapped_rows.inactive_rows.{kind}" for kind in ("correctable", "uncorrectable")}
NO_REMAPPED_ROWS = BEFORE_610 | {
    "remapped_rows.rows.correctable",
    "remapped_rows.rows.uncorrectable",
    "remapped_rows.pending",
    "remapped_rows.failure",
}
NO_REPAIR = {"repair.pending.memory_channel", "repair.pending.tpc"}
NO_REMAP = NO_REMAPPED_ROWS | NO_REPAIR | {"row_remap_banks.banks"}
NO_RECOVERY = {"recovery.action"}
NO_FABRIC_HEALTH = {"fabric.healthy", "fabric.conditions"}
NO_FABRIC = NO_FABRIC_HEALTH | {"fabric.info", "fabric.registered"}
NO_MARGIN = {
    "temperature_margin.celsius",
    *(
        f"margin_thresholds.celsius.{threshold}"
        for threshold in ("shutdown", "slowdown", "memory_max", "gpu_max")
    ),
}
NO_PARTS = {"board_info.part_number"}
NO_GSP = {"board_info.gsp_firmware_version"}
NO_MIG = {"mig_mode.enabled.current", "mig_mode.enabled.pending"}
NOT_CONFIDENTIAL = {
    "confidential.ready",
    "confidential.devtools_enabled",
    *(f"confidential.{kind}_bytes" for kind in ("total", "used", "free")),
}
NO_CONFIDENTIAL = NOT_CONFIDENTIAL | {"confidential.enabled"}
NO_VGPU = {"vgpu_license.licensed"}
NO_PLATFORM = {
    f"platform.{place}"
    for place in ("chassis_serial", "slot", "tray", "host", "module_id", "peer_type")
}
HOPPER = BEFORE_610 | NO_RETIRED_PAGES | NOT_CONFIDENTIAL | NO_VGPU
AMPERE = NO_RETIRED_PAGES | NO_CONFIDENTIAL | NO_FABRIC | NO_PLATFORM | NO_REPAIR | NO_VGPU
WORKSTATION = (
    NO_REMAP | NO_CONFIDENTIAL | NO_FABRIC | NO_PLATFORM | NO_MIG | NO_VGPU | NO_RETIRED_PAGES
)
WITH_MIG = {("a100-mig", 0), ("h100-mig", 0)}
ABSENT = {
    ("h100x8", 0): NEEDLESS | NO_FANS | BEFORE_NVLINK_5 | HOPPER | NO_PLATFORM | NO_FABRIC_HEALTH,
    ("b200x8", 7): NEEDLESS | NO_FANS | NVLINK_5 | HOPPER | {"platform.chassis_serial"},
    ("a100-mig", 0): PROFILED
    | NO_FANS
    | NO_NVLINK
    | BEFORE_575
    | MIG
    | AMPERE
    | NO_REMAPPED_ROWS
    | NO_MARGIN
    | NO_RECOVERY,
    ("a100-mig", 1): PROFILED
    | NO_FANS
    | BEFORE_NVLINK_5
    | BEFORE_575
    | AMPERE
    | BEFORE_610
    | NO_MARGIN
    | NO_RECOVERY,
    ("h100-mig", 0): NEEDLESS
    | NO_FANS
    | NO_NVLINK
    | MIG
    | HOPPER
    | NO_PLATFORM
    | NO_FABRIC_HEALTH
    | NO_REMAPPED_ROWS,
    ("l40s", 3): PROFILED
    | NO_FANS
    | NO_NVLINK
    | NO_MEMORY_SENSOR
    | BEFORE_575
    | AMPERE
    | BEFORE_610
    | NO_MIG,
    ("t4", 0): PROFILED
    | NO_FANS
    | NO_NVLINK
    | NO_MEMORY_SENSOR
    | BEFORE_575
    | (WORKSTATION - NO_RETIRED_PAGES)
    | NO_SRAM
    | NO_MARGIN
    | NO_GSP
    | NO_RECOVERY,
    ("geforce", 0): PROFILED
    | NO_NVLINK
    | NO_MEMORY_SENSOR
    | WORKSTATION
    | NO_ECC_ERRORS
    | NO_PARTS
    | {"identity.serial"},
    ("gb10", 0): PROFILED
    | SAMPLED
    | NO_FANS
    | NO_NVLINK
    | NO_MEMORY_SENSOR
    | WORKSTATION
    | NO_ECC
    | NO_MARGIN
    | NO_PARTS
    | {
        "identity.serial",
        "board_info.inforom_version",
        "clocks.hertz.memory",
        "max_clocks.hertz.memory",
        "pcie_link.errors",
    }
    | {f"memory.{kind}_bytes" for kind in ("total", "used", "free", "reserved")}
    | {f"bar1.{kind}_bytes" for kind in ("total", "used", "free")}
    | {f"thresholds.celsius.{name}" for name in ("shutdown", "slowdown", "gpu_max")}
    | {f"power_limits.watts.{limit}" for limit in POWER_LIMITS},
}


@pytest.mark.parametrize(("profile", "gpu"), ABSENT)
def test_boards_lack_what_real_ones_lack(profile: str, gpu: int) -> None:
    """Exactly these readings are absent on each board, and no others."""
    node = Node(profile)
    node.read(0.0)
    no_instances = set() if (profile, gpu) in WITH_MIG else {"mig.instances"}
    assert absent(node.read(1.0)[gpu]) == ABSENT[profile, gpu] | no_instances


@pytest.mark.parametrize(
    ("profile", "kinds"),
    [
        ("h100x8", {"replay", "recovery", "crc"}),
        (
            "b200x8",
            {
                *("malformed_packet", "buffer_overrun", "receive", "remote", "general"),
                *("local_integrity", "transmit_discard", "recovery_successful"),
                *("recovery_failed", "effective", "symbol"),
            },
        ),
    ],
)
def test_nvlinks_count_the_errors_of_their_generation(profile: str, kinds: set[str]) -> None:
    """Up to Hopper a link has other error counters than from Blackwell on."""
    errors = Node(profile).read(0.0)[0]["nvlinks"].errors
    told = {(int(link), kind) for (link, kind), count in errors.items() if count is not None}
    assert told == {(link, kind) for link in range(18) for kind in kinds}


def test_every_kind_of_board_has_its_list_of_absences() -> None:
    """A new profile cannot go without an entry in the table above."""
    listed = {PROFILES[profile].boards[gpu] for profile, gpu in ABSENT}
    assert {board for profile in NODES for board in PROFILES[profile].boards} == listed


def test_h100_figures() -> None:
    """An H100 is told as nvidia-smi tells it, down to units."""
    node = Node("h100x8")
    groups = node.read(30.0)[0]
    identity: Identity = groups["identity"]
    memory: Memory = groups["memory"]
    maximum: MaxClocks = groups["max_clocks"]
    assert (identity.name, identity.architecture) == ("NVIDIA H100 80GB HBM3", "Hopper")
    assert identity.pci_bus_id == "0000:1b:00.0"
    assert len(identity.serial) == 13
    assert memory.total_bytes == 81559 * MIB
    assert memory.reserved_bytes == 479 * MIB
    assert maximum.hertz == {"sm": 1.98e9, "memory": 2.619e9, "graphics": 1.98e9, "video": 1.545e9}
    assert groups["power_limits"].watts["enforced"] == 700.0
    assert groups["pcie_link"].generation["current"] == 5
    assert list(groups["nvlinks"].active) == [str(link) for link in range(18)]


def test_gpus_are_told_apart() -> None:
    """UUIDs and PCI addresses are distinct, look like NVML's, and are the same in each run."""
    uuids = []
    for profile in NODES:
        _, gpus = SimulatedDriver(profile).connect()
        assert gpus == SimulatedDriver(profile).connect()[1]
        uuids += [gpu.uuid for gpu in gpus]
        bus_ids = PROFILES[profile].bus_ids
        assert len(set(bus_ids)) == len(bus_ids) == len(gpus)
    assert len(set(uuids)) == len(uuids)
    assert all(re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", u) for u in uuids)


def test_first_version_of_memory_info_counts_reserved_as_used() -> None:
    """As NVML's two structures differ, so do ours."""
    device = Node("h100x8").devices[0]
    first, second = device.ask("nvmlDeviceGetMemoryInfo"), device.ask("nvmlDeviceGetMemoryInfo", 2)
    assert first.used == second.used + second.reserved
    assert first.free == second.free


def test_first_tick_and_holes_have_no_profiling_counters() -> None:
    """Means over the last tick need a last tick: as NVML's do."""
    node = Node("h100x8", max_gap_seconds=3.0)

    def receive(at: float) -> float | None:
        throughput: PcieThroughput = node.read(at, Tier.FAST)[0]["pcie_throughput"]
        return throughput.receive_bytes_per_second

    assert receive(0.0) is None
    assert receive(0.05) is None  # less than NVML measures
    assert receive(1.0) is not None
    assert receive(60.0) is None
    assert receive(61.0) is not None


def test_no_driver() -> None:
    """The profile "none" is a machine without a driver, and says that it is simulated."""
    driver = SimulatedDriver("none")
    with pytest.raises(DriverAbsentError, match="simulated"):
        driver.connect()
    assert driver.pci_gpus() == 0


def test_unknown_profile() -> None:
    """A profile that is not there is named, with those that are."""
    with pytest.raises(ValueError, match=r'no profile "h100"; there are h100x8, .*none'):
        SimulatedDriver("h100")


def test_questions_without_a_simulation_are_programming_errors() -> None:
    """A call or a field that nobody declared or simulated is not taken for absent."""
    device = Node("h100x8").devices[0]
    device.begin(Tier.FAST)
    with pytest.raises(NotImplementedError, match="nvmlDeviceGetMars"):
        device.ask("nvmlDeviceGetMars")
    with pytest.raises(NotImplementedError, match=r"tier fast declares Field\.PCIE_REPLAYS"):
        device.field(Field.PCIE_REPLAYS)
