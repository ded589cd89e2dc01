"""A driver that buffers samples of utilization, behind pynvml's library, on a clock of the test."""

from __future__ import annotations

import ctypes
import struct
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import SimpleNamespace

import pynvml
import pytest

from exporter.gpu.utilization import Utilization, read
from exporter.load_samples import LoadSamples
from exporter.sampling import LoadSample

SECOND = 1_000_000
START = 100_000 * SECOND
UINT = 1  # nvmlValueType_t


class SampledGpu:
    """One GPU, read by the exporter's own code from here on. Times in microseconds.

    Attributes:
        level: The load, in percent, of the period before a sample; what it is not told otherwise,
            a call of nvmlDeviceGetUtilizationRates answers with.
        rate: What such a call answers.
        skew: How far the driver's clock is ahead.
        forgets: Whether the driver answers with all that it has, whatever the cursor.
        hides: Whether the driver says that nothing is new.
        kind: nvmlValueType_t.
        bits: How a level is written.
        keep: So many samples are kept.
        asked: Arguments of each call: the cursor, and whether it was for the size.
    """

    max_gap_seconds = 3.0

    def __init__(self, level: Callable[[int], int], period: int = SECOND // 5) -> None:
        self.level = level
        self.rate: int | None = None
        self.skew = 0
        self.forgets = self.hides = False
        self.kind = UINT
        self.bits: Callable[[int], int] = lambda level: 0xDEADBEEF << 32 | level
        self.keep = 71
        self.asked: list[tuple[int, bool]] = []
        self.at = START
        self.reading: Utilization | None = None
        self._period = period
        self._ring: deque[tuple[int, int]] = deque()
        self._taken = START
        self._samples = LoadSamples(None, 0)
        self._advance(0)

    def tick(self, after: int = SECOND) -> Utilization:
        """Let time pass, and read."""
        self._advance(after)
        self.reading = read(self, self.reading)  # type: ignore[arg-type]  # all that it asks for
        return self.reading

    def pause(self, after: int) -> None:
        """Let time pass, and read nothing."""
        self._advance(after)

    def now(self) -> float:
        """Return the time in seconds."""
        return self.at / SECOND

    def ask(self, _call: str) -> SimpleNamespace:
        """Return the rates."""
        level = self.level(self.at) if self.rate is None else self.rate
        return SimpleNamespace(gpu=level, memory=0)

    def utilization_samples(self) -> Sequence[LoadSample]:
        """Return what the exporter's own binding gives."""
        return self._samples.read() or ()

    def percent_microseconds(self, since: int, until: int) -> int:
        """Return the true integral of the load."""
        edges = [since, *range(since - since % self._period + self._period, until, self._period)]
        return sum(self.level(b) * (b - a) for a, b in pairwise([*edges, until]))

    def answer(self, *args: object) -> int:
        """Answer nvmlDeviceGetSamples."""
        _, sort, since, kind, count, buffer = args
        assert sort == 1
        cursor: int = since.value  # type: ignore[attr-defined]
        room = count._obj  # type: ignore[attr-defined]
        self.asked.append((cursor, buffer is None))
        kind._obj.value = self.kind  # type: ignore[attr-defined]
        if buffer is None:
            room.value = self.keep
            return 0
        new = [] if self.hides else [s for s in self._ring if s[0] > cursor or self.forgets]
        if not new:
            return int(pynvml.NVML_ERROR_NOT_FOUND)
        if len(new) > room.value:
            return int(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        assert isinstance(buffer, ctypes.Array)
        room.value = len(new)
        for number, (stamp, level) in enumerate(new):
            struct.pack_into("=QQ", buffer, 16 * number, stamp, self.bits(level))
        return 0

    def _advance(self, by: int) -> None:
        self.at += by
        while self._taken + self._period <= self.at:
            self._taken += self._period
            self._ring.append((self._taken + self.skew, self.level(self._taken)))
        while len(self._ring) > self.keep:
            self._ring.popleft()


def sampled(
    patch: pytest.MonkeyPatch, level: Callable[[int], int], period: int = SECOND // 5
) -> SampledGpu:
    """Return a GPU in pynvml's place, read once."""
    gpu = SampledGpu(level, period)
    patch.setattr(pynvml, "nvmlLib", SimpleNamespace(nvmlDeviceGetSamples=gpu.answer))
    gpu.pause(20 * SECOND)
    gpu.tick(0)
    return gpu
