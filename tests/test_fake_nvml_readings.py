"""What the fake library answers: machines, drivers, readings, fields, counters."""

from collections.abc import Iterator
from typing import Any

import pytest
from fake_nvml import FakeNvml
from nvml_child import ask, library

NOT_SUPPORTED = 3

# Codes of calls that tell the machines apart: 0 answers, 3 is not supported.
PROBE = """
    calls = {
        "serial": N.nvmlDeviceGetSerial,
        "memory": N.nvmlDeviceGetMemoryInfo,
        "utilization": N.nvmlDeviceGetUtilizationRates,
        "power": N.nvmlDeviceGetPowerUsage,
        "limit": N.nvmlDeviceGetEnforcedPowerLimit,
        "fans": N.nvmlDeviceGetNumFans,
        "ecc": N.nvmlDeviceGetEccMode,
        "rows": N.nvmlDeviceGetRemappedRows,
        "pages": lambda h: N.nvmlDeviceGetRetiredPages(h, 0),
        "mig": N.nvmlDeviceGetMigMode,
        "link": lambda h: N.nvmlDeviceGetNvLinkState(h, 0),
        "link_errors": lambda h: N.nvmlDeviceGetNvLinkErrorCounter(h, 0, 0),
    }
    fields = {"memory_temp": 82, "tlimit": 193, "energy": 83, "link5_errors": 206}
    h = gpu(0)
    answer = {name: rc(call, h) for name, call in calls.items()}
    answer |= {name: field(h, number)[0] for name, number in fields.items()}
    answer["gpm"] = 0 if N.nvmlGpmQueryDeviceSupport(h).isSupportedDevice else 3
    answer["temp"] = rc(N.nvmlDeviceGetTemperatureV, h, 0)
"""
LACKS = {
    "h100x8": "fans pages link5_errors",
    "b200x8": "fans pages link_errors",
    "a100-mig": "fans pages tlimit gpm link link_errors link5_errors rows utilization",
    "h100-mig": "fans pages link link_errors link5_errors rows utilization",
    "l40s": "fans pages mig link link_errors link5_errors memory_temp gpm",
    "t4": "fans rows mig link link_errors link5_errors memory_temp tlimit gpm",
    "geforce": "serial ecc rows pages mig link link_errors link5_errors memory_temp gpm",
    "gb10": "serial memory limit fans ecc rows pages mig link link_errors memory_temp tlimit "
    "energy link5_errors gpm",
    "vgpu": "serial power limit fans ecc rows pages mig link link_errors memory_temp tlimit "
    "energy link5_errors gpm temp",
}


@pytest.fixture
def fake(pytestconfig: pytest.Config) -> Iterator[FakeNvml]:
    """A fake node of eight H100."""
    with FakeNvml(library(pytestconfig)) as it:
        yield it


@pytest.mark.parametrize("profile", LACKS)
def test_a_profile_lacks_what_the_board_lacks(fake: FakeNvml, profile: str) -> None:
    """Each machine answers NOT_SUPPORTED for its own set of readings, and all others answer."""
    fake.set(profile=profile)
    codes = ask(fake, PROBE)
    assert {name for name, code in codes.items() if code} == set(LACKS[profile].split())
    assert set(codes.values()) <= {0, NOT_SUPPORTED}


def test_a_machine_without_gpus_answers(fake: FakeNvml) -> None:
    """Init works and the count is 0."""
    fake.set(profile="none")
    assert ask(fake, "answer = N.nvmlDeviceGetCount(), rc(gpu, 0)") == [0, 2]


def test_identity_is_stable_and_found_again(fake: FakeNvml) -> None:
    """UUIDs differ by GPU, are the same in every run, and lead back to the same handle."""
    code = """
        h = [gpu(i) for i in range(8)]
        uuids = [N.nvmlDeviceGetUUID(each) for each in h]
        buses = [N.nvmlDeviceGetPciInfo(each).busId for each in h]
        back = [N.nvmlDeviceGetIndex(N.nvmlDeviceGetHandleByUUID(uuid)) for uuid in uuids]
        back += [N.nvmlDeviceGetIndex(N.nvmlDeviceGetHandleByPciBusId(bus)) for bus in buses]
        back.append(N.nvmlDeviceGetIndex(N.nvmlDeviceGetHandleByPciBusId("0000:43:00.0")))
        answer = uuids, buses[0], back, N.nvmlDeviceGetName(h[0])
    """
    uuids, bus, back, name = ask(fake, code)
    assert len(set(uuids)) == 8
    assert all(uuid.startswith("GPU-") and len(uuid) == 40 for uuid in uuids)
    assert (bus, name) == ("00000000:1B:00.0", "NVIDIA H100 80GB HBM3")
    assert back == [*range(8), *range(8), 1]
    assert ask(fake, code)[0] == uuids


def test_memory_adds_up_and_follows_its_keys(fake: FakeNvml) -> None:
    """Version 2 splits total into reserved, used and free; version 1 counts reserved as used."""
    fake.set({"gpu0.memory_used": 70 << 30, "gpu1.memory_total": 0})
    code = """
        answer = []
        for i in range(3):
            v1 = N.nvmlDeviceGetMemoryInfo(gpu(i))
            v2 = N.nvmlDeviceGetMemoryInfo(gpu(i), N.nvmlMemory_v2)
            assert v2.total == v2.used + v2.free + v2.reserved and v1.total == v1.used + v1.free
            answer.append([v2.total, v2.used, v2.reserved])
    """
    first, second, _ = ask(fake, code)
    assert first == [81559 << 20, 70 << 30, 479 << 20]
    assert second == [0, 0, 0]


@pytest.mark.parametrize(
    ("driver", "throttle", "symbol_code"),
    [
        ("550.54.15", [], 13),
        ("570.124.06", [], 0),
        ("580.65.06", [251, 252, 253], 0),
        ("580.95.05", [269, 270, 271], 0),
        ("610.57.04", [269, 270, 271], 0),
    ],
)
def test_the_driver_decides_ids_and_symbols(
    fake: FakeNvml, driver: str, throttle: list[int], symbol_code: int
) -> None:
    """The three newer throttle counters move with the driver; a younger symbol is not there."""
    fake.set(driver=driver)
    code = """
        h = gpu(0)
        ids = [i for i in (251, 252, 253, 269, 270, 271) if field(h, i)[0] == 0]
        answer = N.nvmlSystemGetDriverVersion(), ids, rc(N.nvmlDeviceGetTemperatureV, h, 0)
    """
    assert ask(fake, code) == [driver, throttle, symbol_code]


def test_a_field_that_failed_holds_garbage(fake: FakeNvml) -> None:
    """The batch succeeds, each field has its own code and type, and those are for a test to set."""
    fake.set({"gpu0.field.83.ret": 999, "gpu0.field.82.type": 3, "gpu0.field.82.value": 61})
    fake.set({"gpu0.field.165.4.ret": 3, "gpu*.field.186.value": 5, "gpu0.temp": 50})
    code = """
        h = gpu(0)
        answer = [field(h, 83), field(h, 999), field(h, 82), field(gpu(1), 82)[1],
                  [field(h, 165, link)[0] for link in (3, 4)], number(h, 186), field(h, 193)]
    """
    energy, unknown, memory_temp, normal_type, links, instant, tlimit = ask(fake, code)
    assert energy[0] == 999
    assert unknown[0] == 3
    assert energy[2] == unknown[2] == 0xDEADBEEFDEADBEEF
    assert memory_temp == [0, 3, 61]
    assert normal_type == 1
    assert links == [0, 3]
    assert instant == 5
    assert tlimit[:2] == [0, 5]
    assert tlimit[2] & 0xFFFFFFFF == 0xFFFFFFFB  # -5, in the lower half


def test_counters_are_the_integral_of_their_rate(fake: FakeNvml) -> None:
    """Energy is the sum of power over time, throttle time that of the bit, across a change too."""
    code = """
        h = gpu(2)
        def integrate(start, stop, steps=2000):
            joules = seconds = 0
            for i in range(steps):
                put(f"time={start + (i + 0.5) * (stop - start) / steps}")
                joules += N.nvmlDeviceGetPowerUsage(h) * (stop - start) / steps
                capped = N.nvmlDeviceGetCurrentClocksEventReasons(h) & 4
                seconds += (stop - start) / steps if capped else 0
            return joules, seconds
        def at(t):
            put(f"time={t}")
            return number(h, 83), number(h, 74) / 1e9, number(h, 269) / 1e9
        before = at(5)
        after = at(90)
        expected = integrate(5, 90)
        answer = [after[0] - before[0], expected[0], after[1] - before[1], expected[1]]
        before = at(90)
        put("gpu2.power_mw=500000", "gpu2.reasons=0x20")
        after = at(100)
        answer += [after[0] - before[0], after[2] - before[2], after[1] - before[1]]
    """
    energy, joules, capped, seconds, constant, thermal, none = ask(fake, code)
    assert energy == pytest.approx(joules, rel=1e-3)
    assert capped == pytest.approx(seconds, abs=0.1)
    assert capped > 10
    assert (constant, thermal, none) == (pytest.approx(5_000_000, abs=2), pytest.approx(10), 0)


def test_links_add_up_and_32_bit_counters_wrap(fake: FakeNvml) -> None:
    """The aggregate is the sum over links, an inactive link stands still, 197 wraps at 2^32."""
    code = """
        h, every = gpu(0), 0xFFFFFFFF
        def links(t):
            put(f"time={t}")
            return [number(h, 138, link) for link in range(18)], number(h, 138, every)
        first, total = links(10)
        assert total == sum(first)
        put("gpu0.pcie_tx_bytes_per_second=3000000000", "gpu0.links_inactive=2")
        wrapped = number(h, 197)
        codes = [field(h, 138, 1)[0], field(h, 165, 1)[2] & 1, field(h, 138, 40)[0]]
        put("time=12")
        second = number(h, 197)
        total_later = number(h, 138, every)
        others = sum(number(h, 138, link) for link in range(18) if link != 1)
        put("gpu0.reset_counters=1")
        answer = [codes, (second - wrapped) % 2**32, total_later - others == first[1],
                  number(h, 197), number(h, 83)]
    """
    codes, moved, frozen_link, pcie, energy = ask(fake, code)
    assert codes == [3, 0, 2]
    assert moved == 6_000_000_000 % 2**32
    assert frozen_link
    assert (pcie, energy) == (0, 0)


def test_a_smooth_load_moves_everything(fake: FakeNvml) -> None:
    """Readings differ by GPU and by time, stay plausible, and util=97 moves power with it."""
    code = """
        def look(handle):
            return [N.nvmlDeviceGetUtilizationRates(handle).gpu, N.nvmlDeviceGetPowerUsage(handle),
                    N.nvmlDeviceGetTemperatureV(handle, 0), N.nvmlDeviceGetClockInfo(handle, 1)]
        answer = []
        for t in range(0, 60, 5):
            put(f"time={t}")
            answer.append([look(gpu(i)) for i in range(8)])
        put("gpu0.util=97")
        answer.append(look(gpu(0)))
    """
    *rows, high = ask(fake, code)
    utils = [util for row in rows for util, _, _, _ in row]
    assert min(utils) >= 10
    assert max(utils) <= 95
    assert len(set(utils)) > 30
    assert all(70_000 < power <= 700_000 for row in rows for _, power, _, _ in row)
    assert all(25 < temp < 90 and 300 < clock <= 1980 for row in rows for _, _, temp, clock in row)
    assert high[0] == 97
    assert 630_000 < high[1] <= 665_000


def test_health_follows_its_keys(fake: FakeNvml) -> None:
    """ECC, rows, recovery action, fabric, limits: what a scenario sets is what is answered."""
    keys: dict[str, Any] = {
        "gpu0.ecc_corrected_volatile": 7,
        "gpu0.ecc_uncorrected_aggregate": 2,
        "gpu0.remapped_uncorrectable": 1,
        "gpu0.remapped_pending": 1,
        "gpu0.recovery_action": 2,
        "gpu0.fabric_health": 2,
        "gpu1.ecc_mode": 0,
    }
    fake.set(keys)
    code = """
        h = gpu(0)
        info = N.c_nvmlGpuFabricInfo_v3_t()
        info.version = N.nvmlGpuFabricInfo_v3
        N.nvmlDeviceGetGpuFabricInfoV(h, ctypes.byref(info))
        answer = [[number(h, i) for i in (3, 4, 5, 6, 143, 144, 230)],
                  [N.nvmlDeviceGetTotalEccErrors(h, 0, 0), N.nvmlDeviceGetRemappedRows(h)],
                  [info.state & 0xFF, info.healthSummary],
                  [rc(N.nvmlDeviceGetTotalEccErrors, gpu(1), 0, 0), field(gpu(1), 3)[0]],
                  rc(N.nvmlDeviceGetMemoryErrorCounter, h, 0, 0, 0)]
    """
    fields, calls, fabric, off, l1_cache = ask(fake, code)
    assert fields == [7, 0, 7, 2, 1, 1, 2]
    assert calls == [7, [0, 1, 1, 0]]
    assert fabric == [3, 2]
    assert off == [3, 3]
    assert l1_cache == NOT_SUPPORTED
