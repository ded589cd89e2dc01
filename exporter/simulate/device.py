"""The simulated driver and its devices: the same rules as NVML's, with a scenario for a board."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any

from exporter.fields import Field, field_id
from exporter.sampling import (
    DeviceGoneError,
    DriverAbsentError,
    DriverInfo,
    Fault,
    FieldRequest,
    FoundGpu,
    Reader,
    ReadFailedError,
    Tier,
)
from exporter.simulate.ailments import SOUND
from exporter.simulate.board import Board
from exporter.simulate.calls import CALLS
from exporter.simulate.counters import FIELDS, PROFILING
from exporter.simulate.look import Look
from exporter.simulate.planted import NOTHING, Planted
from exporter.simulate.profiles import PROFILES
from exporter.simulate.scenario import Trace, scatter
from exporter.simulate.tenants import TENANTS, SimulatedProcesses

MIN_WINDOW_SECONDS = 0.1  # nvml.h: between two GPM samples

# What NVML says of a GPU with this fault.
_ERRORS: Mapping[Fault, str] = {
    Fault.LOST: "gpu_is_lost",
    Fault.RESET_REQUIRED: "reset_required",
    Fault.NO_PERMISSION: "no_permission",
    Fault.ERROR: "unknown",
}
_GONE = (Fault.LOST, Fault.RESET_REQUIRED)
_NOT_LISTED = (Fault.NO_PERMISSION, Fault.ERROR)  # nvmlDeviceGetHandleByIndex fails already

_FieldAnswer = Callable[[Look, int], float | None]


class SimulatedDevice:
    """One simulated GPU. Not for two threads at a time.

    A question that no one thought of raises NotImplementedError: a call without a simulation, or a
    field that no reader of this tier has declared (NVML's batch would leave it out).
    """

    def __init__(
        self,
        look: Callable[[], Look],
        board: Board,
        driver_version: str,
        readers: tuple[Reader[Any], ...],
        max_gap_seconds: float,
        clock: Callable[[], float],
        check_fault: Callable[[], None],
        planted: Callable[[], Planted],
    ) -> None:
        self.max_gap_seconds = max_gap_seconds
        self.denied = False
        self.answers = 0
        self._look_now = look
        self._board = board
        self._clock = clock
        self._check_fault = check_fault
        self._planted = planted
        self._requests = {tier: _requests(readers, tier, board, driver_version) for tier in Tier}
        self._gpm_ids = sorted({metric for reader in readers for metric in reader.gpm})
        self._tier = Tier.STATIC
        self._look: Look | None = None
        self._fields: dict[tuple[Field, int], float | None] | None = None
        self._gpm: dict[int, float | None] | None = None
        self._gpm_before: Look | None = None

    def now(self) -> float:
        """Return the driver's clock, in seconds."""
        return self._clock()

    def begin(self, tier: Tier) -> None:
        """Start a tick: all its answers are of one moment, that of the first question."""
        self._tier, self._look, self._fields, self._gpm = tier, None, None, None

    def ask(self, call: str, *args: object) -> Any:  # noqa: ANN401  each call has its own type
        """Return what the NVML function `call` answers, or None: see sampling.Device."""
        answer = CALLS.get(call)
        if answer is None:
            raise NotImplementedError(f"{call} is not simulated; add it to simulate/calls.py")
        self._check_fault()
        planted = self._planted().calls
        if call in planted:
            value = planted[call]
        elif call in self._board.refuses:
            return None
        else:
            value = answer(self._tick_look(), *args)
        self.answers += value is not None
        return value

    def field(self, field: Field, scope: int = 0) -> float | None:
        """Return a field value from this tick's batch, or None: see sampling.Device."""
        if self._fields is None:
            self._fields = self._read_fields()
        try:
            return self._fields[field, scope]
        except KeyError:
            raise NotImplementedError(
                f"no reader of tier {self._tier.value} declares {field} with scope {scope}"
            ) from None

    def gpm(self, metric: int) -> float | None:
        """Return a profiling counter over the last tick, or None: see sampling.Device."""
        if self._gpm is None:
            self._gpm = self._read_gpm()
        try:
            return self._gpm[metric]
        except KeyError:
            raise NotImplementedError(f"no reader declares GPM metric {metric}") from None

    def _tick_look(self) -> Look:
        if self._look is None:
            self._look = self._look_now()
        return self._look

    def _read_fields(self) -> dict[tuple[Field, int], float | None]:
        self._check_fault()
        look, planted = self._tick_look(), self._planted().fields
        values: dict[tuple[Field, int], float | None] = {}
        for request, answer in self._requests[self._tier].items():
            first = request.instead_of
            needless = first is not None and values[first.field, first.scope] is not None
            values[request.field, request.scope] = (
                None if answer is None or needless else answer(look, request.scope)
            )
        values.update({asked: value for asked, value in planted.items() if asked in values})
        self.answers += sum(value is not None for value in values.values())
        return values

    def _read_gpm(self) -> dict[int, float | None]:
        """Return means since the tick before; none at the first tick and after a hole."""
        self._check_fault()
        nothing: dict[int, float | None] = dict.fromkeys(self._gpm_ids)
        if not self._board.has_gpm:
            return nothing
        look, before = self._tick_look(), self._gpm_before
        elapsed = look.moment.seconds - before.moment.seconds if before else 0.0
        if before and elapsed < MIN_WINDOW_SECONDS:
            return nothing
        self._gpm_before = look
        if before is None or elapsed > self.max_gap_seconds:
            return nothing
        return {metric: PROFILING[metric](look, before) for metric in self._gpm_ids}


def _requests(
    readers: tuple[Reader[Any], ...], tier: Tier, board: Board, driver_version: str
) -> dict[FieldRequest, _FieldAnswer | None]:
    """Return who answers each field of a tier; None: this driver or board does not know it."""
    return {
        request: None
        if request.field in board.refuses or field_id(request.field, driver_version) is None
        else FIELDS[request.field]
        for reader in readers
        if reader.tier is tier
        for request in reader.fields
    }


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
            self._profile.driver_version,
            readers,
            max_gap_seconds,
            self._clock,
            lambda: self._check_fault(gpu.index),
            lambda: self._planted.get(gpu.index, NOTHING),
        )

    def abandon(self) -> None:
        """Do nothing: a hung question of one GPU holds nothing that others need."""

    def release(self) -> None:
        """Let every hung question go on, now and from now on."""
        self._released.set()

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
