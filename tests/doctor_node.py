"""A node for the doctor: simulated GPUs, and a host that is a folder of files."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from scripted import Clock

from exporter.doctor import machine
from exporter.doctor.checks import examine
from exporter.doctor.command import Local, gather
from exporter.doctor.facts import Facts, Machine, Space, Xids
from exporter.doctor.finding import Finding
from exporter.poll import Sources
from exporter.sampling import Fault
from exporter.simulate import PROFILES, Planted, SimulatedDriver
from exporter.snapshot import Build

VERSION = "580.95.05"
RAM_KIB = 1600 << 20  # more than twice what eight H100s have
BUSES = tuple(bus[4:].lower() for bus in PROFILES["h100x8"].bus_ids)

MEMINFO = f"MemTotal: {RAM_KIB} kB\nMemAvailable: {RAM_KIB // 2} kB\n"
VMSTAT = "pswpin 0\npswpout 0\noom_kill 0\n"
CALM = "some avg10=0.30 avg60=0.20 avg300=0.10 total=1234\nfull avg10=0.00 avg60=0.00 total=1\n"
FILES = {
    "proc/meminfo": MEMINFO + "SwapTotal: 0 kB\nSwapFree: 0 kB\n",
    "proc/vmstat": VMSTAT,
    "proc/pressure/cpu": CALM,
    "proc/pressure/memory": CALM,
    "proc/pressure/io": CALM,
    "proc/sys/kernel/osrelease": "6.8.0-60-generic\n",
    "proc/sys/kernel/numa_balancing": "0\n",
    "proc/sys/vm/swappiness": "60\n",
    "proc/sys/vm/overcommit_memory": "0\n",
    "proc/sys/vm/zone_reclaim_mode": "0\n",
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  "
    f"{VERSION}  Release Build  (dvs-builder@U22-I3-AE18-23-3)\n",
    "sys/module/nvidia/version": f"{VERSION}\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "acpi-cpufreq\n",
    "dev/nvidiactl": "",
    "dev/nvidia-uvm": "",
    f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{VERSION}": "",
    "usr/lib/x86_64-linux-gnu/libcuda.so.1": "",
    **{f"dev/nvidia{gpu}": "" for gpu in range(8)},
    **{
        f"sys/devices/system/node/node{node}/{name}": text
        for node in range(2)
        for name, text in (
            ("cpulist", "0-63\n"),
            ("meminfo", f"Node {node} MemTotal:  {RAM_KIB // 2} kB\n"),
        )
    },
    **{
        f"sys/bus/pci/devices/{bus}/{name}": text
        for gpu, bus in enumerate(BUSES)
        for name, text in (
            ("vendor", "0x10de\n"),
            ("class", "0x030200\n"),
            ("numa_node", f"{gpu // 4}\n"),
            ("max_link_width", "16\n"),
        )
    },
}


NO_XIDS = Xids({}, is_seen=True)
ROOMY = Space("/roomy", 1 << 43, 1 << 42)


def build(root: Path) -> Path:
    """Write the files of a host with which nothing is wrong."""
    for name, text in FILES.items():
        write(root, name, text)
    drivers = root / "sys/bus/pci/drivers"
    for name in ("nvidia", "nouveau", "vfio-pci"):
        (drivers / name).mkdir(parents=True)
    for bus in BUSES:
        (root / "sys/bus/pci/devices" / bus / "driver").symlink_to(drivers / "nvidia")
    (root / "dev/shm").mkdir()
    return root


def write(root: Path, name: str, text: str) -> None:
    """Write one of its files."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


class Gpus:
    """The simulated GPUs of a profile; to make them anew for each test would take most of it."""

    def __init__(self, profile: str) -> None:
        """Take the profile; nothing is planted yet."""
        self.planted: dict[int, Planted] = {}
        self.faults: dict[int, Fault] = {}
        self._clock = Clock()
        self._driver = SimulatedDriver(
            profile, self._clock, faults=self.faults, planted=self.planted
        )

    def sleep(self, seconds: float) -> None:
        """Let the scenario's time pass."""
        self._clock.seconds += seconds

    def sources(self) -> Sources:
        """Return where the doctor reads; the scenario is at its beginning."""
        self._clock.seconds = Clock().seconds
        program = Build("1.2.3", "3.11", simulated=True)
        processes = self._driver.processes(0.0)
        return Sources(self._driver, program, lambda: None, self._clock, processes)


_gpus = functools.cache(Gpus)


@dataclasses.dataclass(frozen=True)
class Node:
    """What is planted in a node.

    Attributes:
        profile: Of the GPUs.
        planted: What GPUs answer instead of their boards.
        faults: What befalls GPUs.
        edit: Changes the files of the host.
        xids: Errors since boot.
        access: os.access(2) of device files.
    """

    profile: str = "h100x8"
    planted: Mapping[int, Planted] = dataclasses.field(default_factory=dict)
    faults: Mapping[int, Fault] = dataclasses.field(default_factory=dict)
    edit: Callable[[Path], object] = lambda _root: None
    xids: Xids = NO_XIDS
    access: machine.Access = os.access

    def facts(self, root: Path) -> Facts:
        """Build the host in `root`, and read all of it; no time passes."""
        build(root)
        self.edit(root)
        gpus = _gpus(self.profile)
        gpus.planted.clear()
        gpus.planted.update(self.planted)
        gpus.faults.clear()
        gpus.faults.update(self.faults)

        def host() -> Machine:
            seen = machine.read(root / "models", None, root, self.access)
            return dataclasses.replace(seen, shm=ROOMY, models=ROOMY)  # whatever this disk has

        return gather(gpus.sources(), Local(host, lambda: self.xids), sleep=gpus.sleep)

    def findings(self, root: Path) -> tuple[Finding, ...]:
        """Return what the doctor finds."""
        return examine(self.facts(root))


def assert_reads_well(report: str) -> None:
    """Check that a report fits 80 columns, without colours, steps in order, verdict last."""
    lines = report.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\033" not in report
    assert [line[0] for line in lines if re.match("[1-5]  [A-Z]", line)] == list("12345")
    assert "fit for inference" in lines[-1].lower()
