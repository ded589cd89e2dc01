"""A simulated GPU: the same rules as NVML's, with a scenario for a board."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from exporter.fields import Field, field_id
from exporter.sampling import (
    FieldRequest,
    LoadSample,
    Reader,
    Tier,
)
from exporter.simulate import mig
from exporter.simulate.board import Board
from exporter.simulate.bursts import Bursts
from exporter.simulate.calls import CALLS
from exporter.simulate.counters import FIELDS, PROFILING
from exporter.simulate.look import Look
from exporter.simulate.planted import Planted

MIN_WINDOW_SECONDS = 0.1  # nvml.h: between two GPM samples

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
        bursts: Bursts,
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
        self._bursts = bursts
        self._clock = clock
        self._check_fault = check_fault
        self._planted = planted
        self._requests = {tier: _requests(readers, tier, board, driver_version) for tier in Tier}
        self._gpm_ids = sorted({metric for reader in readers for metric in reader.gpm})
        self._tier = Tier.STATIC
        self._look: Look | None = None
        self._fields: dict[tuple[Field, int], float | None] | None = None
        self._gpm: dict[int, float] | None = None
        self._gpm_before: Look | None = None
        self._mig_before: dict[int, Look] = {}  # by GPU instance

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

    def gpm(self) -> Mapping[int, float]:
        """Return the profiling counters over the last tick: see sampling.Device."""
        if self._gpm is None:
            self._gpm = self._read_gpm()
        return self._gpm

    def utilization_samples(self) -> Sequence[LoadSample]:
        """Return the load's bursts; none where the rates are planted: see sampling.Device."""
        self._check_fault()
        if "nvmlDeviceGetSamples" in self._board.refuses:
            return ()
        if "nvmlDeviceGetUtilizationRates" in self._planted().calls:
            return ()
        samples = self._bursts.read(self._tick_look().moment.seconds)
        self.answers += bool(samples)
        return samples

    def mig_devices(self) -> list[mig.SimulatedMigDevice]:
        """Return the MIG devices of the board, or of what was planted: see sampling.Device."""
        self._check_fault()
        planted, look = self._planted().mig_slices, self._tick_look()
        slices = self._board.mig_slices if planted is None else planted
        return [mig.SimulatedMigDevice(look, part) for part in slices]

    def mig_gpm(self, gpu_instance: int, metrics: Sequence[int]) -> Mapping[int, float]:
        """Return means since the look before: see sampling.Device."""
        self._check_fault()
        look, before = self._tick_look(), self._mig_before.get(gpu_instance)
        if not self._board.has_gpm:
            return {}
        self._mig_before[gpu_instance] = look
        return {} if before is None else mig.profile(gpu_instance, metrics, look, before)

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

    def _read_gpm(self) -> dict[int, float]:
        """Return means since the tick before; none at the first tick and after a hole."""
        self._check_fault()
        if not self._board.has_gpm:
            return {}
        look, before = self._tick_look(), self._gpm_before
        elapsed = look.moment.seconds - before.moment.seconds if before else 0.0
        if before and elapsed < MIN_WINDOW_SECONDS:
            return {}
        self._gpm_before = look
        if before is None or elapsed > self.max_gap_seconds:
            return {}
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
