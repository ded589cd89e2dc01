"""The simulated scenario: a busy inference node whose readings agree with each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import Clock
from simulated_node import NODES, Node, series, take

from exporter.catalogue import GPU_READERS
from exporter.fields import ALL_LINKS, Field
from exporter.gpu.clocks import Clocks
from exporter.gpu.memory import Memory
from exporter.gpu.nvlink import NvLink
from exporter.gpu.power import Power
from exporter.gpu.temperature import Temperature
from exporter.gpu.utilization import Utilization
from exporter.sampling import FieldRequest, Reader, Tier
from exporter.simulate import PROFILES, SimulatedDriver
from exporter.simulate.scenario import LOOP_SECONDS, Trace

MIB = 1 << 20


def longest(readings: list[Any], holds: Callable[[Any], bool]) -> int:
    """Return the length of the longest run of readings for which something holds."""
    best = run = 0
    for reading in readings:
        run = run + 1 if holds(reading) else 0
        best = max(best, run)
    return best


@pytest.mark.parametrize("profile", NODES)
def test_surges_reach_what_the_rules_wait_for(profile: str) -> None:
    """In the first five minutes a GPU is at 95 % for over 10 s, and its memory over 80 % full."""
    loads = series(profile, 300, "utilization")
    memories = series(profile, 300, "memory")
    assert max(longest(gpu, lambda u: (u.gpu_ratio or 0) >= 0.95) for gpu in loads) >= 30
    if profile != "gb10":
        assert max(m.used_ratio for gpu in memories for m in gpu) > 0.8
        assert min(m.used_ratio for gpu in memories for m in gpu) < 0.75


def test_only_surges_look_like_sustained_load() -> None:
    """Between two surges the node is busy, but never at 95 % for 10 s, and GPUs differ."""
    loads = [gpu[120:360] for gpu in series("h100x8", 360, "utilization")]
    assert max(longest(gpu, lambda u: u.gpu_ratio >= 0.95) for gpu in loads) < 10
    means = [sum(u.gpu_ratio for u in gpu) / len(gpu) for gpu in loads]
    assert all(0.35 < mean < 0.75 for mean in means)
    assert len({tuple(u.gpu_ratio for u in gpu) for gpu in loads}) == 8


def test_surge_heats_and_throttles() -> None:
    """A surge holds power at the cap, lowers clocks, heats with a lag, and one GPU gets too hot."""
    node = Node("h100x8")
    calm = node.read(55.0)[0]
    early = node.read(68.0)[0]
    late = node.read(98.0)
    assert early["clocks"].active["sw_power_cap"] == 1
    assert 675 <= early["power"].draw_watts <= 700
    assert early["clocks"].hertz["sm"] < calm["clocks"].hertz["sm"] == 1.98e9
    assert late[0]["temperature"].core_celsius >= early["temperature"].core_celsius + 5
    assert [g["clocks"].active["sw_thermal_slowdown"] for g in late] == [0, 0, 0, 1, 0, 0, 0, 0]
    assert late[0]["nvlink"].transmit_bytes_per_second is None  # a hole of 30 s


def test_memory_adds_up() -> None:
    """Used, free and reserved make up the total in each second; used is whole pages."""
    for gpu in series("h100x8", 120, "memory"):
        for memory in gpu:
            assert memory.used_bytes + memory.free_bytes + memory.reserved_bytes == 81559 * MIB
            assert memory.used_bytes % (2 * MIB) == 0


@pytest.mark.parametrize("profile", ["h100x8", "t4"])
def test_energy_is_the_integral_of_power(profile: str) -> None:
    """Over a surge and what follows, joules are watts times seconds within 1 %."""
    for gpu in series(profile, 301, "power"):
        readings: list[Power] = gpu
        watts = [power.draw_watts or 0.0 for power in readings]
        joules = [power.energy_joules or 0.0 for power in readings]
        area = sum(watts) - (watts[0] + watts[-1]) / 2
        assert joules[-1] - joules[0] == pytest.approx(area, rel=0.01)


def test_nvlink_bytes_are_the_integral_of_their_rate() -> None:
    """The counters and the rates between them tell the same; links share the sum evenly."""
    node = Node("h100x8")
    before: NvLink = node.read(0.0, Tier.FAST)[0]["nvlink"]
    rates = []
    for second in range(1, 301):
        last: NvLink = node.read(float(second), Tier.FAST)[0]["nvlink"]
        rates.append(last.transmit_bytes_per_second or 0.0)
    assert last.transmit_bytes is not None
    assert before.transmit_bytes is not None
    assert last.transmit_bytes - before.transmit_bytes == pytest.approx(sum(rates), rel=0.01)
    assert max(rates) < 18 * 26.5625e9

    per_link = tuple(FieldRequest(Field.NVLINK_DATA_TRANSMIT, link) for link in (0, 17, ALL_LINKS))
    reader: Reader[Any] = Reader("links", "nvlink", Tier.FAST, lambda _device, _: None, per_link)
    gpu = node.driver.connect()[1][0]
    device = node.driver.open(gpu, (reader,), 3.0)
    device.begin(Tier.FAST)
    links = [device.field(request.field, request.scope) for request in per_link]
    assert links[0] == links[1]
    assert links[2] == pytest.approx(18 * (links[0] or 0), abs=18)


def test_event_seconds_are_the_time_that_events_were_active() -> None:
    """At whole seconds, each counter is the count of the seconds with its reason active."""
    clocks: list[list[Clocks]] = series("h100x8", 301, "clocks")
    for gpu in clocks:
        for reason, counter in (
            ("sw_power_cap", "sw_power_cap"),
            ("sw_thermal_slowdown", "sw_thermal_slowdown"),
            ("sw_thermal_slowdown", "thermal"),
            ("gpu_idle", "low_utilization"),
        ):
            assert gpu[300].seconds[counter] == sum(c.active[reason] or 0 for c in gpu[:300])
    assert any(gpu[300].seconds["thermal"] for gpu in clocks)


def test_readings_depend_on_time_alone() -> None:
    """Who looks every second and who looks once, hours later, see the same."""
    patient, eager = Node("h100x8"), Node("h100x8")
    for second in range(0, 3 * LOOP_SECONDS, 7):
        eager.read(float(second), Tier.FAST)
    at = 3 * LOOP_SECONDS + 77.25
    for one, other in zip(patient.read(at), eager.read(at), strict=True):
        for group in ("memory", "temperature", "power", "clocks", "nvlinks", "pcie_link"):
            assert one[group] == other[group]
        assert one["utilization"].memory_ratio == other["utilization"].memory_ratio
        assert one["nvlink"].transmit_bytes == other["nvlink"].transmit_bytes


def test_start_is_explicit() -> None:
    """A node that started an hour ago shows that hour; one that starts later waits."""
    now, hour_old = Clock(), SimulatedDriver("t4", Clock(), start=1000.0 - 3600.0)
    early = SimulatedDriver("t4", now, start=1060.0)

    def joules(driver: SimulatedDriver) -> float:
        device = driver.open(driver.connect()[1][0], GPU_READERS, 3.0)
        power: Power = take(device, (Tier.FAST,), {})["power"]
        return power.energy_joules or 0.0

    assert joules(hour_old) > 3600 * 25
    assert joules(early) == 0.0
    now.seconds = 1070.0
    assert joules(early) > 0.0


def counters(groups: dict[str, Any]) -> dict[str, float]:
    """Return all counters that a GPU has."""
    values: dict[str, float | None] = {
        "energy": groups["power"].energy_joules,
        "transmit": groups["nvlink"].transmit_bytes,
        "receive": groups["nvlink"].receive_bytes,
        "replays": groups["pcie_link"].replays,
    }
    values |= {f"clocks.{reason}": s for reason, s in groups["clocks"].seconds.items()}
    return {name: value for name, value in values.items() if value is not None}


def check_ranges(groups: dict[str, Any]) -> None:
    """Assert that each level is one that a driver could answer with."""
    utilization: Utilization = groups["utilization"]
    memory: Memory = groups["memory"]
    temperature: Temperature = groups["temperature"]
    clocks: Clocks = groups["clocks"]
    for ratio in (utilization.gpu_ratio, utilization.memory_ratio):
        assert ratio is None or 0 <= ratio <= 1
    assert memory.used_ratio is None or 0.5 < memory.used_ratio < 0.95
    assert isinstance(temperature.core_celsius, int)
    assert 30 <= temperature.core_celsius <= 95
    assert groups["power"].draw_watts > 0
    assert (clocks.hertz["sm"] or 0) <= groups["max_clocks"].hertz["sm"]
    assert (clocks.hertz["sm"] or 0) >= 0.4 * groups["max_clocks"].hertz["sm"]
    assert all(0 <= ratio <= 1 for ratio in groups["fans"].ratios.values())


@pytest.fixture(scope="module")
def nodes() -> dict[str, Node]:
    """A node of each profile: what it shows depends on the time alone."""
    return {profile: Node(profile) for profile in NODES}


@given(
    st.sampled_from(NODES),
    st.lists(
        st.one_of(
            st.floats(0.0, 3.0),
            st.floats(0.0, 1e5),
            st.sampled_from([1e-9, 1.0, float(LOOP_SECONDS), LOOP_SECONDS - 1e-9]),
        ),
        min_size=1,
        max_size=12,
    ),
)
@settings(max_examples=60, deadline=None)
def test_counters_never_go_back(nodes: dict[str, Node], profile: str, steps: list[float]) -> None:
    """Whatever the steps between two looks, counters grow, at no more than the highest rate."""
    node = nodes[profile]
    at = 0.0
    before = counters(node.read(at)[-1])
    for step in steps:
        at += step
        groups = node.read(at)[-1]
        check_ranges(groups)
        after = counters(groups)
        assert after.keys() == before.keys()
        assert all(after[name] >= before[name] for name in after)
        assert after["energy"] - before["energy"] <= 1000.0 * step + 0.01
        assert after["clocks.sw_power_cap"] - before["clocks.sw_power_cap"] <= step + 1e-6
        before = after


@pytest.mark.parametrize("profile", NODES)
def test_loop_closes_without_a_jump(profile: str) -> None:
    """What the last second leaves, the first takes up: temperature and memory do not leap."""
    board = PROFILES[profile].boards[-1]
    trace = Trace(board, len(PROFILES[profile].boards) - 1)
    end, begin = trace.at(LOOP_SECONDS - 0.001), trace.at(LOOP_SECONDS)
    assert end.core_celsius == pytest.approx(begin.core_celsius, abs=0.1)
    assert end.memory_share == pytest.approx(begin.memory_share, abs=0.002)
    assert end.power_watts == pytest.approx(begin.power_watts, abs=1.0)
    last = trace.at(LOOP_SECONDS - 1)
    assert last.core_celsius == pytest.approx(begin.core_celsius, abs=3.0)
    assert last.memory_share == pytest.approx(begin.memory_share, abs=0.02)


@pytest.mark.parametrize("gpu", range(8))
def test_sums_go_on_where_the_loop_closes(gpu: int) -> None:
    """Just before and at the seam, sums differ by what a rate adds, however often it went round."""
    trace = Trace(PROFILES["h100x8"].boards[gpu], gpu)
    once = trace.at(LOOP_SECONDS)
    for loops in (1, 2, 3, 1000, 123_457, 999_983):
        seam = float(loops * LOOP_SECONDS)
        last, before, after = (trace.at(s) for s in (seam - 1.0, math.nextafter(seam, 0.0), seam))
        for name in ("energy_joules", "pcie_share_seconds", "nvlink_share_seconds"):
            totals = [getattr(moment, name) for moment in (last, before, after)]
            assert totals[1] <= totals[2] == loops * getattr(once, name)
            assert totals[2] == pytest.approx(totals[1], abs=1e-3)
            assert totals[0] < totals[2]
        mean_watts = (last.power_watts + after.power_watts) / 2
        assert after.energy_joules - last.energy_joules == pytest.approx(mean_watts, abs=1e-3)
