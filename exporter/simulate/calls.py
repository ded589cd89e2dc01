"""What the simulated driver answers to NVML's calls, in its units.

Shapes are pynvml's: a structure is an object with the attributes that NVML names. None stands for
NVML_ERROR_NOT_SUPPORTED.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

from exporter.sampling import ProcessSample, RunningProcess
from exporter.simulate import health
from exporter.simulate.board import Memory
from exporter.simulate.look import (
    PCIE_TRANSMIT_SHARE,
    Look,
    default_milliwatts,
    has_link,
    link_state,
    max_milliwatts,
    min_milliwatts,
    pcie_rate,
    pcie_replays,
)

KIB, MIB = 1 << 10, 1 << 20
PAGE_BYTES = 2 * MIB  # memory is handed out in large pages
UNIFIED_BYTES = 68 << 30  # what processes have of a memory that the GPU shares with the host
SMALL_BAR1_USED_BYTES = 5 * MIB
CLOCK_STEP_MHZ = 15
ENGINE_PERIOD_MICROSECONDS = 167_000
NVLINK_TO_SWITCH = 2  # nvmlIntNvLinkDeviceType_t
NVSWITCHES = 4  # of a board of eight GPUs; links go to them in turn
FAN_START_CELSIUS, FAN_PERCENT_PER_KELVIN = 40.0, 2.2


def _serial(look: Look) -> str | None:
    return f"165{int(look.uuid[4:12], 16):010d}" if look.board.has_serial else None


def _used_bytes(memory: Memory, look: Look) -> int:
    return int(look.moment.memory_share * memory.total_mib * MIB) // PAGE_BYTES * PAGE_BYTES


def _memory(look: Look, version: int = 1) -> SimpleNamespace | None:
    """Answer as nvmlMemory_v2 does; the first version counts what is reserved as used."""
    memory = look.board.memory
    if memory is None:
        return None
    total, reserved = memory.total_mib * MIB, memory.reserved_mib * MIB
    used = _used_bytes(memory, look)
    free = total - reserved - used
    if version == 1:
        return SimpleNamespace(total=total, used=used + reserved, free=free)
    return SimpleNamespace(total=total, used=used, free=free, reserved=reserved)


def _bar1(look: Look) -> SimpleNamespace | None:
    memory = look.board.memory
    if memory is None:
        return None
    total = memory.bar1_mib * MIB
    used = _used_bytes(memory, look) if memory.bar1_static else SMALL_BAR1_USED_BYTES
    return SimpleNamespace(bar1Total=total, bar1Used=used, bar1Free=total - used)


def _utilization(look: Look) -> SimpleNamespace:
    load = look.moment.load_ratio
    # A GPU whose memory is the host's has no memory controller of its own to tell about.
    memory = 0.0 if look.board.memory is None else 0.62 * load
    return SimpleNamespace(gpu=round(100 * load), memory=round(100 * memory))


def _engine(_look: Look) -> list[int]:
    """Answer that an engine for pictures idles: text is what this node works on."""
    return [0, ENGINE_PERIOD_MICROSECONDS]


def _core_celsius(look: Look, _sensor: int) -> int:
    return round(look.moment.core_celsius)


def _threshold(look: Look, kind: int) -> int | None:
    cooling = look.board.cooling
    return (
        cooling.shutdown_celsius,
        cooling.slowdown_celsius,
        cooling.memory_max_celsius,
        cooling.gpu_max_celsius,
    )[kind]


def _fan_percent(look: Look, _fan: int) -> int:
    """Answer as a fan does that stands still while the GPU is cool."""
    above = look.moment.core_celsius - FAN_START_CELSIUS
    return min(100, round(FAN_PERCENT_PER_KELVIN * above)) if above > 0 else 0


def _clock(look: Look, domain: int) -> int | None:
    clocks = look.board.clocks
    steps = look.moment.clock_ratio * clocks.sm_load_mhz // CLOCK_STEP_MHZ
    sm = int(steps) * CLOCK_STEP_MHZ
    video = round(sm * clocks.video_max_mhz / clocks.sm_max_mhz / CLOCK_STEP_MHZ) * CLOCK_STEP_MHZ
    return (sm, sm, clocks.memory_load_mhz, video)[domain]


def _max_clock(look: Look, domain: int) -> int | None:
    clocks = look.board.clocks
    sm = clocks.sm_max_mhz
    return (sm, sm, clocks.memory_max_mhz, clocks.video_max_mhz)[domain]


def _power_milliwatts(look: Look) -> int:
    return round(1000 * look.moment.power_watts)


def _pcie_kib_per_second(look: Look, counter: int) -> int:
    share = look.moment.pcie_share * (PCIE_TRANSMIT_SHARE, 1.0)[counter]
    return round(pcie_rate(look, share) / KIB)


def _generation(look: Look) -> int:
    return look.board.pcie_generation


def _lanes(look: Look) -> int:
    return look.board.pcie_lanes


def _remote_type(look: Look, link: int) -> int | None:
    return NVLINK_TO_SWITCH if has_link(look, link) else None


def _remote_pci(look: Look, link: int) -> SimpleNamespace | None:
    if not has_link(look, link):
        return None
    return SimpleNamespace(busId=f"00000000:{5 + link % NVSWITCHES:02X}:00.0")


def _gsp_version(look: Look) -> bytes | None:
    return look.driver_version.encode() if look.board.has_gsp else None


def _module(look: Look) -> int:
    """Answer with the place on the baseboard; a card in a slot is alone on its own."""
    return 1 if look.board.nvlinks is None else look.gpu + 1


def _platform(look: Look) -> SimpleNamespace | None:
    if not look.board.has_platform:
        return None
    return SimpleNamespace(
        chassisSerialNumber=b"",  # a node of its own, in no rack
        slotNumber=0,
        trayIndex=0,
        hostId=1,
        moduleId=look.gpu + 1,
        peerType=1,
    )


def _reasons(look: Look) -> int:
    return look.moment.reasons


def _running(look: Look, *, graphics: bool) -> list[RunningProcess]:
    used = UNIFIED_BYTES if look.board.memory is None else _used_bytes(look.board.memory, look)
    return [
        RunningProcess(
            tenant.pid,
            int(tenant.memory_share * used) // PAGE_BYTES * PAGE_BYTES,
            *(tenant.instance or (None, None)),
        )
        for tenant in look.tenants
        if tenant.is_graphics == graphics
    ]


def _compute_processes(look: Look) -> list[RunningProcess]:
    return _running(look, graphics=False)


def _graphics_processes(look: Look) -> list[RunningProcess]:
    return _running(look, graphics=True)


def _no_processes(_look: Look) -> list[RunningProcess]:
    return []


def _process_samples(look: Look, _last_seen: int) -> list[ProcessSample]:
    """Answer with what was busy; the stamp is the time of day, whatever the scenario's clock."""
    load = 100 * look.moment.load_ratio
    shares = ((tenant.pid, round(load * tenant.sm_share)) for tenant in look.tenants)
    now = int(time.time() * 1e6)
    return [
        ProcessSample(pid, now, sm, round(0.62 * sm), 0, 0, 0, 0) for pid, sm in shares if sm > 0
    ]


CALLS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "nvmlDeviceGetName": lambda look: look.board.name,
        "nvmlDeviceGetSerial": _serial,
        "nvmlDeviceGetVbiosVersion": lambda look: look.board.vbios_version,
        "nvmlDeviceGetBrand": lambda look: look.board.brand,
        "nvmlDeviceGetBoardPartNumber": lambda look: look.board.part_number or None,
        "nvmlDeviceGetInforomImageVersion": lambda look: look.board.inforom_version or None,
        "nvmlDeviceGetGspFirmwareVersion": _gsp_version,
        "nvmlDeviceGetModuleId": _module,
        "nvmlDeviceGetMinorNumber": lambda look: look.gpu,
        "nvmlDeviceGetVirtualizationMode": lambda _look: 0,  # none
        "nvmlDeviceGetPlatformInfo": _platform,
        "nvmlDeviceGetArchitecture": lambda look: look.board.architecture,
        "nvmlDeviceGetCudaComputeCapability": lambda look: look.board.compute_capability,
        "nvmlDeviceGetPciInfo": lambda look: SimpleNamespace(busId=look.bus_id),
        "nvmlDeviceGetMemoryInfo": _memory,
        "nvmlDeviceGetBAR1MemoryInfo": _bar1,
        "nvmlDeviceGetUtilizationRates": _utilization,
        "nvmlDeviceGetEncoderUtilization": _engine,
        "nvmlDeviceGetDecoderUtilization": _engine,
        "nvmlDeviceGetJpgUtilization": _engine,
        "nvmlDeviceGetOfaUtilization": _engine,
        "nvmlDeviceGetTemperatureV": _core_celsius,
        "nvmlDeviceGetTemperature": _core_celsius,
        "nvmlDeviceGetTemperatureThreshold": _threshold,
        "nvmlDeviceGetNumFans": lambda look: look.board.cooling.fans,
        "nvmlDeviceGetFanSpeed_v2": _fan_percent,
        "nvmlDeviceGetPowerUsage": _power_milliwatts,
        "nvmlDeviceGetEnforcedPowerLimit": default_milliwatts,
        "nvmlDeviceGetPowerManagementLimit": default_milliwatts,
        "nvmlDeviceGetPowerManagementDefaultLimit": default_milliwatts,
        "nvmlDeviceGetPowerManagementLimitConstraints": lambda look: [
            min_milliwatts(look),
            max_milliwatts(look),
        ],
        "nvmlDeviceGetClockInfo": _clock,
        "nvmlDeviceGetMaxClockInfo": _max_clock,
        "nvmlDeviceGetCurrentClocksEventReasons": _reasons,
        "nvmlDeviceGetCurrentClocksThrottleReasons": _reasons,
        "nvmlDeviceGetPerformanceState": lambda look: look.board.performance_state,
        "nvmlGpmQueryDeviceSupport": lambda look: SimpleNamespace(
            isSupportedDevice=int(look.board.has_gpm)
        ),
        "nvmlDeviceGetPcieThroughput": _pcie_kib_per_second,
        "nvmlDeviceGetPcieReplayCounter": pcie_replays,
        "nvmlDeviceGetCurrPcieLinkGeneration": _generation,
        "nvmlDeviceGetMaxPcieLinkGeneration": _generation,
        "nvmlDeviceGetGpuMaxPcieLinkGeneration": _generation,
        "nvmlDeviceGetCurrPcieLinkWidth": lambda look: look.ails.pcie_lanes or _lanes(look),
        "nvmlDeviceGetMaxPcieLinkWidth": _lanes,
        "nvmlDeviceGetNvLinkState": link_state,
        "nvmlDeviceGetNvLinkRemoteDeviceType": _remote_type,
        "nvmlDeviceGetNvLinkRemotePciInfo": _remote_pci,
        **health.CALLS,
        "nvmlDeviceGetComputeRunningProcesses_v3": _compute_processes,
        "nvmlDeviceGetComputeRunningProcesses_v2": _compute_processes,
        "nvmlDeviceGetGraphicsRunningProcesses_v3": _graphics_processes,
        "nvmlDeviceGetGraphicsRunningProcesses_v2": _graphics_processes,
        "nvmlDeviceGetMPSComputeRunningProcesses_v3": _no_processes,
        "nvmlDeviceGetMPSComputeRunningProcesses_v2": _no_processes,
        "nvmlDeviceGetProcessUtilization": _process_samples,
        "nvmlDeviceGetProcessesUtilizationInfo": _process_samples,
    }
)
