"""One GPU behind NVML, asked one question at a time, every answer checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import pynvml

from exporter import lists, structs
from exporter.batches import U32, U64, FieldBatch, GpmBatch, GpmSamples, SerialCalls
from exporter.fields import Field, field_id
from exporter.frozen import dataclass
from exporter.load_samples import LoadSamples
from exporter.partitions import NvmlMigDevice, Partitions
from exporter.refusals import Refusals
from exporter.returns import (
    DRIVER_GONE,
    GONE,
    INVALID_ARGUMENT,
    NO_PERMISSION,
    NOTHING_YET,
    REFUSED,
    error_name,
    raise_for,
)
from exporter.sampling import (
    DeviceGoneError,
    Fault,
    FieldRequest,
    LoadSample,
    Reader,
    ReadFailedError,
    Tier,
)

SENTINELS = (U32, U64)

T = TypeVar("T")

_Value = float | ReadFailedError | None

_CALLS: dict[str, Callable[..., Any]] = vars(pynvml)
_OWN_CALLS = MappingProxyType({**structs.CALLS, **lists.CALLS})


class NvmlDevice:
    """One GPU behind NVML. Not for two threads at a time."""

    def __init__(
        self,
        handle: object,
        index: int,
        driver_version: str,
        readers: tuple[Reader[Any], ...],
        max_gap_seconds: float,
        serial: SerialCalls,
        samples: GpmSamples,
    ) -> None:
        self.max_gap_seconds = max_gap_seconds
        self.denied = False
        self.answers = 0
        self._handle = handle
        self._serial = serial
        self._refusals = Refusals(self.now)
        if lists.are_misread(driver_version):
            self._refusals.add_for_good(lists.RUNNING)
        self._readers, self._driver_version = readers, driver_version
        self._batches: dict[Tier, _Batch] = {}
        self._gpm_ids = sorted({metric for reader in readers for metric in reader.gpm})
        self._gpm_samples = samples
        self._gpm_batch: GpmBatch | None = None
        self._gpm_supported = False
        self._load_samples = LoadSamples(handle, index)
        self._partitions = Partitions(handle, samples, serial, self._refusals)
        self._tier = Tier.STATIC
        # The batches of this tick: read at the first question, or how that failed.
        self._fields: dict[tuple[Field, int], _Value] | ReadFailedError | None = None
        self._gpm: dict[int, float] | ReadFailedError | None = None

    def now(self) -> float:
        """Return the monotonic clock, in seconds."""
        return time.monotonic()

    def begin(self, tier: Tier) -> None:
        """Start a tick: batches of the tick before are forgotten."""
        self._tier, self._fields, self._gpm = tier, None, None

    def ask(self, call: str, *args: object) -> Any:  # noqa: ANN401  each call has its own type
        """Return what the NVML function `call` answers, or None: see sampling.Device."""
        # The argument of a list says from when on, and is another one each time.
        question = call if call in lists.CALLS else (call, args)
        if self._refusals.holds(question):
            return None
        try:
            answer = (_OWN_CALLS.get(call) or _CALLS[call])(self._handle, *args)
        except pynvml.NVMLError as error:
            self._refuse_or_raise(question, error.value)
            return None
        except UnicodeDecodeError:
            raise ReadFailedError("invalid_text") from None
        if answer.__class__ is int and answer in SENTINELS:
            return None
        self.answers += 1
        return answer

    def field(self, field: Field, scope: int = 0) -> float | None:
        """Return a field value from this tick's batch, or None: see sampling.Device."""
        if self._fields is None:
            self._fields = _or_failure(self._read_fields)
        if isinstance(self._fields, ReadFailedError):
            raise self._fields
        value = self._fields.get((field, scope))
        if isinstance(value, ReadFailedError):
            raise value
        return value

    def gpm(self) -> Mapping[int, float]:
        """Return the profiling counters over the last tick: see sampling.Device."""
        if self._gpm is None:
            self._gpm = _or_failure(self._read_gpm)
        if isinstance(self._gpm, ReadFailedError):
            raise self._gpm
        return self._gpm

    def utilization_samples(self) -> Sequence[LoadSample]:
        """Return what the driver has buffered: see sampling.Device."""
        if self._refusals.holds(LoadSamples):
            return ()
        try:
            samples = self._load_samples.read()
        except pynvml.NVMLError as error:
            self._refuse_or_raise(LoadSamples, error.value)
            return ()
        if samples is None:
            self._refusals.add(LoadSamples)
            return ()
        self.answers += bool(samples)
        return samples

    def mig_devices(self) -> Sequence[NvmlMigDevice]:
        """Look for this GPU's MIG devices: see sampling.Device."""
        return self._partitions.devices(self.ask("nvmlDeviceGetMaxMigDeviceCount") or 0)

    def mig_gpm(self, gpu_instance: int, metrics: Sequence[int]) -> Mapping[int, float]:
        """Return profiling counters of a GPU instance: see sampling.Device."""
        if not self._has_gpm():
            return {}
        return self._partitions.profile(gpu_instance, metrics, self.now())

    def _refuse(self, question: object, code: int) -> None:
        # Slower readings may ask for what only root may know.
        self.denied |= code == NO_PERMISSION and self._tier is Tier.FAST
        self._refusals.add(question)

    def _refuse_or_raise(self, question: object, code: int) -> None:
        if code == NOTHING_YET:
            return
        if code not in REFUSED and code != NO_PERMISSION:
            raise_for(code)
        if code == INVALID_ARGUMENT and self._is_handle_dead():
            raise DeviceGoneError(error_name(code), Fault.LOST)
        self._refuse(question, code)

    def _is_handle_dead(self) -> bool:
        """Return whether the handle is the invalid argument: the GPU was reset, or taken out."""
        try:
            pynvml.nvmlDeviceGetIndex(self._handle)
        except pynvml.NVMLError as error:
            return bool(error.value == INVALID_ARGUMENT)
        return False

    def _read_fields(self) -> dict[tuple[Field, int], _Value]:
        batch = self._batch()
        if not batch.requests or self._refusals.holds(FieldBatch):
            return {}
        try:
            with self._serial.turn():
                answers = batch.fields.read()
        except pynvml.NVMLError as error:
            self._refuse_or_raise(FieldBatch, error.value)
            return {}
        values: dict[tuple[Field, int], _Value] = {}
        for key, (code, value) in zip(batch.requests, answers, strict=True):
            if code == 0:
                values[key] = value
                self.answers += value is not None
            elif code in REFUSED or code == NO_PERMISSION:
                self._refuse(batch.requests[key], code)
                self._batches.pop(self._tier, None)  # the next batch goes without it
            elif code in GONE or code in DRIVER_GONE:
                raise_for(code)
            elif code != NOTHING_YET:
                values[key] = ReadFailedError(error_name(code))
        return values

    def _batch(self) -> _Batch:
        """Return this tier's batch: made anew after a refusal, and when one has run out."""
        batch = self._batches.get(self._tier)
        if batch is None or self.now() >= batch.until:
            asked = _requests(self._readers, self._tier, self._driver_version)
            wanted = {(r.field, r.scope): r for r in asked if self._is_wanted(r)}
            batch = self._batches[self._tier] = _Batch(
                wanted,
                FieldBatch(self._handle, [(asked[r], r.scope) for r in wanted.values()]),
                self._refusals.next(asked),
            )
        return batch

    def _is_wanted(self, request: FieldRequest) -> bool:
        substitute_for = request.instead_of
        if substitute_for is not None and not self._refusals.holds(substitute_for):
            return False
        return not self._refusals.holds(request)

    def _has_gpm(self) -> bool:
        if not self._gpm_supported and not self._refusals.holds(GpmSamples):
            support = self.ask("nvmlGpmQueryDeviceSupport")
            self._gpm_supported = bool(support is not None and support.isSupportedDevice)
            if not self._gpm_supported:
                self._refusals.add(GpmSamples)
        return self._gpm_supported

    def _read_gpm(self) -> dict[int, float]:
        if not self._gpm_ids or self._refusals.holds(GpmBatch) or not self._has_gpm():
            return {}
        try:
            if self._gpm_batch is None:
                self._gpm_batch = GpmBatch(
                    lambda sample: pynvml.nvmlGpmSampleGet(self._handle, sample),
                    self._gpm_ids,
                    self._gpm_samples.pair(),
                )
            with self._serial.turn():
                return self._gpm_batch.read(self.now(), self.max_gap_seconds)
        except pynvml.NVMLError as error:
            self._refuse_or_raise(GpmBatch, error.value)
            return {}


@dataclass(frozen=True, slots=True)
class _Batch:
    requests: dict[tuple[Field, int], FieldRequest]  # in the order of `fields`
    fields: FieldBatch
    until: float  # when a refused request is due to be asked again


def _requests(
    readers: tuple[Reader[Any], ...], tier: Tier, driver_version: str
) -> dict[FieldRequest, int]:
    """Return the fields of a tier that this driver knows, with their numbers."""
    numbered = {
        request: field_id(request.field, driver_version)
        for reader in readers
        if reader.tier is tier
        for request in reader.fields
    }
    return {request: number for request, number in numbered.items() if number is not None}


def _or_failure(read: Callable[[], T]) -> T | ReadFailedError:
    try:
        return read()
    except ReadFailedError as failed:
        return failed
