"""The driver of this machine: NVML through pynvml."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path
from typing import Any

import pynvml

from exporter.batches import GpmSamples, SerialCalls
from exporter.device import NvmlDevice
from exporter.nvml_events import NvmlXidWatch
from exporter.returns import NO_PERMISSION, NOTHING_YET, error_name, raise_for
from exporter.sampling import (
    DeviceGoneError,
    DriverAbsentError,
    DriverGoneError,
    DriverInfo,
    Fault,
    FoundGpu,
    Reader,
)

LIBRARY = "libnvidia-ml.so.1"
MISMATCH = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
MAX_GPUS = 256  # a driver that tells of more is not believed
# What these codes say of a GPU when its handle is asked for.
UNREACHABLE = {NO_PERMISSION: Fault.NO_PERMISSION, NOTHING_YET: Fault.LOST}


class NvmlDriver:
    """The NVIDIA driver of this machine."""

    def __init__(self, sys: Path = Path("/sys")) -> None:
        self._sys = sys
        self._serial = SerialCalls()
        self._gpm_samples: dict[int, GpmSamples] = {}  # by the GPU's index
        self._driver_version = ""
        self._module = ""

    def connect(self) -> tuple[DriverInfo, tuple[FoundGpu, ...]]:
        """Run nvmlInit and count the GPUs: see sampling.Driver.

        None of them is touched: one that hangs would keep the others from being found.
        """
        self._check_module()
        try:
            pynvml.nvmlInit()
            self._driver_version = pynvml.nvmlSystemGetDriverVersion()
            info = DriverInfo(
                driver_version=self._driver_version,
                nvml_version=pynvml.nvmlSystemGetNVMLVersion(),
                cuda_version=_cuda_version(),
            )
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            if error.value == MISMATCH and _is_library_deleted():
                raise DriverGoneError(f"{LIBRARY} was replaced") from None
            raise DriverAbsentError(_absence(error.value)) from None
        except UnicodeDecodeError as error:
            raise DriverAbsentError(f"the driver's version is no text: {error}") from None
        if count > MAX_GPUS:
            raise DriverAbsentError(f"the driver tells of {count} GPUs, over {MAX_GPUS}")
        return info, tuple(FoundGpu(i, "") for i in range(count))

    def _check_module(self) -> None:
        """Compare the kernel module with the one that our library was loaded for.

        Nothing unmaps a library: only a new process can load the one that fits another module.
        """
        module = _module_version(self._sys)
        if module and self._module and module != self._module:
            raise DriverGoneError(f"driver {self._module} was replaced by {module}")
        self._module = self._module or module

    def open(
        self, gpu: FoundGpu, readers: tuple[Reader[Any], ...], max_gap_seconds: float
    ) -> NvmlDevice:
        """Take a new handle, by UUID once that is known: that of a GPU that was reset is dead."""
        try:
            if gpu.uuid:
                handle = pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
            else:
                handle = pynvml.nvmlDeviceGetHandleByIndex(gpu.index)
        except pynvml.NVMLError as error:
            if error.value in UNREACHABLE:
                fault = UNREACHABLE[error.value]
                raise DeviceGoneError(error_name(error.value), fault) from None
            raise_for(error.value)
        samples = self._gpm_samples.setdefault(gpu.index, GpmSamples())
        return NvmlDevice(
            handle,
            gpu.index,
            self._driver_version,
            readers,
            max_gap_seconds,
            self._serial,
            samples,
        )

    def close(self) -> None:
        """Run nvmlShutdown, which closes /dev/nvidia*: see sampling.Driver."""
        with suppress(pynvml.NVMLError):  # a driver that is gone holds nothing
            for samples in self._gpm_samples.values():
                samples.free()
        self._gpm_samples.clear()
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()

    def abandon(self) -> None:
        """Free the turn that a hung call holds."""
        self._serial.abandon()

    def watch_xids(self) -> NvmlXidWatch:
        """Create an event set: see sampling.Driver."""
        return NvmlXidWatch()

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


def _is_library_deleted() -> bool:
    """Return whether the file of the mapped library is gone, as after an upgrade."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    return any("libnvidia-ml.so" in line and "(deleted)" in line for line in maps.splitlines())


def _module_version(sys: Path) -> str:
    """Return the kernel module's version; "" without one, or on a kernel that does not tell."""
    try:
        return (sys / "module/nvidia/version").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


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
