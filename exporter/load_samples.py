"""Samples of a GPU's utilization, which the driver takes several times a second and buffers.

One nvmlDeviceGetSamples call gives all that came since the last one. pynvml makes two and a new
buffer each time.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Sequence
from ctypes import Array, byref, c_char, c_uint, c_ulonglong, create_string_buffer

import pynvml

from exporter.batches import decoder
from exporter.facts import facts
from exporter.refusals import REPROBE_SECONDS
from exporter.returns import NOTHING_YET, is_passing
from exporter.sampling import LoadSample

log = logging.getLogger(__name__)

GPU_UTILIZATION = 1  # nvmlSamplingType_t
MOST = 1 << 12  # samples of one buffer; 71 were seen, and a larger answer is a driver's mistake
# So many calls with nothing new, and the cursor is taken for one that the driver's clock, set back,
# will not reach for long.
QUIET_CALLS = 5

SLOW_SECONDS = 0.005  # of one call; 1.5 ms were seen
LAST_CALLS, TOO_MANY = 15, 8  # bad ones among the last

_SAMPLE = struct.Struct("=QQ")  # nvmlSample_t: timeStamp, the 64 bits of sampleValue
_NO_FAILURE = {0, NOTHING_YET, pynvml.NVML_ERROR_INSUFFICIENT_SIZE}


class LoadSamples:
    """The buffered samples of one GPU, and how far they were read.

    A timestamp of the driver, in microseconds, is compared with others of its own alone.
    """

    def __init__(self, handle: object, index: int) -> None:
        self._handle = handle
        self._index = index
        self._since, self._kind, self._count = c_ulonglong(), c_uint(), c_uint()
        self._to_kind, self._to_count = byref(self._kind), byref(self._count)
        self._buffer: Array[c_char] | None = None
        self._last: LoadSample | None = None
        self._quiet = 0
        self._bad = 0  # a bit for each of the last calls
        self._told = False

    def read(self) -> Sequence[LoadSample] | None:
        """Return what came since the last sample of the read before, and that one first.

        The newest alone at first, and when the driver's clock was set back; none if there is
        nothing new. None: not worth it, because most of the last calls took long or failed.

        Raises:
            pynvml.NVMLError: the GPU has none, or is gone.
        """
        started = time.perf_counter()
        try:
            new, failed = self._new(), False
        except pynvml.NVMLError as error:
            if not is_passing(error.value):
                raise
            new, failed = [], True
        slow = time.perf_counter() - started > SLOW_SECONDS
        self._bad = (self._bad << 1 | (failed or slow)) & ((1 << LAST_CALLS) - 1)
        if self._bad.bit_count() >= TOO_MANY:
            self._bad = 0
            self._tell()
            return None
        return self._since_last(new)

    def _since_last(self, new: list[LoadSample]) -> Sequence[LoadSample]:
        before = self._last
        if not new:
            self._quiet += 1
            if self._quiet >= QUIET_CALLS:
                self._last, self._quiet = None, 0
            return ()
        self._last, self._quiet = new[-1], 0
        return [before, *new] if before else new[-1:]

    def _new(self) -> list[LoadSample]:
        buffer = self._buffer
        if buffer is None:
            self._ask(0, None)
            room = min(max(self._count.value, 1), MOST)
            buffer = self._buffer = create_string_buffer(room * _SAMPLE.size)
        room = len(buffer) // _SAMPLE.size
        self._count.value = room
        since = self._last[0] if self._last else 0
        code = self._ask(since, buffer)
        if code == pynvml.NVML_ERROR_INSUFFICIENT_SIZE:
            self._buffer = None  # it has grown: the next read asks for its size again
        if code:
            return []
        decode = decoder(self._kind.value)
        there = memoryview(buffer)[: min(self._count.value, room) * _SAMPLE.size]
        return [(at, decode(bits)) for at, bits in _SAMPLE.iter_unpack(there) if at > since]

    def _ask(self, since: int, buffer: Array[c_char] | None) -> int:
        """Return the code of a call that is no failure: nothing new, or no room, or success."""
        function = getattr(pynvml.nvmlLib, "nvmlDeviceGetSamples", None)
        if function is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        self._since.value = since
        code: int = function(
            self._handle, GPU_UTILIZATION, self._since, self._to_kind, self._to_count, buffer
        )
        if code not in _NO_FAILURE:
            raise pynvml.NVMLError(code)
        return code

    def _tell(self) -> None:
        """Say once that they are given up, however often that is to come."""
        if not self._told:
            log.warning(
                "GPU %d: nvmlDeviceGetSamples fails, or takes more than %.0f ms; utilization is"
                " from one reading a poll now, and samples are tried again every %.0f min",
                self._index,
                1000 * SLOW_SECONDS,
                REPROBE_SECONDS / 60,
                extra=facts(gpu=self._index),
            )
        self._told = True
