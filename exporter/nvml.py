"""The driver of this machine: NVML through pynvml."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pynvml

from exporter.device import NvmlDevice, SerialCalls
from exporter.returns import GONE, NO_PERMISSION, error_name, raise_for
from exporter.sampling import DriverAbsentError, DriverInfo, Fault, FoundGpu, Reader

LIBRARY = "libnvidia-ml.so.1"


class NvmlDriver:
    """The NVIDIA driver of this machine."""

    def __init__(self, sys: Path = Path("/sys")) -> None:
        self._sys = sys
        self._serial = SerialCalls()
        self._driver_version = ""

    def connect(self) -> tuple[DriverInfo, tuple[FoundGpu, ...]]:
        """Run nvmlInit and list the GPUs: see sampling.Driver."""
        try:
            pynvml.nvmlInit()
            self._driver_version = pynvml.nvmlSystemGetDriverVersion()
            info = DriverInfo(
                driver_version=self._driver_version,
                nvml_version=pynvml.nvmlSystemGetNVMLVersion(),
                cuda_version=_cuda_version(),
            )
            return info, tuple(_found(i) for i in range(pynvml.nvmlDeviceGetCount()))
        except pynvml.NVMLError as error:
            raise DriverAbsentError(_absence(error.value)) from None
        except UnicodeDecodeError as error:
            raise DriverAbsentError(f"the driver's version is no text: {error}") from None

    def open(
        self, gpu: FoundGpu, readers: tuple[Reader[Any], ...], max_gap_seconds: float
    ) -> NvmlDevice:
        """Take a new handle by UUID: that of a GPU that was reset is dead."""
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
        except pynvml.NVMLError as error:
            raise_for(error.value)
        return NvmlDevice(handle, self._driver_version, readers, max_gap_seconds, self._serial)

    def abandon(self) -> None:
        """Free the turn that a hung call holds."""
        self._serial.abandon()

    def pci_gpus(self) -> int | None:
        """Count display and 3D controllers by NVIDIA in /sys/bus/pci/devices."""
        try:
            devices = list((self._sys / "bus/pci/devices").iterdir())
            return sum(
                (device / "vendor").read_text().strip() == "0x10de"
                and (device / "class").read_text().startswith(("0x0300", "0x0302"))
                for device in devices
            )
        except OSError:
            return None


def _found(index: int) -> FoundGpu:
    try:
        uuid = pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index))
    except pynvml.NVMLError as error:
        if error.value == NO_PERMISSION:
            return FoundGpu(index, "", Fault.NO_PERMISSION)
        return FoundGpu(index, "", GONE.get(error.value, Fault.ERROR))
    return FoundGpu(index, uuid)


def _cuda_version() -> str:
    try:
        number = pynvml.nvmlSystemGetCudaDriverVersion()
    except pynvml.NVMLError:
        return ""
    return f"{number // 1000}.{number % 1000 // 10}"


def _absence(code: int) -> str:
    """Return why there is no driver, and what would help."""
    if code == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        try:
            ctypes.CDLL(LIBRARY)
        except OSError as error:  # pynvml hides it
            return f"{error}; install the NVIDIA driver, or mount its library into the container"
        return f"{LIBRARY} cannot be loaded"
    advice = {
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "load the kernel module: modprobe nvidia",
        pynvml.NVML_ERROR_NO_PERMISSION: "let this user read and write /dev/nvidia*",
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "library and kernel module are of two driver "
        "versions; reboot, or reload the module",
    }.get(code, "look at dmesg and nvidia-smi")
    return f"nvmlInit: {error_name(code)}; {advice}"
