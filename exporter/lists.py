"""NVML answers that are lists of processes: one call each where the buffer suffices.

pynvml asks twice, for the size and for the list, though these are among the slower calls; and it
fails where a list grows between the two.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from ctypes import Array, byref, c_char, c_uint, c_ulonglong, create_string_buffer
from types import MappingProxyType
from typing import Any

import pynvml

from exporter.batches import U32, U64
from exporter.returns import NOTHING_YET
from exporter.sampling import ProcessSample, RunningProcess

ROOM = 128  # of a first attempt; more than the 72 samples that drivers keep
MOST = 1 << 16  # PIDs of one GPU; a larger answer is a driver's mistake
ATTEMPTS = 4  # a list may have grown when it is asked for again
SPARE = 32

_Buffer = Array[c_char]

# nvmlProcessInfo_v2_t, the layout of the functions _v2 and _v3
_RUNNING = struct.Struct("=I4xQII")
# nvmlProcessUtilizationSample_t, nvmlProcessUtilizationInfo_v1_t
_SAMPLE = struct.Struct("=I4xQIIII")
_INFO = struct.Struct("=QIIIIIII4x")


def _running(call: str) -> Callable[[Any], list[RunningProcess]]:
    def ask(handle: Any) -> list[RunningProcess]:  # noqa: ANN401  a pointer of pynvml
        function = _function(call)

        def fill(buffer: _Buffer, count: c_uint) -> int:
            return int(function(handle, byref(count), buffer))

        return [
            RunningProcess(
                pid,
                None if used == U64 else used,
                None if gpu_instance == U32 else gpu_instance,
                None if compute_instance == U32 else compute_instance,
            )
            for pid, used, gpu_instance, compute_instance in _entries(_RUNNING, fill)
        ]

    return ask


def _samples(handle: Any, last_seen: int) -> list[ProcessSample]:  # noqa: ANN401  of pynvml
    function = _function("nvmlDeviceGetProcessesUtilizationInfo")
    entry = pynvml.c_nvmlProcessUtilizationInfo_v1_t

    def fill(buffer: _Buffer, count: c_uint) -> int:
        request = pynvml.c_nvmlProcessesUtilizationInfo_v1_t()
        request.version = pynvml.ProcessesUtilizationInfo_v1
        request.processSamplesCount = count
        request.lastSeenTimeStamp = last_seen
        request.procUtilArray = (entry * count.value).from_buffer(buffer)
        code = int(function(handle, byref(request)))
        count.value = request.processSamplesCount
        return code

    return [
        ProcessSample(pid, at, sm, memory, encoder, decoder, jpeg, ofa)
        for at, pid, sm, memory, encoder, decoder, jpeg, ofa in _entries(_INFO, fill)
    ]


def _samples_before_550(handle: Any, last_seen: int) -> list[ProcessSample]:  # noqa: ANN401
    function = _function("nvmlDeviceGetProcessUtilization")

    def fill(buffer: _Buffer, count: c_uint) -> int:
        return int(function(handle, buffer, byref(count), c_ulonglong(last_seen)))

    return [
        ProcessSample(pid, at, sm, memory, encoder, decoder, None, None)
        for pid, at, sm, memory, encoder, decoder in _entries(_SAMPLE, fill)
    ]


def _function(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] | None = getattr(pynvml.nvmlLib, name, None)
    if function is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    return function


def _entries(
    layout: struct.Struct, fill: Callable[[_Buffer, c_uint], int]
) -> list[tuple[Any, ...]]:
    """Return the entries that a call gives; none where it has nothing (NOT_FOUND).

    Raises:
        pynvml.NVMLError: the call failed, or its list never stops growing.
    """
    room = ROOM
    for _ in range(ATTEMPTS):
        buffer = create_string_buffer(room * layout.size)
        count = c_uint(room)
        code = fill(buffer, count)
        if code == NOTHING_YET:
            return []
        if code != pynvml.NVML_ERROR_INSUFFICIENT_SIZE or room == MOST:
            break
        room = min(max(count.value + SPARE, 2 * room), MOST)
    if code:
        raise pynvml.NVMLError(code)
    there = memoryview(buffer)[: min(count.value, room) * layout.size]
    return list(layout.iter_unpack(there))


def are_misread(driver_version: str) -> bool:
    """Return whether this driver's lists of processes are not of the layout that it names.

    535.43 to 535.86 wrote entries of 32 bytes to callers that gave room for 24.
    """
    major, _, minor = driver_version.partition(".")
    return major == "535" and minor.split(".")[0] in ("43", "54", "86")


RUNNING: tuple[str, ...] = tuple(
    f"nvmlDeviceGet{kind}RunningProcesses{version}"
    for kind in ("Compute", "Graphics", "MPSCompute")
    for version in ("_v3", "_v2")
)

# In place of pynvml's functions of these names.
CALLS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        **{call: _running(call) for call in RUNNING},
        "nvmlDeviceGetProcessesUtilizationInfo": _samples,
        "nvmlDeviceGetProcessUtilization": _samples_before_550,
    }
)
