"""A node whose driver says anything at all: how it is made up, polled, and judged."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from nvml_liar import ANY, NODE, Liar, Lie, Who
from nvml_loaded import Node
from page_bounds import Sample, samples, wrong

from exporter.board import Plan
from exporter.catalogue import GPU_READERS
from exporter.crew import Job
from exporter.gpu.identity import READER as IDENTITY
from exporter.nvml import NvmlDriver
from exporter.poll import Poller, Sources
from exporter.procs import HostProcess
from exporter.returns import DRIVER_GONE
from exporter.sampling import DriverGoneError
from exporter.snapshot import Build, Reload, Snapshot

GROUPS = tuple(r for r in GPU_READERS if r is not IDENTITY)  # which is always read


def plan(left_out: int) -> Plan:
    """Return one without the groups whose bits are set; what is left is read at every tick.

    Each page then stands for its own answers.
    """
    wanted = {group for bit, group in enumerate(GROUPS) if not left_out >> bit & 1} | {IDENTITY}
    return Plan(
        readers=tuple(reader for reader in GPU_READERS if reader in wanted),
        fast_seconds=1.0,
        slow_seconds=1.0,
        blocking_seconds=1.0,
        deadline_seconds=60.0,
        mig_seconds=1.0,
    )


# By profile: what else is set, first how many GPUs; the small ones, which cost least, most often.
MACHINES = {
    "geforce": ("count=2",),
    "l40s": ("count=2",),
    "t4": ("count=1",),
    "gb10": ("count=1",),
    "vgpu": ("count=1",),
    "a100-mig": ("count=1", "gpu0.mig=0:1:1,2:3:2"),
    "h100-mig": ("count=1", "gpu0.mig=0:1:1,3:2:3"),
    "h100x8": ("count=1",),
    "b200x8": ("count=1",),
}
PROFILES = (*MACHINES, *("geforce", "t4", "gb10", "vgpu", "h100x8") * 2)
GPUS = 2
TENANTS = (
    "gpu*.process.4001=1073741824,c,40",
    "gpu*.process.4002=na,g",
    "gpu*.process.4003=5,m,3",
)

# 64 bits each: round numbers, words for "no value", and what a double cannot do without.
NUMBERS: tuple[int | None, ...] = (
    *(None,) * 8,
    *(0, 1, 2, 3, 16, 32, 77, 100, 101, 200, 255, 999, 5000, 1 << 31, (1 << 32) - 2, (1 << 32) - 1),
    *(1 << 32, 1 << 53, 1 << 63, (1 << 64) - 2, (1 << 64) - 1),
    *(
        int.from_bytes(struct.pack("<d", number), "little")
        for number in (math.nan, math.inf, -math.inf, -1.0, 0.5, 100.5, 102.5, 1e308, 5e-324)
    ),
)
CODES = tuple(code for code in (*range(1, 31), 777, 999, -1, 1 << 30) if code not in DRIVER_GONE)
TEXTS: tuple[bytes | None, ...] = (
    *(None,) * 4,
    *(b"", b" ", b"N/A", b"NaN", b"\xff\xfe", b'quo"te\\back\nline', b"\r", b"{}", b"x" * 999),
    *("\u2028é\x85".encode(), b"GPU-0", b"-1", b"\x1b[31m", b"# HELP x", b'a,b="c"} 1\n'),
)
MEMBER_CODES = ((0,), (0,), (0, 0, 3), (0, 999), (0, 15, 0, 0, 0, 0), (6, 0, 2), (4,), (777, 0))
MEMBER_TYPES: tuple[tuple[int | None, ...], ...] = (
    *((None,), (None, 0), (None, 5, 4), (6,), (7, None), (3,), (2, 1)),
)


def lie(chance: random.Random) -> Lie:
    """Make one up. One in sixty says that the driver is gone, which ends a node's life."""
    what = chance.randrange(120)
    code = 0 if what < 70 else chance.choice(CODES)
    if what >= 118:
        code = chance.choice(sorted(DRIVER_GONE))
    wild = chance.getrandbits(chance.choice((8, 32, 33, 64)))
    absurd = (*(chance.choice(NUMBERS) for _ in range(chance.randrange(3))), wild)
    return Lie(
        code,
        absurd[: chance.randrange(4)],
        chance.choice(TEXTS),
        chance.choice(MEMBER_CODES),
        chance.choice(MEMBER_TYPES),
    )


# Functions that a poll asks: of a GPU, some of them more often than the others; and of the node.
_BATCHES = "FieldValues FieldValues FieldValues FieldValues MemoryInfo_v2 UtilizationRates"
_SCALARS = """
    Architecture BAR1MemoryInfo BoardPartNumber Brand ClockInfo ComputeInstanceId ComputeMode
    ComputeRunningProcesses_v3 CudaComputeCapability CurrPcieLinkGeneration CurrPcieLinkWidth
    CurrentClocksEventReasons CurrentClocksThrottleReasons DecoderUtilization EncoderUtilization
    EnforcedPowerLimit FanSpeed_v2 GpuFabricInfoV GpuInstanceId GpuMaxPcieLinkGeneration
    GraphicsRunningProcesses_v3 GridLicensableFeatures_v4 GspFirmwareVersion Index
    InforomImageVersion JpgUtilization MPSComputeRunningProcesses_v3 MarginTemperature MaxClockInfo
    MaxMigDeviceCount MaxPcieLinkGeneration MaxPcieLinkWidth MemoryErrorCounter MemoryInfo
    MigDeviceHandleByIndex MigMode MinorNumber ModuleId Name NumFans NvLinkRemoteDeviceType
    NvLinkRemotePciInfo_v2 NvLinkState OfaUtilization PciInfo_v3 PcieReplayCounter PcieThroughput
    PerformanceState PersistenceMode PlatformInfo PowerManagementDefaultLimit PowerManagementLimit
    PowerManagementLimitConstraints PowerUsage ProcessUtilization ProcessesUtilizationInfo
    RepairStatus RowRemapperHistogram Samples Samples Serial SramEccErrorStatus Temperature
    TemperatureThreshold TemperatureV UUID VbiosVersion VirtualizationMode
"""
OF_GPU = [f"nvmlDeviceGet{name}" for name in f"{_BATCHES} {_SCALARS}".split()] + [
    "nvmlGpmQueryDeviceSupport",
    "nvmlGpmSampleGet",
    "nvmlGpmMigSampleGet",
]
OF_NODE = """
    nvmlDeviceGetCount_v2 nvmlDeviceGetHandleByIndex_v2 nvmlDeviceGetHandleByUUID nvmlGpmSampleAlloc
    nvmlInitWithFlags nvmlSystemGetConfComputeState
    nvmlSystemGetCudaDriverVersion nvmlSystemGetDriverVersion nvmlSystemGetNVMLVersion
""".split()
CALLS = [
    *((gpu, call) for gpu in (0, 0, 0, 0, 1) for call in OF_GPU),
    *((NODE, call) for call in OF_NODE),
    *((NODE, "nvmlGpmMetricsGet"),) * 20,
]
SECONDS = (1, 1, 1, 2, 5, 700)  # from a poll to the next; after 600, a refusal is asked again
PIECE = 4  # bytes that one lie is made of: few draws, and Hypothesis can still leave some out
BEHAVIOURS = st.binary(min_size=1 + 3 * PIECE, max_size=1 + 12 * PIECE)


def behaviour(data: bytes) -> tuple[dict[Who, Lie], int]:
    """Return what a driver bends in one poll, and the seconds before it."""
    pieces = [data[at : at + PIECE] for at in range(1, len(data), PIECE)]
    lies: dict[Who, Lie] = {}
    for piece in pieces:
        chance = random.Random(piece)  # noqa: S311  the same lie for the same bytes
        if chance.randrange(40) == 0:  # all that a GPU is asked
            lies[chance.randrange(GPUS), ANY] = Lie(chance.choice(CODES))
        else:
            lies[chance.choice(CALLS)] = lie(chance)
    return lies, SECONDS[data[0] % len(SECONDS)]


class Inline:
    """A crew that does its jobs at once: what threads and deadlines do has tests of its own."""

    is_busy, is_idle = False, True

    def __init__(self, _name: str) -> None:
        pass

    def start(self, jobs: Sequence[Job[Any]], *, split: bool) -> None:  # noqa: ARG002  the crew's
        """Do them."""
        for job in jobs:
            job.run()

    def wait(self, deadline_seconds: float, *, block: bool = True) -> None:
        """All is done."""


class Nobody:
    """No process of this host uses a GPU."""

    samples_match = True

    def pids_match(self, _driver_version: str) -> bool:
        """Tell that they are of this host."""
        return True

    def read(self, _pid: int) -> HostProcess | None:
        """Find none."""
        return None

    def keep(self, pids: Collection[int]) -> None:
        """Hold none."""


class Machine:
    """A node of the fake library, asked through a Liar, polled second by second."""

    def __init__(self, node: Node, liar: Liar, profile: str, left_out: int = 0) -> None:
        self._node = node
        self._liar = liar
        self._seconds = 100
        self._ever: dict[str, set[float]] = {}
        self._bent: set[int] = set()
        self.is_gone = False
        liar.lies = {}
        liar.forget()
        liar.begin()
        node.reset()
        node.put(f"profile={profile}", f"count={GPUS}", "time=100", *TENANTS, *MACHINES[profile])
        self._poller = Poller(
            Sources(
                NvmlDriver(Path("/nowhere")),
                Build("1", "3", simulated=False),
                lambda: None,
                node.clock,
                Nobody(),
            ),
            plan(left_out),
            (),
            Reload(successful=True, success_timestamp_seconds=0),
        )

    @property
    def latest(self) -> Snapshot:
        """The latest snapshot."""
        latest = self._poller.latest
        assert latest is not None
        return latest

    def tick(self, lies: Mapping[Who, Lie], seconds: int) -> None:
        """Let time pass, and poll."""
        self._node.clock.seconds += seconds
        if seconds > 1:  # the fake's counters and loads move; else a page differs by the lies alone
            self._seconds += seconds
            self._node.put(f"time={self._seconds}")
        self._liar.forget()
        self._liar.lies = lies
        self._bent |= {gpu for gpu, _ in lies}
        try:
            self._poller.tick()
        except DriverGoneError:
            assert self._liar.codes & DRIVER_GONE, "only the driver says that it is gone"
            self.is_gone = True

    def judge(self, text: str) -> list[Sample]:
        """Return the samples of a page, all of which the driver has answered."""
        common = self._liar.answered.get(NODE, set())
        now = {str(gpu): common | self._liar.answered.get(gpu, set()) for gpu in range(GPUS)}
        for gpu, answers in now.items():
            self._ever.setdefault(gpu, set()).update(answers)
        found = samples(text)
        mistakes = wrong(found, now, self._ever)
        assert not mistakes, "\n".join(mistakes[:20])
        if not self._bent & {1, NODE}:
            down = [s for s in found if s[0] == "gpu_up" and ("gpu", "1") in s[1] and s[2] != 1]
            assert not down, "a GPU is down for what another one answers"
        return found
