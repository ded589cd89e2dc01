"""A pause of NVML, ordered by a file: for driver upgrades, GPU resets and changes of MIG mode.

An initialised NVML holds /dev/nvidia*, and with that the kernel module and every GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from exporter.scaleout.clock import Clock, rfc3339
from exporter.scaleout.pausing import MAX_REASON, MAX_SECONDS, PauseFile
from exporter.schema import as_duration
from exporter.snapshot import NvmlPause

FILE = "nvml-pause"


class NvmlPauseError(Exception):
    """It was not done, and why."""


def orders(storage: Path, clock: Clock) -> Callable[[], NvmlPause | None]:
    """Return what tells the pause that is on: it survives the daemon, and ends by itself."""
    file = PauseFile(storage, clock, FILE)

    def look() -> NvmlPause | None:
        found = file.look()
        left = 0.0 if found is None else found.until - clock.since_boot()
        return NvmlPause(found.reason, left) if found is not None and left > 0 else None

    return look


def pause(storage: Path, clock: Clock, *, seconds: float, reason: str) -> str:
    """Order a pause.

    Raises:
        NvmlPauseError: the time is not sensible, or the file cannot be written.
    """
    if not 0 < seconds <= MAX_SECONDS:
        raise NvmlPauseError(f"a pause lasts from 1ms to {as_duration(MAX_SECONDS)}")
    path = storage / FILE
    new = path.with_suffix(".new")
    text = f"{as_duration(seconds)} {' '.join(reason.split())}"[:MAX_REASON]
    try:
        new.write_text(f"{text}\n", encoding="utf-8")
        new.chmod(0o644)  # whoever runs the daemon
        new.replace(path)
    except OSError as error:
        raise NvmlPauseError(_why(path, error)) from None
    return (
        f"paused until {rfc3339(clock.wall() + seconds)}; the daemon lets go of the driver within "
        "seconds: gpu_exporter_nvml_paused is 1 then\n"
    )


def resume(storage: Path) -> str:
    """End a pause.

    Raises:
        NvmlPauseError: the file cannot be removed.
    """
    path = storage / FILE
    try:
        path.unlink()
    except FileNotFoundError:
        return "not paused\n"
    except OSError as error:
        raise NvmlPauseError(_why(path, error)) from None
    return "resumed\n"


def status(storage: Path, clock: Clock) -> str:
    """Return whether a pause is on, for how long still, and why."""
    found = orders(storage, clock)()
    if found is None:
        return "not paused\n"
    return f"paused for {as_duration(round(found.remaining_seconds))} more: {found.reason}\n"


def _why(path: Path, error: OSError) -> str:
    right = "give the daemon's --storage.path, and run as its user or root"
    return f"{path}: {os.strerror(error.errno or 0)}; {right}"
