"""One GPU behind NVML: what is asked, how often, and what of the answers is believed."""

from __future__ import annotations

import math
from pathlib import Path

import pynvml
import pytest
from fake_nvml import build
from hypothesis import example, given
from hypothesis import strategies as st
from nvml_loaded import Node, flat, loaded
from scripted import Clock

from exporter.batches import MAX_FIELDS, FieldBatch, decode
from exporter.fields import ALL_LINKS
from exporter.refusals import REPROBE_SECONDS
from exporter.sampling import Tier

POWER = "nvmlDeviceGetPowerUsage"
MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by nvmlValueType_t
U32, U64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
NO_VALUE = {"uiVal": U32, "ulVal": U64, "ullVal": U64}


@given(st.sampled_from(range(len(MEMBERS))), st.integers(0, U64))
@example(0, 0x7FF8000000000000)  # NaN
@example(0, 0xFFF0000000000000)  # -infinity
@example(1, 0xDEADBEEFFFFFFFFF)
@example(2, U64)
@example(3, U64)
@example(3, U32)
@example(4, U64)
@example(5, 0xDEADBEEFFFFFFFFB)
@example(6, 0xDEADBEEFDEADFFFF)
def test_field_values_are_decoded_as_pynvml_does(value_type: int, bits: int) -> None:
    """Every type agrees with NVIDIA's union; NVML's words for "no value" and NaN are None."""
    value = pynvml.c_nvmlValue_t()
    value.ullVal = bits
    member = MEMBERS[value_type]
    expected = getattr(value, member)
    if expected == NO_VALUE.get(member) or not math.isfinite(expected):
        expected = None
    assert decode(value_type, bits) == expected


@given(st.integers(len(MEMBERS), U32), st.integers(0, U64))
def test_value_of_an_unknown_type_is_no_value(value_type: int, bits: int) -> None:
    """A type that a newer driver may invent gives no reading."""
    assert decode(value_type, bits) is None


def test_batch_reads_what_pynvml_reads(node: Node) -> None:
    """All fields there are, in parts of 128: codes and values are those of pynvml's own call."""
    node.connect("profile=b200x8")
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    fields = [(number, 0) for number in range(1, 309)] + [(138, ALL_LINKS), (165, 17)]
    assert len(fields) > 2 * MAX_FIELDS
    answers = FieldBatch(handle, fields).read()
    theirs = [v for f in fields for v in pynvml.nvmlDeviceGetFieldValues(handle, [f])]
    assert [code for code, _ in answers] == [v.nvmlReturn for v in theirs]
    assert [value for code, value in answers if code == 0] == [
        getattr(v.value, MEMBERS[v.valueType]) for v in theirs if v.nvmlReturn == 0
    ]
    assert {value for code, value in answers if code} == {None}
    assert len({v.valueType for v in theirs if v.nvmlReturn == 0}) >= 3


def test_refused_call_is_asked_again_only_after_its_time(node: Node) -> None:
    """A call that the board refuses is asked once; when it is due again and answers, it is back."""
    node.connect(f"gpu0.call.{POWER}.ret=3", "gpu0.power_mw=412500")
    device = node.device()
    asked = []
    for seconds in (0, 1, REPROBE_SECONDS - 10, 10, REPROBE_SECONDS + 1):
        node.clock.seconds += seconds
        assert node.read(device, Tier.FAST)["power"].draw_watts is None
        asked.append(node.calls().count(POWER, 0))
    assert asked == [1, 1, 1, 2, 3]
    assert 60 <= REPROBE_SECONDS <= 3600
    node.put(f"gpu0.call.{POWER}.ret=0")
    assert node.read(device, Tier.FAST)["power"].draw_watts is None
    node.clock.seconds += REPROBE_SECONDS
    assert node.read(device, Tier.FAST)["power"].draw_watts == 412.5


def test_refusal_is_of_one_question_not_of_its_call(node: Node) -> None:
    """The clock of one domain is there though another domain's is refused."""
    node.connect("profile=gb10")
    device = node.device()
    for _ in range(3):
        readings = node.read(device, Tier.FAST, Tier.SLOW)
    hertz = readings["clocks"].hertz | readings["slow_clocks"].hertz
    assert {domain for domain, value in hertz.items() if value} == {"sm", "graphics", "video"}
    assert node.calls().count("nvmlDeviceGetClockInfo", 0) == 3 * 3 + 1


def test_refused_field_leaves_the_batch_until_its_time(node: Node) -> None:
    """One field of the batch that is refused is not read again; the others are, at each tick."""
    node.connect("gpu0.field.83.ret=3", "gpu0.memory_temp=61")
    device = node.device()
    for _ in range(5):
        readings = node.read(device, Tier.FAST)
        assert (readings["power"].energy_joules, readings["temperature"].memory_celsius) == (
            None,
            61,
        )
    fields = node.calls().fields[0]
    assert (fields[83], fields[82]) == (1, 5)
    node.put("gpu0.field.83.ret=0", "gpu0.field.83.value=5000")
    node.clock.seconds += REPROBE_SECONDS
    assert node.read(device, Tier.FAST)["power"].energy_joules == 5.0
    assert node.calls().fields[0][83] == 2


def test_field_that_failed_costs_its_group_at_that_tick(node: Node) -> None:
    """A field with an error of the moment stays in the batch, and is there at the next tick."""
    node.connect("gpu0.field.83.ret=999")
    device = node.device()
    outcome = node.take(device, Tier.FAST)
    assert outcome.errors == {"power": "unknown"}
    assert outcome.readings["power"] is None
    assert outcome.readings["temperature"].memory_celsius
    node.put("gpu0.field.83.ret=0")
    assert node.read(device, Tier.FAST)["power"].energy_joules


def test_each_link_has_or_lacks_each_field(node: Node) -> None:
    """A link that is down is shown as down, one that has no counters has none, others have all."""
    node.connect("gpu0.links_inactive=0x20", "gpu0.link_errors=7", "gpu0.field.161.2.ret=3")
    device = node.device()
    for _ in range(2):
        links = node.read(device, Tier.SLOW)["nvlinks"]
    assert links.active == {str(link): int(link != 5) for link in range(18)}
    kinds = {"replay", "recovery", "crc"}
    expected = {(str(link), kind) for link in range(18) if link != 5 for kind in kinds}
    assert links.errors == dict.fromkeys(expected - {("2", "replay")}, 7)


def test_links_that_a_board_lacks_are_asked_for_once(node: Node) -> None:
    """An A100 has 12 links: nothing of the other six is asked a second time."""
    node.connect("profile=a100-mig", "gpu0.mig_mode=0")
    device = node.device()
    assert len(node.read(device, Tier.SLOW)["nvlinks"].active) == 12
    before = node.calls()
    assert len(node.read(device, Tier.SLOW)["nvlinks"].active) == 12
    assert node.calls().fields[0][165] - before.fields[0][165] == 12
    assert node.calls().count("nvmlDeviceGetNvLinkState") == 6


def test_blackwell_without_the_sum_over_links_is_summed_up(node: Node) -> None:
    """Where fields 138 and 139 are refused, the bytes of each link add up to the same."""
    node.connect("profile=b200x8")
    expected = node.read(node.device(), Tier.FAST)["nvlink"]
    node.put("gpu0.field.138.ret=3", "gpu0.field.139.ret=3")
    device = node.device()
    node.read(device, Tier.FAST)
    summed = node.read(device, Tier.FAST)["nvlink"]
    assert expected.transmit_bytes > expected.receive_bytes > 0
    assert summed.transmit_bytes == expected.transmit_bytes
    assert summed.receive_bytes == expected.receive_bytes


@pytest.mark.parametrize(
    ("driver", "numbers"),
    [
        ("550.54.15", set()),
        ("570.124.06", set()),
        ("575.57.08", {251, 252, 253}),
        ("580.65.06", {251, 252, 253}),
        ("580.82.07", {269, 270, 271}),
        ("595.10", {269, 270, 271}),
        ("615.20.01", {269, 270, 271}),
        ("no version", set()),
    ],
)
def test_driver_decides_which_number_a_field_has(
    node: Node, monkeypatch: pytest.MonkeyPatch, driver: str, numbers: set[int]
) -> None:
    """Only numbers that mean a slowdown to this driver are asked for; none where that is open."""
    if driver == "no version":
        monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: driver)
        node.connect()
    else:
        node.connect(f"driver={driver}")
    readings = node.read(node.device(), Tier.FAST)
    asked = set(node.calls().fields[0])
    assert asked & set(range(251, 274)) == numbers
    names = {name for name, value in readings["clocks"].seconds.items() if value is not None}
    newer = {"sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"}
    assert names & newer == (newer if numbers else set())


def test_profiling_counters_cover_one_tick_and_no_hole(node: Node) -> None:
    """A rate needs two samples that are neither too close nor too far; the next one is good."""
    node.connect("gpu0.pcie_tx_bytes_per_second=1048576000")
    device = node.device()

    def rate(after_seconds: float) -> float | None:
        node.clock.seconds += after_seconds - 1
        value: float | None = node.read(device, Tier.FAST)[
            "pcie_throughput"
        ].transmit_bytes_per_second
        return value

    assert [rate(s) for s in (1, 1, 2.9, 0.05, 1, 3.1, 1, 60, 1)] == [
        *(None, 1048576000, 1048576000, None, 1048576000),
        *(None, 1048576000, None, 1048576000),
    ]
    calls = node.calls()
    assert (calls.gpm_reused, calls.gpm_swapped, calls.gpm_samples) == (0, 0, 2)


@pytest.mark.parametrize("line", ["value=nan", "value=inf", "ret=3", "ret=999"])
def test_profiling_counter_without_a_value_is_absent(node: Node, line: str) -> None:
    """NaN, infinity and a code of one counter leave that one out; its neighbour stays."""
    node.connect(f"gpu0.gpm.20.{line}")
    device = node.device()
    node.read(device, Tier.FAST)
    pcie = node.read(device, Tier.FAST)["pcie_throughput"]
    assert pcie.transmit_bytes_per_second is None
    assert pcie.receive_bytes_per_second > 0


def test_gpu_that_is_opened_again_keeps_its_samples(node: Node) -> None:
    """However often a GPU comes back, the driver holds two samples for it, and they are good."""
    node.connect()
    for _ in range(5):
        device = node.device()
        assert "pcie_throughput.transmit_bytes_per_second" not in flat(node.read(device, Tier.FAST))
        assert "pcie_throughput.transmit_bytes_per_second" in flat(node.read(device, Tier.FAST))
    assert node.calls().gpm_samples == 2


def test_old_driver_without_newer_calls_is_read_by_the_older_ones(
    clock: Clock, fake_library: Path
) -> None:
    """Symbols that a library lacks: memory by version 1, without a reserve; the rest as ever."""
    hidden = ["MemoryInfo_v2", "TemperatureV", "CurrentClocksEventReasons"]
    old = build(fake_library.parent, hide=[f"nvmlDeviceGet{name}" for name in hidden])
    with loaded(fake_library, clock) as node:
        node.connect()
        new = flat(node.read(node.device()))
    with loaded(old, clock) as node:
        node.connect()
        readings = node.read(node.device())
        assert readings["memory"].reserved_bytes is None
        assert readings["memory"].used_bytes == (
            new["memory.used_bytes"] + new["memory.reserved_bytes"]
        )
        memory = {name for name in new if name.startswith("memory.")}
        old_rest = {name: v for name, v in flat(readings).items() if name not in memory}
        assert old_rest == {name: v for name, v in new.items() if name not in memory}


def test_performance_state_is_a_slow_reading(node: Node) -> None:
    """The fast tier's calls are spent; clocks and their reasons tell each second."""
    node.connect("gpu0.pstate=2")
    readings = node.read(node.device(), Tier.SLOW)
    assert readings["slow_clocks"].performance_state == 2
