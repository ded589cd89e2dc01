"""The simulated driver: which GPUs there are, and what befalls them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import Any

from exporter.sampling import (
    DeviceGoneError,
    DriverAbsentError,
    DriverInfo,
    Fault,
    FoundGpu,
    Reader,
    ReadFailedError,
)
from exporter.simulate.ailments import SOUND
from exporter.simulate.bursts import Bursts
from exporter.simulate.device import SimulatedDevice
from exporter.simulate.look import Look
from exporter.simulate.planted import NOTHING, Planted
from exporter.simulate.profiles import PROFILES
from exporter.simulate.scenario import Trace, scatter
from exporter.simulate.tenants import TENANTS, SimulatedProcesses
from exporter.simulate.xids import PlantedXid, SimulatedXidWatch

# What NVML says of a GPU with this fault.
_ERRORS: Mapping[Fault, str] = {
    Fault.LOST: "gpu_is_lost",
    Fault.RESET_REQUIRED: "reset_required",
    Fault.NO_PERMISSION: "no_permission",
    Fault.ERROR: "unknown",
}
_GONE = (Fault.LOST, Fault.RESET_REQUIRED)
_NOT_LISTED = (Fault.NO_PERMISSION, Fault.ERROR)  # nvmlDeviceGetHandleByIndex fails already


class SimulatedDriver:
    """The driver of a simulated node: see sampling.Driver.

    Args:
        profile: A key of PROFILES. "none" has no driver: `connect` fails.
        clock: Monotonic seconds; it may run faster than time.
        start: When the scenario begins, by `clock`; None: now.
        faults: By index, what befalls a GPU. Read at every question: the caller may change it
            while the driver is in use. LOST and RESET_REQUIRED strike after `connect`, so that the
            UUID is known; HUNG blocks every question until `release`.
        planted: By index, what a GPU answers instead of its board. Read at every question, too.
        xids: XID errors to come.

    Raises:
        ValueError: there is no such profile.
    """

    def __init__(
        self,
        profile: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        start: float | None = None,
        faults: Mapping[int, Fault] | None = None,
        planted: Mapping[int, Planted] | None = None,
        xids: Sequence[PlantedXid] = (),
    ) -> None:
        if profile not in PROFILES:
            raise ValueError(f'no profile "{profile}"; there are {", ".join(PROFILES)}')
        self._name = profile
        self._profile = PROFILES[profile]
        self._tenants = TENANTS.get(profile, ())
        # Here, not in `open`: that one has the deadline of a reading.
        self._traces = tuple(Trace(board, gpu) for gpu, board in enumerate(self._profile.boards))
        self._clock = clock
        self._start = clock() if start is None else start
        self._faults = {} if faults is None else faults
        self._planted = {} if planted is None else planted
        self._xids = xids
        self._released = Event()

    def connect(self) -> tuple[DriverInfo, tuple[FoundGpu, ...]]:
        """List the profile's GPUs.

        Raises:
            DriverAbsentError: the profile is "none".
        """
        if not self._profile.boards:
            raise DriverAbsentError("simulated: no NVIDIA driver; simulate another profile")
        info = DriverInfo(
            self._profile.driver_version, self._profile.nvml_version, self._profile.cuda_version
        )
        return info, tuple(self._found(gpu) for gpu in range(len(self._profile.boards)))

    def open(
        self, gpu: FoundGpu, readers: tuple[Reader[Any], ...], max_gap_seconds: float
    ) -> SimulatedDevice:
        """Open a GPU of the list: see sampling.Driver."""
        if self._faults.get(gpu.index) is not Fault.HUNG:  # a handle can still be had
            self._check_fault(gpu.index)
        board, bus_id = self._profile.boards[gpu.index], self._profile.bus_ids[gpu.index]
        uuid, trace = self._uuid(gpu.index), self._traces[gpu.index]

        tenants = tuple(tenant for tenant in self._tenants if gpu.index in tenant.gpus)

        def look() -> Look:
            moment = trace.at(self._seconds())
            ails = self._profile.ailments.get(gpu.index, SOUND)
            version = self._profile.driver_version
            return Look(board, gpu.index, uuid, bus_id, moment, ails, version, tenants)

        return SimulatedDevice(
            look,
            board,
            Bursts(trace.load_ratio, gpu.index),
            self._profile.driver_version,
            readers,
            max_gap_seconds,
            self._clock,
            lambda: self._check_fault(gpu.index),
            lambda: self._planted.get(gpu.index, NOTHING),
        )

    def close(self) -> None:
        """Do nothing: nobody holds it."""

    def abandon(self) -> None:
        """Do nothing: a hung question of one GPU holds nothing that others need."""

    def release(self) -> None:
        """Let every hung question go on, now and from now on."""
        self._released.set()

    def watch_xids(self) -> SimulatedXidWatch:
        """Tell of the planted XID errors: see sampling.Driver."""
        return SimulatedXidWatch(self._xids, self._clock, self._start)

    def pci_gpus(self) -> int:
        """Count the profile's GPUs: a GPU with a fault is still in its slot."""
        return len(self._profile.boards)

    def processes(self, began_at: float) -> SimulatedProcesses:
        """Return the node's processes; the scenario began at this time since the epoch."""
        return SimulatedProcesses(self._tenants, self._seconds, began_at)

    def _seconds(self) -> float:
        return self._clock() - self._start

    def _found(self, gpu: int) -> FoundGpu:
        fault = self._faults.get(gpu)
        if fault in _NOT_LISTED:
            return FoundGpu(gpu, "", fault)
        return FoundGpu(gpu, self._uuid(gpu))

    def _uuid(self, gpu: int) -> str:
        """Return 128 bits in NVML's notation, always the same for a GPU of a profile."""
        words = (scatter(f"uuid/{self._name}/{gpu}/{word}") for word in range(4))
        d = "".join(f"{word:08x}" for word in words)
        return f"GPU-{d[:8]}-{d[8:12]}-{d[12:16]}-{d[16:20]}-{d[20:]}"

    def _check_fault(self, gpu: int) -> None:
        fault = self._faults.get(gpu)
        if fault is None:
            return
        if fault is Fault.HUNG:
            self._released.wait()
        elif fault in _GONE:
            raise DeviceGoneError(_ERRORS[fault], fault)
        else:
            raise ReadFailedError(_ERRORS[fault])
