"""What each answer of the driver comes to: absent, failed, gone; never a wrong number."""

from __future__ import annotations

import ctypes

import pynvml
import pytest
from nvml_loaded import PLAN, Node, flat

from exporter.board import take
from exporter.gpu import profiling
from exporter.nvml import NvmlDriver
from exporter.sampling import DriverAbsentError, Fault, FoundGpu, Tier

CODES = [*range(31), 999, 777]
# What follows from them, by nvml.h and by what drivers do with them; all others: failed, this tick.
ABSENT = {2, 3, 4, 6, 13, 22, 25, 26}
GONE = {15: Fault.LOST, 16: Fault.RESET_REQUIRED, 28: Fault.LOST}
DRIVER_GONE = {1, 9, 12, 18}
WORDS = {10: "timeout", 15: "gpu_is_lost", 999: "unknown", 777: "code_777"}
SAMPLES = "nvmlDeviceGetSamples"  # which fail quietly: the rates stand in
MEMORY_V2 = "nvmlDeviceGetMemoryInfo_v2"
OPENING = {"nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetUUID"}
CONNECTING = [
    "nvmlSystemGetDriverVersion",
    "nvmlSystemGetNVMLVersion",
    "nvmlDeviceGetCount_v2",
]
U32 = 0xFFFFFFFF


def readings_of(node: Node) -> tuple[dict[str, object], set[str]]:
    """Return what a GPU tells when all is well, and which functions were called for that."""
    device = node.device()
    node.read(device)
    readings = flat(node.read(device))
    calls = node.calls()
    symbols = {*calls.by_gpu[0], *(name for name in calls.by_symbol if "Gpm" in name)} - OPENING
    assert len(symbols) > 25
    return readings, symbols


@pytest.mark.parametrize(
    ("profile", "code"),
    [
        *(("h100x8", code) for code in CODES),
        *(("geforce", code) for code in (0, 2, 3, 15, 18, 999)),
    ],
)
def test_every_code_on_every_call(node: Node, profile: str, code: int) -> None:
    """Refused: only that is absent; gone: the fault; else an error of the groups that need it.

    What else is read is exactly what it was; no exception but the seam's own comes out.
    """
    node.connect(f"profile={profile}")
    expected, symbols = readings_of(node)
    for symbol in sorted(symbols):
        node.driver = NvmlDriver()  # one that has no samples yet
        node.connect()
        node.put(f"call.{symbol}.ret={code}")
        device = node.device()
        node.take(device)
        outcome = node.take(device)
        readings = flat(outcome.readings)
        node.put(f"call.{symbol}.ret=0")
        if code in GONE:
            assert outcome.fault is GONE[code], symbol
        elif code in DRIVER_GONE:
            assert outcome.driver_gone, symbol
        else:
            assert (outcome.fault, outcome.driver_gone) == (None, ""), symbol
        failing = code not in {0, *ABSENT, *GONE, *DRIVER_GONE} and symbol != SAMPLES
        assert bool(outcome.errors) == failing, symbol
        if failing:
            (word,) = set(outcome.errors.values())
            assert word == WORDS.get(code, word), symbol
            assert not word.startswith("unexpected"), symbol
            assert {outcome.readings[group] for group in outcome.errors} == {None}, symbol
        whole = [group for group, reading in outcome.readings.items() if reading is not None]
        wanted = {n: v for n, v in expected.items() if n.split(".")[0] in whole}
        if code in ABSENT:
            _assert_refused(symbol, readings, wanted)
        else:
            assert readings == wanted, symbol


def _assert_refused(symbol: str, readings: dict[str, object], expected: dict[str, object]) -> None:
    if symbol == MEMORY_V2:  # version 1 stands in, which counts the reserve as used
        used = [name for name in expected if name.startswith("memory.")]
        assert "memory.reserved_bytes" not in readings
        assert readings["memory.total_bytes"] == expected["memory.total_bytes"]
        readings = {name: value for name, value in readings.items() if name not in used}
        expected = {name: value for name, value in expected.items() if name not in used}
    if symbol == "nvmlGpmQueryDeviceSupport":  # sampling stands in
        readings = {n: v for n, v in readings.items() if not n.startswith("pcie_sampled.")}
    assert readings.items() <= expected.items(), symbol


@pytest.mark.parametrize("code", CODES)
def test_every_code_on_every_field_and_profiling_counter(node: Node, code: int) -> None:
    """The code of one field in the batch is that field's own; its word for no value stays out."""
    node.connect()
    expected, _ = readings_of(node)
    for field in sorted(node.calls().fields[0]):
        node.put(f"gpu0.field.{field}.ret={code}")
        outcome = node.take(node.device())
        readings = flat(outcome.readings)
        node.put(f"gpu0.field.{field}.ret=0")
        assert bool(outcome.driver_gone) == (code in DRIVER_GONE), field
        assert outcome.driver_gone or outcome.fault is GONE.get(code), field
        failing = code not in {0, *ABSENT, *GONE, *DRIVER_GONE}
        if not failing:
            assert outcome.errors == {}, field
        assert {outcome.readings[group] for group in outcome.errors} <= {None}, field
        assert readings.items() <= expected.items(), field
    for metric in (*profiling.ALL, 20, 21):
        node.put(f"gpu0.gpm.{metric}.ret={code}")
        device = node.device()
        node.read(device)
        assert flat(node.read(device)).items() <= expected.items()
        node.put(f"gpu0.gpm.{metric}.ret=0")


@pytest.mark.parametrize("code", CODES)
def test_every_code_on_opening(node: Node, code: int) -> None:
    """A GPU that cannot be opened says why; the driver's end is told from the GPU's own."""
    node.connect()
    for uuid, call in (("", "HandleByIndex_v2"), ("", "UUID"), ("GPU-1", "HandleByUUID")):
        node.put(f"call.nvmlDeviceGet{call}.ret={code}")
        outcome = take(node.driver, FoundGpu(0, uuid), None, PLAN, (Tier.FAST,), {})
        node.put(f"call.nvmlDeviceGet{call}.ret=0")
        if code == 0 and not uuid:
            assert (outcome.fault, outcome.uuid[:4], outcome.errors) == (None, "GPU-", {})
        elif code in DRIVER_GONE:
            assert outcome.driver_gone, call
        elif code in GONE:
            assert outcome.fault is GONE[code], call
        elif call != "UUID" or code not in ABSENT:
            fault = {4: Fault.NO_PERMISSION, 6: Fault.LOST, 0: Fault.LOST}.get(code, Fault.ERROR)
            assert outcome.fault is fault, call
        assert outcome.fault is None or outcome.readings == {}, call


@pytest.mark.parametrize("code", [*CODES[1:12], *CODES[13:]])  # 12 is pynvml's: no library
def test_every_code_on_looking_for_the_driver(node: Node, code: int) -> None:
    """Without a version or a count there is no driver yet, and one line says why."""
    for symbol in CONNECTING:
        node.put(f"call.{symbol}.ret={code}")
        with pytest.raises(DriverAbsentError) as raised:
            node.driver.connect()
        assert str(raised.value).count("\n") == 0
        assert WORDS.get(code, "; ") in str(raised.value)
        node.put(f"call.{symbol}.ret=0")
    node.put(f"call.nvmlSystemGetCudaDriverVersion.ret={code}")
    info, gpus = node.driver.connect()
    assert (info.cuda_version, len(gpus)) == ("", 8)


@pytest.mark.parametrize("code", CODES[1:])
def test_every_code_on_everything(node: Node, code: int) -> None:
    """A GPU that answered and now gives one code to all it is asked has no reading, and a fault.

    Refusals alone are none: a board may lack whatever it lacks.
    """
    node.connect()
    device = node.device()
    node.read(device)
    node.put(f"gpu0.ret={code}")
    outcome = node.take(device, Tier.FAST)
    if code in DRIVER_GONE:
        assert outcome.driver_gone == WORDS.get(code, outcome.driver_gone)
    elif code in ABSENT - {2, 4}:
        assert outcome.fault is None
    else:
        fault = {4: Fault.NO_PERMISSION, 2: Fault.LOST, **GONE}.get(code, Fault.ERROR)
        assert outcome.fault is fault
    assert flat(outcome.readings) == {}


def test_handle_that_died_is_a_lost_gpu_and_a_new_one_is_good(node: Node) -> None:
    """After a reset the old handle is an invalid argument: told from a reading that is refused."""
    node.connect("gpu0.power_mw=300000")
    device = node.device()
    node.read(device)
    node.put("gpu0.reset=1")
    assert node.take(device, Tier.FAST).fault is Fault.LOST
    device = node.device()
    node.read(device)
    readings = flat(node.read(device))
    assert readings["power.draw_watts"] == 300.0
    assert "pcie_throughput.transmit_bytes_per_second" in readings


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        *((f"util={percent}", "utilization.gpu_ratio") for percent in (101, 255, U32)),
        *((f"memory_util={percent}", "utilization.memory_ratio") for percent in (101, 200)),
        *((f"encoder={percent}", "engines.ratios.encoder") for percent in (101, U32)),
        ("power_mw=0xFFFFFFFF", "power.draw_watts"),
        (
            "power_limit_mw=0xFFFFFFFF",
            "power_limits.watts.enforced power_limits.watts.current power_limits.watts.requested",
        ),
        ("clock_sm=0xFFFFFFFF", "clocks.hertz.sm"),
        ("clock_video=0xFFFFFFFF", "slow_clocks.hertz.video"),
        ("pstate=32", "slow_clocks.performance_state"),
        ("reasons=0xFFFFFFFFFFFFFFFF", "clocks.active"),
        ("temp=255", "temperature.core_celsius temperature_margin"),
        ("memory_temp=0", "temperature.memory_celsius"),
        ("memory_temp=0xFFFFFFFF", "temperature.memory_celsius"),
        ("memory_total=0", "memory"),
        ("pcie_gen=0xFFFFFFFF", "pcie_link.generation.current"),
        ("pcie_width=0", "pcie_link.width_lanes.current"),
        ("pcie_replays=0xFFFFFFFF", "pcie_link.replays"),
        ("bar1_used=0xFFFFFFFFFFFF", "bar1"),
        ("field.83.value=0xFFFFFFFFFFFFFFFF", "power.energy_joules"),
        ("field.74.value=0xFFFFFFFFFFFFFFFF", "clocks.seconds.sw_power_cap"),
        ("field.138.value=0xFFFFFFFFFFFFFFFF", "nvlink.transmit_bytes nvlinks.transmit_bytes"),
        ("field.82.type=7", "temperature.memory_celsius"),
    ],
)
def test_word_for_no_value_gives_no_series(node: Node, line: str, lost: str) -> None:
    """What NVML answers where it has nothing to say never passes for a reading; the rest stays."""
    node.connect("gpu0.util=50", "gpu0.temp=50", "gpu0.memory_temp=60", "gpu0.reasons=0")
    expected = flat(node.read(node.device()))
    node.put(f"gpu0.{line}")
    readings = flat(node.read(node.device()))
    gone = {name for name in expected if name.startswith(tuple(lost.split()))}
    assert gone
    assert set(expected) - set(readings) == gone
    assert set(readings) <= set(expected)
    if not line.startswith(("util", "power_mw", "temp")):  # these move others with them
        assert readings == {n: v for n, v in expected.items() if n not in gone}


def test_more_memory_used_than_there_is_gives_no_series(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that answers with used above total is not believed, in either version."""

    def absurd(_handle: object, version: int | None = None) -> ctypes.Structure:
        info = pynvml.c_nvmlMemory_v2_t() if version else pynvml.c_nvmlMemory_t()
        info.total, info.used = 100, 101
        return info  # type: ignore[no-any-return]  # pynvml has no types

    node.connect()
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", absurd)
    assert not [name for name in flat(node.read(node.device())) if name.startswith("memory.")]
