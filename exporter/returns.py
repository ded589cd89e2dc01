"""NVML's return codes (nvmlReturn_t), and what follows from each."""

from __future__ import annotations

from typing import NoReturn

import pynvml

from exporter.sampling import DeviceGoneError, DriverGoneError, Fault, ReadFailedError

# nvmlReturn_t, sorted by what follows from it (nvml.h; 999 and the others: this tick only).
REFUSED = {2, 3, 13, 22, 25, 26}
INVALID_ARGUMENT = 2
NOTHING_YET = 6  # NOT_FOUND
NO_PERMISSION = 4
GONE = {15: Fault.LOST, 16: Fault.RESET_REQUIRED, 28: Fault.LOST}
DRIVER_GONE = {1, 9, 12, 18}

_ERROR_NAMES: dict[int, str] = {
    code: name.removeprefix("NVML_ERROR_").lower()
    for name, code in vars(pynvml).items()
    if name.startswith("NVML_ERROR_")
}


def error_name(code: int) -> str:
    """Return NVML's own word for a return code, e.g. "gpu_is_lost"."""
    return _ERROR_NAMES.get(code, f"code_{code}")


def is_passing(code: int) -> bool:
    """Return whether a failure tells of nothing but that one call, as a timeout does."""
    return code not in REFUSED | {NO_PERMISSION} | GONE.keys() | DRIVER_GONE


def raise_for(code: int) -> NoReturn:
    """Raise what an NVML return code means for the reading, the GPU or the driver."""
    if code in GONE:
        raise DeviceGoneError(error_name(code), GONE[code])
    if code in DRIVER_GONE:
        raise DriverGoneError(error_name(code))
    raise ReadFailedError(error_name(code))
