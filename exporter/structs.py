"""NVML calls whose structure pynvml leaves to the caller, as questions that answer with it.

Each has the name of its NVML function and raises pynvml.NVMLError, as pynvml's own do.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from ctypes import byref, c_uint
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pynvml

# nvmlPlatformInfo_v2_t: version, two texts, five numbers of a byte each (text, to pynvml)
_PLATFORM = struct.Struct("=I16s16s5B3x")


def _fabric_info(handle: object) -> object:
    """Return nvmlGpuFabricInfo_v3_t; drivers before 555 or so fill its first version only."""
    info = pynvml.c_nvmlGpuFabricInfo_v3_t()  # zeroed: the driver writes one byte of `state`
    try:
        pynvml.nvmlDeviceGetGpuFabricInfoV(handle, byref(info))
    except pynvml.NVMLError as error:
        if error.value != pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH:
            raise
        # The same layout without the summary at its end, which stays 0: "not supported".
        info.version = pynvml.nvmlGpuFabricInfo_v2
        pynvml.nvmlDeviceGetGpuFabricInfoV(handle, byref(info))
    return info


def _sram_ecc_error_status(handle: object) -> object:
    status = pynvml.c_nvmlEccSramErrorStatus_v1_t()
    pynvml.nvmlDeviceGetSramEccErrorStatus(handle, byref(status))
    return status


def _platform_info(handle: object) -> object:
    info = pynvml.c_nvmlPlatformInfo_v2_t()
    pynvml.nvmlDeviceGetPlatformInfo(handle, byref(info))
    _, _, serial, slot, tray, host, peer_type, module = _PLATFORM.unpack(info)
    return SimpleNamespace(
        chassisSerialNumber=serial.partition(b"\0")[0],
        slotNumber=slot,
        trayIndex=tray,
        hostId=host,
        peerType=peer_type,
        moduleId=module,
    )


def _module_id(handle: object) -> object:
    """Return the module's number; pynvml's own default argument is shared by all threads."""
    return pynvml.nvmlDeviceGetModuleId(handle, c_uint())


def _conf_compute_state(_handle: object) -> object:
    """Return the state of all GPUs of the node: they share it."""
    return pynvml.nvmlSystemGetConfComputeState()


def _conf_compute_ready(_handle: object) -> object:
    return pynvml.nvmlSystemGetConfComputeGpusReadyState()


CALLS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "nvmlDeviceGetGpuFabricInfoV": _fabric_info,
        "nvmlDeviceGetSramEccErrorStatus": _sram_ecc_error_status,
        "nvmlDeviceGetPlatformInfo": _platform_info,
        "nvmlDeviceGetModuleId": _module_id,
        "nvmlSystemGetConfComputeState": _conf_compute_state,
        "nvmlSystemGetConfComputeGpusReadyState": _conf_compute_ready,
    }
)
