"""`doctor`: every fault that is planted is found, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doctor_node import BUSES, MEMINFO, RAM_KIB, VMSTAT, Node, assert_reads_well, write

from exporter.doctor.checks import KINDS, examine
from exporter.doctor.command import gather
from exporter.doctor.facts import Facts, ReadSpeed, Space, Xids
from exporter.doctor.finding import Severity
from exporter.doctor.report import Report, text
from exporter.fields import Field
from exporter.gpu.vgpu import VgpuLicense
from exporter.once import sources
from exporter.sampling import DriverInfo, Fault
from exporter.simulate import PROFILES, Planted
from exporter.snapshot import Gpu
from exporter.xid.ledger import Count

GIB, MIB = 1 << 30, 1 << 20
HEALTHY = sorted(set(PROFILES) - {"none", "b200x8-sick"})


def calls(**answers: Any) -> Node:
    """Return a node whose GPU 2 answers so, in NVML's units."""
    named = {f"nvmlDeviceGet{name}": answer for name, answer in answers.items()}
    return Node(planted={2: Planted(calls=named)})


def fields(*answers: tuple[Field, int, float], profile: str = "h100x8", gpu: int = 2) -> Node:
    """Return a node of which one GPU has these values in fields."""
    values = {(field, scope): value for field, scope, value in answers}
    return Node(profile, {gpu: Planted(fields=values)})


def files(**texts: str) -> Node:
    """Return a node whose host has these files; "__" stands for "/"."""

    def edit(root: Path) -> None:
        for name, content in texts.items():
            write(root, name.replace("__", "/"), content)

    return Node(edit=edit)


def held_by(driver: str) -> Node:
    """Return a node whose last GPU another kernel driver has."""

    def edit(root: Path) -> None:
        link = root / "sys/bus/pci/devices" / BUSES[7] / "driver"
        link.unlink()
        link.symlink_to(root / "sys/bus/pci/drivers" / driver)

    return Node(edit=edit)


def without(*names: str, profile: str = "h100x8") -> Node:
    """Return a node whose host lacks these files."""

    def edit(root: Path) -> None:
        for name in names:
            (root / name).unlink()

    return Node(profile, edit=edit)


def on_host(**changes: Any) -> Callable[[Facts], Facts]:
    """Return a change of what was read of the host."""
    return lambda facts: replace(facts, machine=replace(facts.machine, **changes))


def in_snapshot(**changes: Any) -> Callable[[Facts], Facts]:
    """Return a change of the snapshot."""
    return lambda facts: replace(facts, snapshot=replace(facts.snapshot, **changes))


def on_gpu(**changes: Any) -> Callable[[Facts], Facts]:
    """Return a change of GPU 2."""

    def change(facts: Facts) -> Facts:
        gpus: list[Gpu] = list(facts.snapshot.gpus)
        gpus[2] = replace(gpus[2], **changes)
        return in_snapshot(gpus=tuple(gpus))(facts)

    return change


def no_driver(facts: Facts) -> Facts:
    """Leave the GPUs on the bus, without a driver that could list them."""
    return in_snapshot(driver=None, gpus=(), pci_gpus=8, driver_problem="no such library")(facts)


def model(size: int, seconds: float, problem: str = "", *, direct: bool = True) -> Any:
    """Return a change: a model file was read."""
    file = ReadSpeed("/models/m.safetensors", size, seconds, direct, problem)
    return lambda facts: replace(facts, model_file=file)


def swapping(facts: Facts) -> Facts:
    """Let pages go to swap during the trial."""
    return on_host(swap_bytes=GIB, swap_free_bytes=GIB // 2)(replace(facts, swapped_pages=300))


def xids(number: int, where: str = BUSES[2]) -> Node:
    """Return a node that had an XID error."""
    return Node(xids=Xids({(where, number): Count(3, 1.7e9)}, is_seen=True))


def unchanged(facts: Facts) -> Facts:
    """Change nothing."""
    return facts


FABRIC = SimpleNamespace(
    state=2, status=0, cliqueId=0, clusterUuid=bytes(16), healthMask=0, healthSummary=0
)
SICK_FABRIC = SimpleNamespace(
    state=3, status=0, cliqueId=1, clusterUuid=bytes(16), healthMask=1, healthSummary=2
)
SRAM = SimpleNamespace(
    **dict.fromkeys(("volatileCor", "aggregateCor", "volatileUncParity", "aggregateUncParity"), 0),
    **dict.fromkeys(("volatileUncSecDed", "aggregateUncSecDed", "aggregateUncBucketL2"), 0),
    **dict.fromkeys(("aggregateUncBucketSm", "aggregateUncBucketPcie"), 0),
    **dict.fromkeys(("aggregateUncBucketMcu", "aggregateUncBucketOther"), 0),
    bThresholdExceeded=1,
)
BANKS = SimpleNamespace(max=2550, high=8, partial=0, low=1, none=1)
FULL = SimpleNamespace(total=80 * GIB, used=79 * GIB, free=GIB, reserved=0)
SOME_SWAP = MEMINFO + "SwapTotal: 8388608 kB\nSwapFree: 8388608 kB\n"
USED_SWAP = MEMINFO + "SwapTotal: 8388608 kB\nSwapFree: 4194304 kB\n"
LITTLE_RAM = f"MemTotal: {RAM_KIB // 2} kB\nMemAvailable: {RAM_KIB // 4} kB\n"
NO_RAM = f"MemTotal: {RAM_KIB} kB\nMemAvailable: {RAM_KIB // 50} kB\n"
STALLED = "some avg10=45.00 avg60=9.00 avg300=3.00 total=99\nfull avg10=21.50 avg60=2.0 total=9\n"
NO_PROCESSES: dict[str, list[object]] = {
    f"{kind}RunningProcesses_v3": [] for kind in ("Compute", "Graphics", "MPSCompute")
}


@dataclass(frozen=True)
class Case:
    """A fault: how it is planted, and the finding that tells of it, and of which GPUs."""

    finding: str
    node: Node
    gpus: tuple[int, ...] = ()
    change: Callable[[Facts], Facts] = unchanged
    follows: tuple[str, ...] = ()  # what else is wrong because of it


TWO = (2,)
FAULTS = (
    # 1: GPUs, driver, CUDA
    Case("no-gpu", Node("none")),
    Case("no-driver", Node(), change=no_driver),
    Case("gpu-missing", Node(), change=in_snapshot(pci_gpus=9)),
    Case(
        "gpus-hidden",
        files(**{".dockerenv": ""}),
        change=in_snapshot(pci_gpus=9),
    ),
    Case("gpus-mixed", calls(Name="NVIDIA H200")),
    Case(
        "cuda-old",
        Node(),
        change=in_snapshot(driver=DriverInfo("470.1", "11.470.1", "11.4")),
        follows=("version-mismatch",),
    ),
    Case("gpu-old", calls(CudaComputeCapability=(7, 0)), TWO),
    Case("gpu-lost", Node(faults={2: Fault.LOST}), TWO),
    Case("gpu-hung", Node(), TWO, on_gpu(fault=Fault.HUNG)),
    Case("gpu-needs-reset", Node(faults={2: Fault.RESET_REQUIRED}), TWO),
    Case("gpu-forbidden", Node(faults={2: Fault.NO_PERMISSION}), TWO),
    Case("gpu-silent", Node(faults={2: Fault.ERROR}), TWO),
    # 2: the driver
    Case("nouveau", held_by("nouveau")),
    Case("gpu-passed-on", held_by("vfio-pci")),
    Case(
        "module-missing",
        without("sys/module/nvidia/version", "proc/driver/nvidia/version"),
        change=lambda facts: on_host(kernel=replace(facts.machine.kernel, module_version=None))(
            no_driver(facts)
        ),
        follows=("no-driver",),
    ),
    Case("version-mismatch", files(sys__module__nvidia__version="570.172.08\n")),
    Case(
        "libraries-mixed",
        files(**{"usr__lib64__libnvidia-ml.so.570.172.08": "", "usr__lib64__libcuda.so.1": ""}),
    ),
    Case("libcuda-missing", without("usr/lib/x86_64-linux-gnu/libcuda.so.1")),
    Case("device-files-missing", without("dev/nvidia3"), change=no_driver, follows=("no-driver",)),
    Case("uvm-missing", without("dev/nvidia-uvm")),
    Case("device-files-forbidden", Node(access=lambda path, _: not path.endswith("nvidia4"))),
    # 2: health
    Case("recovery-action", fields((Field.RECOVERY_ACTION, 0, 1)), TWO),
    Case("persistence-off", calls(PersistenceMode=0), TWO),
    Case("compute-prohibited", calls(ComputeMode=2), TWO),
    Case("compute-exclusive", calls(ComputeMode=3), TWO),
    Case("ecc-uncorrected", fields((Field.ECC_UNCORRECTED_VOLATILE, 0, 2)), TWO),
    Case("ecc-corrected", fields((Field.ECC_CORRECTED_VOLATILE, 0, 150)), TWO),
    Case("sram-threshold", calls(SramEccErrorStatus=SRAM), TWO),
    Case("ecc-off", fields((Field.ECC_MODE_CURRENT, 0, 0), (Field.ECC_MODE_PENDING, 0, 0)), TWO),
    Case("ecc-pending", fields((Field.ECC_MODE_PENDING, 0, 0)), TWO),
    Case("row-remap-failed", fields((Field.ROW_REMAP_FAILURE, 0, 1)), TWO),
    Case("row-remap-pending", fields((Field.ROW_REMAP_PENDING, 0, 1)), TWO),
    Case("spare-rows-low", calls(RowRemapperHistogram=BANKS), TWO),
    Case("repair-pending", calls(RepairStatus=[0, 1]), TWO),
    Case("retired-pages-pending", fields((Field.RETIRED_PAGES_PENDING, 0, 1)), TWO),
    Case("retired-pages-many", fields((Field.RETIRED_PAGES_DOUBLE_BIT, 0, 61)), TWO),
    Case("fabric-not-joined", calls(GpuFabricInfoV=FABRIC), TWO),
    Case("fabric-unhealthy", calls(GpuFabricInfoV=SICK_FABRIC), TWO),
    Case("mig-pending", calls(MigMode=[0, 1]), TWO),
    Case(
        "vgpu-unlicensed",
        Node(),
        TWO,
        on_gpu(vgpu_license=VgpuLicense(is_vgpu=True, licensed={"NVIDIA vCS": 0})),
    ),
    Case("xid-critical", xids(79), TWO),
    Case("xid-critical", xids(79, "0000:aa:00.0")),
    Case("xid-application", xids(31), TWO),
    Case("xids-unseen", Node(xids=Xids({}, is_seen=False))),
    # 3: now
    Case("power-limit-low", calls(EnforcedPowerLimit=400_000), TWO),
    Case("gpu-hot", calls(TemperatureV=88), TWO),
    Case("gpu-hot", calls(MarginTemperature=2, TemperatureThreshold=0), TWO),
    Case("thermal-slowdown", calls(CurrentClocksEventReasons=0x20), TWO),
    Case("power-brake", calls(CurrentClocksEventReasons=0x88), TWO),
    Case("hw-slowdown", calls(CurrentClocksEventReasons=0x8), TWO),
    Case("power-capped", calls(CurrentClocksEventReasons=0x4), TWO),
    Case("clocks-set", calls(CurrentClocksEventReasons=0x2), TWO),
    Case("vram-full", calls(MemoryInfo=FULL), TWO),
    Case("vram-orphaned", calls(**NO_PROCESSES), TWO, on_host(sees_all_processes=True)),
    # 4: trial
    Case("reading-failed", Node(), change=in_snapshot(read_errors={("ecc", "unknown"): 2})),
    Case("driver-slow", Node(), change=in_snapshot(read_seconds={"memory": 0.3})),
    Case("reading-slow", Node(), change=in_snapshot(read_seconds={"bar1": 0.8})),
    Case("model-unreadable", Node(), change=model(0, 0.0, "Permission denied")),
    Case("model-slow", Node(), change=model(512 * MIB, 8.0)),
    Case("model-small", Node(), change=model(MIB, 0.1)),
    Case("model-cached", Node(), change=model(512 * MIB, 0.1, direct=False)),
    # 5: links
    Case("pcie-narrow", calls(CurrPcieLinkWidth=8), TWO),
    Case("pcie-narrow", calls(CurrPcieLinkWidth=8, MaxPcieLinkWidth=8), TWO),
    Case("pcie-slow", calls(CurrPcieLinkGeneration=1), TWO),
    Case("pcie-slot-old", calls(CurrPcieLinkGeneration=4, MaxPcieLinkGeneration=4), TWO),
    Case("pcie-errors", fields((Field.PCIE_FATAL_ERRORS, 0, 1)), TWO),
    Case("nvlink-down", fields((Field.NVLINK_STATE, 5, 0)), TWO),
    Case("nvlink-errors", fields((Field.NVLINK_RECOVERY_ERRORS, 3, 2)), TWO),
    Case(
        "nvlink-unused",
        fields(*((Field.NVLINK_STATE, n, 0) for n in range(12)), profile="a100-mig", gpu=1),
        (1,),
        follows=("version-mismatch",),
    ),
    Case("numa-empty", files(sys__devices__system__node__node0__cpulist="\n"), (0, 1, 2, 3)),
    Case("numa-unknown", files(**{f"sys__bus__pci__devices__{BUSES[2]}__numa_node": "-1\n"}), TWO),
    # 5: the host
    Case("ram-small", files(proc__meminfo=LITTLE_RAM)),
    Case("ram-exhausted", files(proc__meminfo=NO_RAM)),
    Case("swap-used", files(proc__meminfo=USED_SWAP, proc__sys__vm__swappiness="1")),
    Case("swapping", files(proc__sys__vm__swappiness="1"), change=swapping),
    Case("swappiness-high", files(proc__meminfo=SOME_SWAP)),
    Case("oom-kills", files(proc__vmstat=VMSTAT.replace("oom_kill 0", "oom_kill 2"))),
    Case("pressure", files(proc__pressure__memory=STALLED)),
    Case("pressure", files(proc__pressure__io=STALLED)),
    Case("pressure-cpu", files(proc__pressure__cpu=STALLED)),
    Case("shm-small", Node(), change=on_host(shm=Space("/dev/shm", 64 * MIB, 64 * MIB))),  # noqa: S108
    Case("overcommit-strict", files(proc__sys__vm__overcommit_memory="2\n")),
    Case("zone-reclaim", files(proc__sys__vm__zone_reclaim_mode="1\n")),
    Case("numa-balancing", files(proc__sys__kernel__numa_balancing="1\n")),
    Case("huge-pages-off", files(sys__kernel__mm__transparent_hugepage__enabled="[never]\n")),
    Case(
        "cpu-powersave",
        files(sys__devices__system__cpu__cpu0__cpufreq__scaling_governor="powersave\n"),
    ),
    Case("disk-small", Node(), change=on_host(models=Space("/models", 100 * GIB, 60 * GIB))),
    Case("storage-unusable", Node(), change=on_host(storage=Space("/s", GIB, GIB, "is read-only"))),
    Case("storage-unusable", Node(), change=on_host(storage=Space("/s", 9 * GIB, MIB))),
)


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case.finding)
def test_planted_fault_is_found(case: Case, tmp_path: Path) -> None:
    """A fault of a node gives its finding, about its GPUs, with a remedy; and no other."""
    facts = case.change(case.node.facts(tmp_path))
    if case.finding in {"driver-slow", "reading-slow"}:  # a simulated driver is never judged slow
        build = replace(facts.snapshot.build, simulated=False)
        facts = in_snapshot(build=build)(facts)
    found = [finding for finding in examine(facts) if finding.severity is not Severity.OK]
    (ours,) = [finding for finding in found if finding.name == case.finding]
    assert ours.gpus == case.gpus
    assert ours.what
    assert ours.remedy
    assert "<GPU>" not in ours.remedy or not ours.gpus
    allowed = {case.finding, *case.follows}
    assert {finding.name for finding in found} - allowed == set()


def test_every_finding_has_its_fault() -> None:
    """There is no kind of finding that the table above does not plant."""
    assert {case.finding for case in FAULTS} == {kind.name for kind in KINDS}
    assert len(KINDS) == len({kind.name for kind in KINDS})


@pytest.mark.parametrize("profile", HEALTHY)
def test_nothing_is_invented(profile: str) -> None:
    """On a simulated node that is well, nothing is wrong, and there is not even a note."""
    facts = gather(sources(profile, lambda: None), None, sleep=lambda _: None)
    findings = examine(facts)
    assert [f.what for f in findings if f.severity is not Severity.OK] == []
    assert {f.step.number for f in findings} == {1, 2, 3, 4, 5}
    assert_reads_well(text(Report(facts, findings, profile, "now"), colour=False))


def test_nothing_is_invented_of_the_host(tmp_path: Path) -> None:
    """A host with which nothing is wrong gives no finding either, and each part of it is told."""
    findings = Node().findings(tmp_path)
    assert [f.what for f in findings if f.severity is not Severity.OK] == []
    told = {f.name for f in findings}
    assert told >= {"module", "library", "device-files", "xids", "numa", "ram", "swap", "disk"}


def test_reading_that_another_gives_is_not_missed() -> None:
    """A board whose profiling counters tell of PCIe does not lack what sampling it would tell."""
    facts = gather(sources("h100x8", lambda: None), None, sleep=lambda _: None)
    (absent,) = [f.what for f in examine(facts) if f.name == "absent"]
    assert ("pcie_sampled" in absent, "platform" in absent) == (False, True)


def test_sick_node_is_told() -> None:
    """All that ails the sick simulated node is found, each at the GPU that has it."""
    facts = gather(sources("b200x8-sick", lambda: None), None, sleep=lambda _: None)
    found = {f.name: f.gpus for f in examine(facts) if f.severity.is_wrong}
    assert found == {
        "recovery-action": (1, 4),
        "fabric-not-joined": (5,),
        "compute-prohibited": (7,),
        "ecc-uncorrected": (1, 4),
        "sram-threshold": (4,),
        "row-remap-failed": (2,),
        "row-remap-pending": (1,),
        "spare-rows-low": (2,),
        "repair-pending": (1,),
        "fabric-unhealthy": (6,),
        "persistence-off": (7,),
        "pcie-narrow": (3,),
        "nvlink-down": (3,),
        "nvlink-errors": (3,),
    }


def test_idle_link_is_not_slow(tmp_path: Path) -> None:
    """A PCIe link of generation 1 is normal while the GPU idles."""
    idle = SimpleNamespace(gpu=0, memory=0)
    node = calls(CurrPcieLinkGeneration=1, UtilizationRates=idle, PerformanceState=8)
    assert [f.name for f in node.findings(tmp_path) if f.severity is not Severity.OK] == []


def test_sleeping_nvlinks_are_not_down(tmp_path: Path) -> None:
    """A GPU on its fabric whose links all sleep is not told to have lost them."""
    node = fields(*((Field.NVLINK_STATE, link, 2) for link in range(18)))
    assert [f.name for f in node.findings(tmp_path) if f.severity is not Severity.OK] == []
