"""The MIG devices of one GPU behind NVML: they come and go, and their handles with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pynvml

from exporter.batches import U32, U64, GpmBatch, GpmSamples, SerialCalls
from exporter.refusals import Refusals
from exporter.returns import (
    DRIVER_GONE,
    INVALID_ARGUMENT,
    NO_PERMISSION,
    NOTHING_YET,
    REFUSED,
    error_name,
    raise_for,
)
from exporter.sampling import ReadFailedError

# No MIG device at this index, or none any more, or none that we may see.
NOT_THERE = {INVALID_ARGUMENT, NOTHING_YET, NO_PERMISSION}
MAX_DEVICES = MAX_GPU_INSTANCES = 32  # a driver that tells of more is not believed

_CALLS: dict[str, Callable[..., Any]] = vars(pynvml)


class NvmlMigDevice:
    """A MIG device as it was found: see sampling.MigDevice."""

    def __init__(self, handle: object, refusals: Refusals) -> None:
        self._handle = handle
        self._refusals = refusals

    def ask(self, call: str, *args: object) -> Any:  # noqa: ANN401  each call has its own type
        """Return what `call` answers, or None: no such reading, or no such MIG device any more."""
        question = ("MIG", call, args)
        if self._refusals.holds(question):
            return None
        try:
            answer = _CALLS[call](self._handle, *args)
        except pynvml.NVMLError as error:
            if error.value not in NOT_THERE:
                _refuse_or_fail(self._refusals, question, error.value)
            return None
        except UnicodeDecodeError:
            raise ReadFailedError("invalid_text") from None
        return None if answer.__class__ is int and answer in (U32, U64) else answer


class Partitions:
    """The MIG devices of one GPU, and profiling counters of its GPU instances."""

    def __init__(
        self, handle: object, samples: GpmSamples, serial: SerialCalls, refusals: Refusals
    ) -> None:
        self._handle = handle
        self._samples = samples
        self._serial = serial
        self._refusals = refusals
        self._batches: dict[int, GpmBatch] = {}  # by GPU instance

    def devices(self, count: int) -> list[NvmlMigDevice]:
        """Look for MIG devices at `count` indexes, with gaps; handles of the last look are dead."""
        found = []
        for index in range(min(count, MAX_DEVICES)):
            try:
                handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(self._handle, index)
            except pynvml.NVMLError as error:
                if error.value in NOT_THERE:
                    continue
                raise_for(error.value)
            found.append(NvmlMigDevice(handle, self._refusals))
        return found

    def profile(self, gpu_instance: int, metrics: Sequence[int], now: float) -> Mapping[int, float]:
        """Return profiling counters of a GPU instance since it was asked before."""
        if gpu_instance >= MAX_GPU_INSTANCES or self._refusals.holds(Partitions):
            return {}
        try:
            if gpu_instance not in self._batches:
                self._batches[gpu_instance] = GpmBatch(
                    lambda sample: pynvml.nvmlGpmMigSampleGet(self._handle, gpu_instance, sample),
                    metrics,
                    self._samples.pair(gpu_instance),
                )
            with self._serial.turn():
                return self._batches[gpu_instance].read(now)
        except pynvml.NVMLError as error:
            if error.value not in NOT_THERE:  # or the sample before is of another layout
                _refuse_or_fail(self._refusals, Partitions, error.value)
            return {}


def _refuse_or_fail(refusals: Refusals, question: object, code: int) -> None:
    """Remember a refusal; raise what failed.

    Whether the GPU is lost, its own readings tell: a MIG device may be out of order alone.
    """
    if code in REFUSED:
        refusals.add(question)
    elif code in DRIVER_GONE:
        raise_for(code)
    else:
        raise ReadFailedError(error_name(code))
