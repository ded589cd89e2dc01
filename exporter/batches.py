"""NVML answers that come many at a time: field values and profiling counters (GPM).

Each batch keeps its buffer and decodes it in one sweep: an eighth of the time of pynvml's way.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import addressof, c_char

import pynvml

MAX_FIELDS = 128  # values in one call
MIN_WINDOW_SECONDS = 0.1  # nvml.h: between two GPM samples
PAIR = 2
SERIAL_WAIT_SECONDS = 0.05

U32 = 0xFFFFFFFF
U64 = 0xFFFFFFFFFFFFFFFF

_ASKED = struct.Struct("=II32x")  # nvmlFieldValue_t up to its scopeId
# nvmlFieldValue_t from its valueType on: nvmlReturn, value
_FIELD = struct.Struct("=24xIIQ")
# nvmlGpmMetric_t: metricId, nvmlReturn, value; three pointers follow
_GPM_METRIC = struct.Struct("=IId24x")


class SerialCalls:
    """Lets one thread at a time into calls that drivers do not take side by side.

    A thread that hangs inside keeps the others waiting for a moment only: its lock is replaced.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for our turn, but not for ever."""
        lock = self._lock
        ours = lock.acquire(timeout=SERIAL_WAIT_SECONDS)
        if not ours:
            self.abandon()
        try:
            yield
        finally:
            if ours:
                lock.release()

    def abandon(self) -> None:
        """Leave the present holder to itself."""
        self._lock = threading.Lock()


class FieldBatch:
    """Field values of one GPU, read with as few nvmlDeviceGetFieldValues calls as can be."""

    def __init__(self, handle: object, fields: Sequence[tuple[int, int]]) -> None:
        """Take (field id, scope id) pairs."""
        self._handle = handle
        self._parts = [
            _Part(fields[start : start + MAX_FIELDS]) for start in range(0, len(fields), MAX_FIELDS)
        ]

    def read(self) -> list[tuple[int, float | None]]:
        """Return (nvmlReturn, value) of each field; the value is None unless that is 0.

        Raises:
            pynvml.NVMLError: a whole call failed.
        """
        return [answer for part in self._parts for answer in part.read(self._handle)]


class _Part:
    def __init__(self, fields: Sequence[tuple[int, int]]) -> None:
        self._count = len(fields)
        self._buffer = (pynvml.c_nvmlFieldValue_t * self._count)()
        for place, ids in enumerate(fields):
            _ASKED.pack_into(self._buffer, place * _ASKED.size, *ids)

    def read(self, handle: object) -> list[tuple[int, float | None]]:
        function = getattr(pynvml.nvmlLib, "nvmlDeviceGetFieldValues", None)
        if function is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        code = function(handle, self._count, self._buffer)
        if code:
            raise pynvml.NVMLError(code)
        return [
            (code, None if code else decoder(value_type)(bits))
            for value_type, code, bits in _FIELD.iter_unpack(self._buffer)
        ]


def decode(value_type: int, bits: int) -> float | None:
    """Return the number in the 64 bits of an nvmlValue_t, or None for "no value".

    The type of one and the same field differs between drivers (nvmlValueType_t).
    """
    return decoder(value_type)(bits)


def decoder(value_type: int) -> Callable[[int], float | None]:
    """Return what decodes many numbers of one type."""
    return _DECODERS.get(value_type, _nothing)


def _nothing(_bits: int) -> float | None:
    return None


def _double(bits: int) -> float | None:
    number: float = struct.unpack("=d", struct.pack("=Q", bits))[0]
    return number if math.isfinite(number) else None


_DECODERS: dict[int, Callable[[int], float | None]] = {
    0: _double,
    1: lambda bits: None if bits & U32 == U32 else bits & U32,  # unsigned int
    2: lambda bits: None if bits == U64 else bits,  # unsigned long
    3: lambda bits: None if bits == U64 else bits,  # unsigned long long
    4: lambda bits: bits - (bits >> 63 << 64),  # signed long long
    5: lambda bits: (bits & U32) - ((bits & U32) >> 31 << 32),  # signed int
    6: lambda bits: bits & 0xFFFF,  # unsigned short
}


class GpmSamples:
    """A GPU's places for profiling samples, had from the driver at their first use.

    There are two for the GPU, and two for each of its GPU instances (MIG) that was ever profiled.
    They are kept, also for when the GPU is opened again, until NVML is shut down: giving them back
    is one more call that a sick GPU may hang in, and a finalizer may run in any thread, amid any
    other call.
    """

    def __init__(self) -> None:
        self._had: dict[int | None, list[object]] = {}

    def pair(self, gpu_instance: int | None = None) -> tuple[object, object]:
        """Return the two of the GPU, or of an instance; raises pynvml.NVMLError."""
        had = self._had.setdefault(gpu_instance, [])
        while len(had) < PAIR:
            had.append(pynvml.nvmlGpmSampleAlloc())
        return had[0], had[1]

    def free(self) -> None:
        """Give all back, before NVML is shut down; raises pynvml.NVMLError."""
        for had in self._had.values():
            while had:
                pynvml.nvmlGpmSampleFree(had.pop())


class GpmBatch:
    """Profiling counters over the time between two reads (Hopper and later).

    `sample` has the driver fill one of the two places that there are.
    """

    def __init__(
        self,
        sample: Callable[[object], object],
        metrics: Sequence[int],
        places: tuple[object, object],
    ) -> None:
        self._sample = sample
        self._request = pynvml.c_nvmlGpmMetricsGet_t()
        self._request.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        self._request.numMetrics = len(metrics)
        for slot, metric in zip(self._request.metrics, metrics, strict=False):
            slot.metricId = metric
        self._answers = (c_char * (_GPM_METRIC.size * len(metrics))).from_address(
            addressof(self._request.metrics)
        )
        self._last, self._next = places
        self._last_at: float | None = None

    def read(self, now: float, max_gap_seconds: float = math.inf) -> dict[int, float]:
        """Return the counters by metric id; without those that this tick has no value for.

        Empty at the first read, and after a hole longer than `max_gap_seconds`.

        Raises:
            pynvml.NVMLError: a call failed.
        """
        before = self._last_at
        if before is not None and now - before < MIN_WINDOW_SECONDS:
            return {}
        self._last_at = None
        self._sample(self._next)
        self._last, self._next, self._last_at = self._next, self._last, now
        if before is None or now - before > max_gap_seconds:
            return {}
        self._request.sample1, self._request.sample2 = self._next, self._last
        pynvml.nvmlGpmMetricsGet(self._request)
        return {
            metric: value
            for metric, code, value in _GPM_METRIC.iter_unpack(self._answers)
            if code == 0 and math.isfinite(value)
        }
