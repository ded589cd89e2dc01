"""XID events of NVML: nvmlEventSet and its companions."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any

import pynvml

from exporter.returns import NO_PERMISSION, REFUSED, raise_for
from exporter.sampling import FoundGpu

XID = pynvml.nvmlEventTypeXidCriticalError
TIMEOUT = pynvml.NVML_ERROR_TIMEOUT


class NvmlXidWatch:
    """One event set: see sampling.XidWatch."""

    def __init__(self) -> None:
        """Create the set. Raises as sampling.Device.ask does."""
        self._uuids: dict[int | None, str] = {}  # by the handle's address
        try:
            self._set: Any = pynvml.nvmlEventSetCreate()
        except pynvml.NVMLError as error:
            raise_for(error.value)

    def add(self, gpu: FoundGpu) -> bool:
        """Register for XIDs alone: with one type that the board lacks, NVML registers none."""
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
            if not pynvml.nvmlDeviceGetSupportedEventTypes(handle) & XID:
                return False
            pynvml.nvmlDeviceRegisterEvents(handle, XID, self._set)
        except pynvml.NVMLError as error:
            if error.value in REFUSED or error.value == NO_PERMISSION:
                return False
            raise_for(error.value)
        self._uuids[_address(handle)] = gpu.uuid
        return True

    def wait(self, seconds: float) -> tuple[str, int] | None:
        """Wait in nvmlEventSetWait_v2; an event of another type, or of nobody, is none."""
        try:
            data = pynvml.nvmlEventSetWait_v2(self._set, round(seconds * 1000))
        except pynvml.NVMLError as error:
            if error.value == TIMEOUT:
                return None
            raise_for(error.value)
        uuid = self._uuids.get(_address(data.device))
        if data.eventType != XID or uuid is None:
            return None
        return uuid, int(data.eventData)

    def close(self) -> None:
        """Free the set."""
        with suppress(pynvml.NVMLError):
            pynvml.nvmlEventSetFree(self._set)


def _address(handle: object) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value  # type: ignore[arg-type]  # pynvml's pointer
