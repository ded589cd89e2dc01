"""The host's groups, on a recorded /proc and /sys, on broken ones, and on this machine's own."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from exporter.host import GROUPS, Group, cpu, disk, memory, pressure, swap, thermal
from exporter.host_poll import HostPoll
from exporter.ledger import Ledger
from exporter.metric import Kind, Metric, MetricVec, Row
from exporter.sampling import Tier

KIB = 1024
FIXTURE = Path(__file__).parent / "fixtures" / "host"
PROC, SYS = FIXTURE / "proc", FIXTURE / "sys"
# Reading it fails with EIO, for root too.
UNREADABLE = Path("/proc/self/mem")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let psutil read the recorded /proc."""
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(PROC))


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the recorded /proc that may be broken; psutil reads it too."""
    copy = shutil.copytree(PROC, tmp_path / "proc")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(copy))
    return copy


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    """Return a copy of the recorded /sys that may be broken."""
    return shutil.copytree(SYS, tmp_path / "sys")


def shown(rows: tuple[Row[Any], ...], reading: object) -> dict[str, Any]:
    """Return what the rows show of a reading, by metric name."""
    return {
        row.name: row.value(reading) if isinstance(row, Metric) else dict(row.values(reading))
        for row in rows
    }


def edit(path: Path, old: str, new: str) -> None:
    """Replace text that must be there."""
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


def test_memory() -> None:
    """Sizes are bytes, cached holds reclaimable slab, and used is what is not available."""
    assert shown(memory.METRICS, memory.read(PROC)) == {
        "host_memory_total_bytes": 2113469440 * KIB,
        "host_memory_available_bytes": 1690775552 * KIB,
        "host_memory_used_bytes": (2113469440 - 1690775552) * KIB,
        "host_memory_free_bytes": 1204518912 * KIB,
        "host_memory_cached_bytes": (524288000 + 8388608) * KIB,
        "host_memory_used_ratio": pytest.approx(0.2, abs=1e-12),
    }


@pytest.mark.parametrize("line", ["Other: 1 kB", "MemTotal:              0 kB"])
def test_memory_without_total(proc: Path, line: str) -> None:
    """Without a total the group fails in the way the poller knows, and divides by nothing."""
    edit(proc / "meminfo", "MemTotal:       2113469440 kB", line)
    with pytest.raises(ValueError, match="MemTotal"):
        memory.read(proc)


def test_swap() -> None:
    """Sizes are bytes, and traffic is counted in pages."""
    assert shown(swap.METRICS, swap.read(PROC, page_bytes=4096)) == {
        "host_swap_total_bytes": 8388604 * KIB,
        "host_swap_used_bytes": 8192 * KIB,
        "host_swap_free_bytes": 8380412 * KIB,
        "host_swap_in_bytes_total": 1024 * 4096,
        "host_swap_out_bytes_total": 2560 * 4096,
    }


def test_swap_traffic_follows_the_page_size() -> None:
    """On a kernel with pages of 64 KiB the same count is sixteen times the bytes."""
    reading = swap.read(PROC, page_bytes=65536)
    assert (reading.in_bytes, reading.out_bytes) == (1024 * 65536, 2560 * 65536)


def test_no_swap_configured(proc: Path) -> None:
    """A node without swap has 0 bytes of it: a true zero, not an absent series."""
    edit(proc / "meminfo", "SwapTotal:       8388604 kB", "SwapTotal:             0 kB")
    edit(proc / "meminfo", "SwapFree:        8380412 kB", "SwapFree:              0 kB")
    reading = swap.read(proc)
    assert (reading.total_bytes, reading.used_bytes, reading.free_bytes) == (0, 0, 0)


def test_swap_counters_that_the_kernel_lacks(proc: Path) -> None:
    """A counter that is not kept is absent, never 0; the sizes stay."""
    edit(proc / "vmstat", "pswpin 1024\n", "")
    reading = swap.read(proc, page_bytes=4096)
    assert (reading.in_bytes, reading.out_bytes) == (None, 2560 * 4096)
    (proc / "vmstat").unlink()
    reading = swap.read(proc)
    assert (reading.in_bytes, reading.out_bytes) == (None, None)
    assert reading.total_bytes == 8388604 * KIB


def test_key_is_the_whole_word(proc: Path) -> None:
    """A line whose key only ends like the one that is looked for is another's."""
    edit(proc / "vmstat", "pswpin 1024", "thp_pswpin 7\npswpin 1024")
    assert swap.read(proc, page_bytes=4096).in_bytes == 1024 * 4096


@pytest.mark.parametrize("line", ["", "SwapFree: many kB", "SwapFree:", "SwapFree: 8 MB"])
def test_swap_line_broken(proc: Path, line: str) -> None:
    """A missing or unreadable size fails the group and names the line."""
    edit(proc / "meminfo", "SwapFree:        8380412 kB", line)
    with pytest.raises(ValueError, match="SwapFree"):
        swap.read(proc)


def test_pressure() -> None:
    """Microseconds become seconds, and each resource keeps its two lines."""
    assert shown(pressure.METRICS, pressure.read(PROC)) == {
        "host_pressure_seconds_total": {
            ("cpu", "some"): 98765.4321,
            ("memory", "some"): 1.5,
            ("memory", "full"): 1.25,
            ("io", "some"): 7.654321,
            ("io", "full"): 7.000001,
        },
        "host_oom_kills_total": 3,
    }


def test_pressure_of_an_old_kernel(proc: Path) -> None:
    """Before Linux 5.13 the CPU has no full line, before 4.13 OOM kills are not counted."""
    edit(proc / "pressure" / "cpu", "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", "")
    edit(proc / "vmstat", "oom_kill 3\n", "")
    reading = pressure.read(proc)
    assert reading.cpu == pressure.Stall(98765.4321, None)
    assert reading.oom_kills is None
    assert reading.memory.full_seconds == 1.25


def test_no_pressure_in_this_kernel(proc: Path) -> None:
    """Without PSI all of it is absent, and OOM kills are still counted."""
    shutil.rmtree(proc / "pressure")
    nothing = pressure.Stall(None, None)
    assert pressure.read(proc) == pressure.Pressure(nothing, nothing, nothing, 3)


def test_pressure_that_cannot_be_read(proc: Path) -> None:
    """A file that answers with an error takes away its own resource only."""
    (proc / "pressure" / "io").unlink()
    (proc / "pressure" / "io").symlink_to(UNREADABLE)
    reading = pressure.read(proc)
    assert reading.io == pressure.Stall(None, None)
    assert reading.memory == pressure.Stall(1.5, 1.25)


@pytest.mark.parametrize("line", ["some avg10=0.00", "some total=-1", "some total="])
def test_pressure_broken(proc: Path, line: str) -> None:
    """A line in another format fails the group and names the file."""
    (proc / "pressure" / "memory").write_text(line + "\n")
    with pytest.raises(ValueError, match="pressure/memory"):
        pressure.read(proc)


def test_cpu_times_that_step_back() -> None:
    """A small step back of idle or iowait is held, a large one is a restart; others pass as is."""
    before = cpu.Cpu(10, 0, 0, 100.0, 50.0, 0, 0, 0, 0.1, 0.1, 0.1)
    after = replace(before, user_seconds=9, idle_seconds=99.5, iowait_seconds=49.0)
    assert cpu.following(before, after) == replace(before, user_seconds=9)
    restarted = replace(before, idle_seconds=20.0, iowait_seconds=51.0)
    assert cpu.following(before, restarted) == restarted


@pytest.mark.usefixtures("recorded")
def test_cpu_modes() -> None:
    """Clock ticks become seconds; guest time, part of user, is no mode of its own."""
    ticks = os.sysconf("SC_CLK_TCK")
    assert shown(cpu.METRICS, cpu.read())["host_cpu_seconds_total"] == {
        "user": 1234567 / ticks,
        "nice": 89 / ticks,
        "system": 345678 / ticks,
        "idle": 98765432 / ticks,
        "iowait": 4321 / ticks,
        "irq": 0.0,
        "softirq": 8765 / ticks,
        "steal": 12 / ticks,
    }


@pytest.mark.usefixtures("recorded")
def test_disks_are_whole_devices() -> None:
    """Sectors become bytes; partitions, loop, ram and zram devices are left out."""
    sectors = {
        "sda": (614400, 1228800),
        "cciss/c0d0": (512, 64),
        "nvme0c0n1": (8388608000, 4194304000),
        "nvme0n1": (0, 0),
        "md127": (16384000, 8192000),
        "dm-0": (610000, 1220000),
    }
    assert shown(disk.METRICS, disk.read(SYS)) == {
        "host_disk_read_bytes_total": {name: 512 * read for name, (read, _) in sectors.items()},
        "host_disk_written_bytes_total": {name: 512 * out for name, (_, out) in sectors.items()},
    }


def test_disk_that_vanishes(proc: Path, sys: Path) -> None:
    """A device that was pulled takes its series along, even if only one of the two files knows."""
    disk.read(sys)
    shutil.rmtree(sys / "block" / "sda")
    assert "sda" not in {device.name for device in disk.read(sys).devices}
    edit(proc / "diskstats", "md127", "md126")
    assert not {"md126", "md127"} & {device.name for device in disk.read(sys).devices}


def test_disk_that_comes_back(proc: Path) -> None:
    """A new device of the same name counts from its own 0: nothing is carried over."""
    disk.read(SYS)
    edit(proc / "diskstats", "dm-0 9000 0 610000 ", "dm-0 1 0 8 ")
    again = {device.name: device.read_bytes for device in disk.read(SYS).devices}
    assert again["dm-0"] == 8 * 512


def test_no_disks(proc: Path, tmp_path: Path) -> None:
    """A sandbox that shows no block devices has no series; its diskstats is not looked at."""
    (proc / "diskstats").write_text("none\n")
    assert disk.read(tmp_path) == disk.Disk(())


def test_thermal_zones() -> None:
    """Millidegrees become degrees; dummies (0, INT3400) and a zone without a reading are absent."""
    assert shown(thermal.METRICS, thermal.read(SYS)) == {
        "host_thermal_zone_celsius": {
            ("1", "x86_pkg_temp"): 61.0,
            ("2", "x86_pkg_temp"): 58.5,
            ("4", "pch_lewisburg"): -5.25,
        },
    }


@pytest.mark.parametrize("temp", ["0", "-50000", "200000", "-273150", "2147483647", "", "hot"])
def test_thermal_absurd(sys: Path, temp: str) -> None:
    """What no sensor measures is absent, and costs no other zone its reading."""
    (sys / "class" / "thermal" / "thermal_zone1" / "temp").write_text(temp + "\n")
    assert {zone.zone for zone in thermal.read(sys).zones} == {"2", "4"}


@pytest.mark.parametrize(
    ("temp", "celsius"), [("-49999", -49.999), ("199999", 199.999), ("1", 0.001)]
)
def test_thermal_extreme(sys: Path, temp: str, celsius: float) -> None:
    """The ends of the scale, and the smallest step beside 0, are readings."""
    (sys / "class" / "thermal" / "thermal_zone1" / "temp").write_text(temp + "\n")
    assert thermal.Zone("1", "x86_pkg_temp", celsius) in thermal.read(sys).zones


def test_thermal_zone_with_an_error(sys: Path) -> None:
    """A zone that answers with an error is absent; the others stay."""
    temp = sys / "class" / "thermal" / "thermal_zone2" / "temp"
    temp.unlink()
    temp.symlink_to(UNREADABLE)
    assert {zone.zone for zone in thermal.read(sys).zones} == {"1", "4"}


def test_no_thermal_zones(tmp_path: Path) -> None:
    """A machine without thermal zones has no series, and that is no error."""
    assert thermal.read(tmp_path) == thermal.Thermal(())


def test_proc_that_shows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its files a group fails as the poller expects, or is absent; nothing turns into 0."""
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    for read in (lambda: memory.read(tmp_path), cpu.read, lambda: swap.read(tmp_path)):
        with pytest.raises(OSError, match=str(tmp_path)):
            read()
    absent = shown(pressure.METRICS, pressure.read(tmp_path))
    assert absent.pop("host_oom_kills_total") is None
    assert set(absent["host_pressure_seconds_total"].values()) == {None}


def test_memory_and_swap_of_this_machine() -> None:
    """Without a fixture the node's own sizes are read."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    meminfo = {line.split(":")[0]: int(line.split()[1]) * KIB for line in lines}
    assert memory.read().total_bytes == meminfo["MemTotal"]
    assert swap.read().total_bytes == meminfo["SwapTotal"]


def test_cpu_of_this_machine() -> None:
    """Time and load are what /proc says before or after, or lie between the two."""

    def look() -> tuple[float, list[Any]]:
        user = int(Path("/proc/stat").read_text().split()[1]) / os.sysconf("SC_CLK_TCK")
        # Written with two digits.
        loads = [float(load) for load in Path("/proc/loadavg").read_text().split()[:3]]
        return user, [pytest.approx(load, abs=0.006) for load in loads]

    user_before, loads_before = look()
    reading = cpu.read()
    user_after, loads_after = look()
    assert user_before <= reading.user_seconds <= user_after
    load = shown(cpu.METRICS, reading)["host_load"]
    assert [load["1m"], load["5m"], load["15m"]] in (loads_before, loads_after)


def test_groups_of_this_machine() -> None:
    """Every group can be read here, and gives each row as many label values as it has labels."""
    groups: tuple[Group[Any], ...] = GROUPS
    for group in groups:
        reading = group.read()
        for row in group.metrics:
            if isinstance(row, MetricVec):
                keys = [(key,) if isinstance(key, str) else key for key in row.values(reading)]
                assert {len(key) for key in keys} <= {len(row.labels)}
    devices = {device.name.replace("/", "!") for device in disk.read().devices}
    assert devices <= {path.name for path in Path("/sys/block").iterdir()}


def test_tiers() -> None:
    """What may wait for firmware is read slowly, and now and then what is long on large nodes."""
    groups: tuple[Group[Any], ...] = GROUPS
    paces = {group.name: group.tier for group in groups if group.tier is not Tier.FAST}
    medium, slow = Tier.MEDIUM, Tier.SLOW
    assert paces == {"host_cpu": medium, "host_disk": medium, "host_thermal": slow}


def test_paces() -> None:
    """CPU is read every 5 s, thermal zones at the pace of the config; between, it stands as read.

    One that fails is absent until its next turn, not read as it was.
    """
    ticks: list[float] = []
    read_at: dict[str, list[float]] = {name: [] for name in ("memory", "cpu", "thermal")}

    def read(name: str) -> object:
        read_at[name].append(ticks[-1])
        if (name, ticks[-1]) == ("cpu", 105.0):
            raise OSError
        return name, ticks[-1]

    tiers = {"memory": Tier.FAST, "cpu": Tier.MEDIUM, "thermal": Tier.SLOW}
    groups = tuple(Group(f"host_{n}", tier, partial(read, n), ()) for n, tier in tiers.items())
    poll, ledger = HostPoll(groups, 30.0), Ledger()
    seen: list[dict[str, Any]] = []
    for second in range(101, 122):
        ticks.append(float(second))
        host = poll.read(ticks[-1], ledger)
        seen.append({name: getattr(host, name) for name in read_at})
    assert read_at == {"memory": ticks, "cpu": [101, 105, 110, 115, 120], "thermal": [101, 120]}
    assert [one["memory"] for one in seen] == [("memory", tick) for tick in ticks]
    assert [one["thermal"] for one in seen] == [("thermal", 101)] * 19 + [("thermal", 120)] * 2
    assert [one["cpu"] for one in seen] == [
        *[("cpu", 101)] * 4,
        *[None] * 5,
        *[("cpu", 110)] * 5,
        *[("cpu", 115)] * 5,
        *[("cpu", 120)] * 2,
    ]
    assert ledger.errors == {("host_cpu", "oserror"): 1}


def test_promised_names() -> None:
    """Names, labels and kinds are a promise to dashboards and alerts."""
    gauge, counter = Kind.GAUGE, Kind.COUNTER
    rows: list[Row[Any]] = [row for group in GROUPS for row in group.metrics]
    assert {
        row.name: (row.kind, row.labels if isinstance(row, MetricVec) else ()) for row in rows
    } == {
        **{
            f"host_memory_{level}_bytes": (gauge, ())
            for level in ("total", "available", "used", "free", "cached")
        },
        "host_memory_used_ratio": (gauge, ()),
        **{f"host_swap_{level}_bytes": (gauge, ()) for level in ("total", "used", "free")},
        **{f"host_swap_{way}_bytes_total": (counter, ()) for way in ("in", "out")},
        "host_pressure_seconds_total": (counter, ("resource", "kind")),
        "host_oom_kills_total": (counter, ()),
        "host_cpu_seconds_total": (counter, ("mode",)),
        "host_load": (gauge, ("window",)),
        **{f"host_disk_{way}_bytes_total": (counter, ("device",)) for way in ("read", "written")},
        "host_thermal_zone_celsius": (gauge, ("zone", "type")),
    }
