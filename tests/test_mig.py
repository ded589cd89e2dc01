"""MIG devices: what they show, how their changes are followed, and what that costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pynvml
import pytest
from nvml_loaded import PLAN, Node
from oracle import meaning
from scripted import Clock
from simulated_node import take

from exporter.catalogue import GPU_READERS, RULE_METRICS
from exporter.config import Rule
from exporter.exposition import Page
from exporter.gpu.memory import Memory
from exporter.gpu.mig import Instance, Mig
from exporter.gpu.profiling import PIPES, Profiling
from exporter.nvml import NvmlDriver
from exporter.rules.samples import columns
from exporter.sampling import Tier
from exporter.simulate import Planted, SimulatedDriver
from exporter.simulate.board import MigSlice
from exporter.snapshot import Snapshot

GIB = 1 << 30
SLICE = 81559 * (1 << 20) // 8  # memory of an eighth of an H100
DEFAULT = {(1, "3g.40gb"), (5, "2g.20gb"), (13, "1g.10gb")}  # of the fake, at indexes 0, 2 and 5


def mig(node: Node, device: Any, last: Mig | None = None) -> Mig:
    """Read the MIG devices of a GPU once."""
    reading: Mig = node.read(device, Tier.MIG, last={"mig": last})["mig"]
    return reading


def profiles(reading: Mig) -> set[tuple[int, str]]:
    """Return GPU instance and profile of each MIG device."""
    return {(i.gpu_instance, i.profile) for i in reading.instances.values()}


def series(snapshot: Snapshot) -> dict[str, set[str]]:
    """Return the UUIDs of MIG devices by metric, as Prometheus would see them."""
    page = Page(openmetrics=False).plain(snapshot).decode()
    found: dict[str, set[str]] = {}
    for name, (_, _, _, samples) in meaning(page, openmetrics=False).items():
        if name.startswith("gpu_mig_") and name != "gpu_mig_mode":
            found[name] = {dict(labels)["mig_uuid"] for _, labels, _ in samples}
    return found


def test_memory_profile_and_activity_of_each(node: Node) -> None:
    """An H100 with three MIG devices: their memory, names and shares, each its own."""
    planted = ("gpu0.gpm.2.value=37.5", "gpu0.gpm.7.value=12")
    node.connect("profile=h100-mig", "gpu0.mig=0:1:3,2:5:2,5:14:1", *planted)
    device = node.device()
    first = mig(node, device)
    second = mig(node, device, first)
    assert profiles(second) == {(1, "3g.40gb"), (5, "2g.20gb"), (14, "1g.10gb")}
    totals = {i.profile: i.memory.total_bytes for i in second.instances.values()}
    assert totals == {"3g.40gb": 4 * SLICE, "2g.20gb": 2 * SLICE, "1g.10gb": SLICE}
    for uuid, instance in second.instances.items():
        assert uuid.startswith("MIG-")
        assert first.instances[uuid].activity == Profiling()  # two samples are needed
        assert instance.activity.sm_ratio == 0.375
        assert instance.activity.pipes["tensor_hmma"] == 0.12
        used, free = instance.memory.used_bytes, instance.memory.free_bytes
        assert used is not None
        assert free is not None
        assert 0 < used < used + free == instance.memory.total_bytes
    tensor = [i.activity.tensor_ratio for i in second.instances.values()]
    assert len(set(tensor)) == 3  # each instance's own


def test_an_a100_has_memory_and_no_activity(node: Node) -> None:
    """Before Hopper there are no profiling counters: absent, and asked for once."""
    node.connect("profile=a100-mig")
    device = node.device()
    first = mig(node, device)
    second = mig(node, device, first)
    assert profiles(second) == DEFAULT
    for instance in second.instances.values():
        assert instance.memory.total_bytes
        assert instance.activity == Profiling(pipes=dict.fromkeys(PIPES))
    assert node.calls().count("nvmlGpmMigSampleGet") == 0
    assert node.calls().count("nvmlGpmQueryDeviceSupport") == 1


@pytest.mark.parametrize("profile", ["h100x8", "b200x8", "l40s", "t4", "geforce", "gb10", "vgpu"])
def test_without_mig_there_is_nothing(node: Node, profile: str) -> None:
    """A board without MIG, or with MIG off, has no series and is asked one call, or none."""
    node.connect(f"profile={profile}")
    device = node.device()
    for _ in range(3):
        assert mig(node, device) == Mig({})
    calls = node.calls()
    assert calls.count("nvmlDeviceGetMigMode") == (3 if profile in {"h100x8", "b200x8"} else 1)
    assert calls.count("nvmlDeviceGetMaxMigDeviceCount") == 0


def test_the_parents_missing_utilization_is_absent(node: Node) -> None:
    """A GPU with MIG on has no utilization of its own; it is never 0."""
    node.connect("profile=h100-mig")
    read = node.read(node.device(), Tier.FAST, Tier.SLOW)
    assert read["utilization"].gpu_ratio is None
    assert read["utilization"].busy_seconds is None
    assert set(read["engines"].ratios.values()) == {None}
    assert read["memory"].used_bytes > 0


LAYOUTS = {
    "another layout": ("gpu0.mig=0:1:3,1:9:4", {(1, "3g.40gb"), (9, "4g.50gb")}),
    "GPU instance ids that are used again": (
        "gpu0.mig=3:1:1,4:5:1",
        {(1, "1g.10gb"), (5, "1g.10gb")},
    ),
    "none": ("gpu0.mig=", set()),
    "MIG off": ("gpu0.mig_mode=0", set()),
}


@pytest.mark.parametrize("change", LAYOUTS)
def test_a_change_is_followed_within_thirty_seconds(node: Node, change: str) -> None:
    """What vanished has no series, what appeared has all of its own, none is there twice."""
    node.connect("profile=h100-mig")
    poller = node.poller(PLAN)

    def tick(seconds: int) -> Snapshot:
        for _ in range(seconds):
            node.clock.seconds += 1
            snapshot = poller.tick()
            assert snapshot.read_errors == {}
        return snapshot

    before = tick(12).gpus[0].mig
    assert before is not None
    line, expected = LAYOUTS[change]
    node.put(line)
    snapshot = tick(30)
    after = snapshot.gpus[0].mig
    assert after is not None
    assert profiles(after) == expected
    found = series(snapshot)
    assert set(found) == ({*SERIES} if expected else set())
    assert all(uuids == set(after.instances) for uuids in found.values())
    node.put("gpu0.mig=0:1:3,2:5:2,5:13:1", "gpu0.mig_mode=1")
    again = tick(30).gpus[0].mig
    assert again is not None
    assert set(again.instances) == set(before.instances)
    assert all(i.activity.sm_ratio is not None for i in again.instances.values())
    assert node.calls().gpm_samples == 2 + 2 * len({1, 5, 13} | {gi for gi, _ in expected})


SERIES = [
    "gpu_mig_info",
    *(f"gpu_mig_memory_{what}_bytes" for what in ("total", "used", "free", "reserved")),
    "gpu_mig_memory_used_ratio",
    *(f"gpu_mig_{what}_active_ratio" for what in ("graphics_engine", "sm", "tensor", "dram")),
    "gpu_mig_sm_occupancy_ratio",
    "gpu_mig_pipe_active_ratio",
]


OTHER = ("gpu0.mig=0:1:1,2:5:2,3:9:2",)


def _spoil(
    node: Node, monkeypatch: pytest.MonkeyPatch, call: str, lines: tuple[str, ...], at: int
) -> None:
    """Change the scenario just before the nth such call to NVML."""
    real: Callable[..., Any] = getattr(pynvml, call)
    seen = iter(range(1, 10_000))

    def spoiled(*args: object) -> object:
        if next(seen) == at:
            node.put(*lines)
        return real(*args)

    monkeypatch.setitem(vars(pynvml), call, spoiled)


@pytest.mark.parametrize("at", range(1, 7))
@pytest.mark.parametrize(
    "call",
    [
        "nvmlDeviceGetMigDeviceHandleByIndex",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetGpuInstanceId",
        "nvmlDeviceGetMemoryInfo",
        "nvmlGpmMigSampleGet",
        "nvmlGpmMetricsGet",
    ],
)
def test_a_change_in_mid_read(
    node: Node, monkeypatch: pytest.MonkeyPatch, call: str, at: int
) -> None:
    """Whenever the layout changes, what is read is one of the two, whole, or less; then the new."""
    node.connect("profile=h100-mig")
    device = node.device()
    first = mig(node, device)
    whole = {**mig(node, device, first).instances}
    with monkeypatch.context() as patch:
        _spoil(node, patch, call, OTHER, at)
        torn = mig(node, device, first)
    node.put(*OTHER)
    expected = mig(node, device, torn)
    assert profiles(expected) == {(1, "1g.10gb"), (5, "2g.20gb"), (9, "2g.20gb")}
    told = {**{u: _static(i) for u, i in whole.items()}}
    told |= {u: _static(i) for u, i in expected.instances.items()}
    assert {u: _static(i) for u, i in torn.instances.items()}.items() <= told.items()
    for instance in torn.instances.values():
        assert (
            instance.activity == Profiling()
            or instance.activity.sm_ratio is None
            or (0 <= instance.activity.sm_ratio <= 1)
        )


def _static(instance: Instance) -> tuple[int, int, str, int | None]:
    return (
        instance.gpu_instance,
        instance.compute_instance,
        instance.profile,
        instance.memory.total_bytes,
    )


def test_a_handle_that_passes_to_another_is_not_believed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drivers reuse handles: a MIG device whose UUID changed while it was read is left out."""
    node.connect("profile=h100-mig")
    device = node.device()
    answers = iter(["MIG-a", "MIG-b", "MIG-c", "MIG-c", "MIG-c", "MIG-c"])
    monkeypatch.setitem(vars(pynvml), "nvmlDeviceGetUUID", lambda _handle: next(answers))
    assert list(mig(node, device).instances) == ["MIG-c"]  # and there is one, not two


def test_a_new_one_has_no_activity_yet(node: Node) -> None:
    """Its GPU instance may have been another's a moment ago, and so may its counters."""
    node.connect("profile=h100-mig", "gpu0.gpm.2.value=50")
    device = node.device()
    first = mig(node, device)
    uuid = next(iter(first.instances))
    others = Mig({u: i for u, i in first.instances.items() if u != uuid})
    second = mig(node, device, others)
    assert second.instances[uuid].activity == Profiling()
    assert {i.activity.sm_ratio for u, i in second.instances.items() if u != uuid} == {0.5}


@pytest.mark.parametrize(("modes", "devices"), [([0, 1], 0), ([1, 0], 3)])
def test_only_the_present_mode_counts(
    node: Node, monkeypatch: pytest.MonkeyPatch, modes: list[int], devices: int
) -> None:
    """A mode that takes effect at the next reset says nothing about now."""
    node.connect("profile=h100-mig")
    monkeypatch.setitem(vars(pynvml), "nvmlDeviceGetMigMode", lambda _handle: modes)
    assert len(mig(node, node.device()).instances) == devices


@pytest.mark.parametrize("code", [1, 2, 3, 4, 6, 9, 10, 12, 13, 15, 16, 18, 25, 26, 999])
@pytest.mark.parametrize(
    "symbol",
    [
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetMaxMigDeviceCount",
        "nvmlDeviceGetMigDeviceHandleByIndex",
        "nvmlDeviceGetName",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetGpuInstanceId",
        "nvmlDeviceGetComputeInstanceId",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlGpmQueryDeviceSupport",
        "nvmlGpmSampleAlloc",
        "nvmlGpmMigSampleGet",
        "nvmlGpmMetricsGet",
    ],
)
def test_every_code_on_every_call(node: Node, symbol: str, code: int) -> None:
    """A call that fails leaves out readings, or the group with an error; none is wrong."""
    node.connect("profile=h100-mig")
    whole = mig(node, node.device())
    node.driver = NvmlDriver()  # one that has no samples yet
    node.connect("profile=h100-mig")
    system = symbol in {"nvmlGpmSampleAlloc", "nvmlGpmMetricsGet"}
    node.put(f"{'' if system else 'gpu0.'}call.{symbol}.ret={code}")
    device = node.device()
    node.take(device, Tier.MIG)
    outcome = node.take(device, Tier.MIG)
    if code in {1, 9, 12, 18}:
        assert outcome.driver_gone
    elif outcome.fault is None:
        reading = outcome.readings["mig"]
        if outcome.errors:
            assert list(outcome.errors) == ["mig"]
            assert not outcome.errors["mig"].startswith("unexpected")
            assert reading is None
        else:
            assert set(reading.instances) <= set(whole.instances)
    else:
        assert code in {15, 16}
        assert symbol in {
            *("nvmlDeviceGetMigMode", "nvmlDeviceGetMaxMigDeviceCount"),
            *("nvmlDeviceGetMigDeviceHandleByIndex", "nvmlGpmQueryDeviceSupport"),
        }
    node.put(f"{'' if system else 'gpu0.'}call.{symbol}.ret=0")
    assert node.read(node.device(), Tier.MIG)["mig"].instances.keys() == whole.instances.keys()


def test_what_it_costs(node: Node) -> None:
    """Seven MIG devices: two calls, and 9 for each, at their pace; the fast tick has none."""
    seven = ",".join(f"{index}:{7 + index}:1" for index in range(7))
    node.connect("profile=h100-mig", f"gpu0.mig={seven}")
    device = node.device()
    last = mig(node, device)
    last = mig(node, device, last)
    before = node.calls()
    last = mig(node, device, last)
    after = node.calls()
    calls = {name: after.count(name) - before.count(name) for name in after.by_symbol}
    assert len(last.instances) == 7
    assert {name: number for name, number in calls.items() if number} == {
        "nvmlDeviceGetMigMode": 1,
        "nvmlDeviceGetMaxMigDeviceCount": 1,
        "nvmlDeviceGetMigDeviceHandleByIndex": 7,
        "nvmlDeviceGetUUID": 14,
        "nvmlDeviceGetGpuInstanceId": 7,
        "nvmlDeviceGetComputeInstanceId": 7,
        "nvmlDeviceGetName": 7,
        "nvmlDeviceGetMemoryInfo_v2": 7,
        "nvmlGpmMigSampleGet": 7,
        "nvmlGpmMetricsGet": 7,
    }
    node.read(device, Tier.FAST)
    node.read(device, Tier.FAST)
    before = node.calls()
    node.read(device, Tier.FAST)
    after = node.calls()
    assert sum(after.by_symbol.values()) - sum(before.by_symbol.values()) <= 11
    assert after.count("nvmlGpmMigSampleGet") == before.count("nvmlGpmMigSampleGet")


def test_driver_that_tells_of_absurd_instances(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids and counts are bounded: no samples without end, no loop without end."""
    node.connect("profile=h100-mig", "gpu0.gpm.2.value=50")
    monkeypatch.setitem(vars(pynvml), "nvmlDeviceGetMaxMigDeviceCount", lambda _handle: 1 << 30)
    numbers = iter(range(1000, 2000))
    monkeypatch.setitem(vars(pynvml), "nvmlDeviceGetGpuInstanceId", lambda _h: next(numbers))
    device = node.device()
    for _ in range(20):
        reading = mig(node, device)
    assert len(reading.instances) == 3
    assert node.calls().gpm_samples == 0


def test_a_change_of_the_simulated_node() -> None:
    """A layout that is planted, and MIG switched off, are followed as on a real one."""
    planted: dict[int, Planted] = {}
    driver = SimulatedDriver("h100-mig", Clock(), planted=planted)
    device = driver.open(driver.connect()[1][0], GPU_READERS, 3.0)
    reading = take(device, (Tier.MIG,), {})["mig"]
    assert profiles(reading) == DEFAULT
    planted[0] = Planted(mig_slices=(MigSlice(0, 7),))
    assert profiles(take(device, (Tier.MIG,), {})["mig"]) == {(0, "7g.80gb")}
    planted[0] = Planted(calls={"nvmlDeviceGetMigMode": [0, 0]})
    assert take(device, (Tier.MIG,), {})["mig"] == Mig({})


def test_a_rule_sees_the_highest_of_them() -> None:
    """A rule on a MIG gauge has one series a GPU, absent where there is no MIG device."""
    column = columns([Rule("Any", "gpu_mig_memory_used_ratio", above=0.8)])[-1]
    instances = {
        f"MIG-{n}": Instance(n, 0, "1g.10gb", Memory(GIB, used), Profiling())
        for n, used in enumerate((GIB // 2, GIB // 4, None))
    }
    assert column.value(Mig(instances)) == 0.5
    assert column.value(Mig({})) is None
    assert {"gpu_mig_sm_active_ratio", "gpu_mig_memory_used_ratio"} <= set(RULE_METRICS)
    assert not {"gpu_mig_info", "gpu_mig_pipe_active_ratio"} & set(RULE_METRICS)
