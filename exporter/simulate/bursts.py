"""How the load of a simulated GPU comes in bursts, as its driver's buffered samples tell it.

Every second has four fifths above the scenario's load, and one as far below it: a batch of requests
is done, and the next one is not there yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from exporter.sampling import LoadSample

PER_SECOND = 5
BUFFERED = 71  # samples that a driver keeps


class Bursts:
    """The samples of one GPU, and how far they were read: see sampling.Device.

    Args:
        load_ratio: The load so many seconds after the scenario's start.
        gpu: The GPU's index, which says what part of a second is the lull.
    """

    def __init__(self, load_ratio: Callable[[float], float], gpu: int) -> None:
        self._load_ratio = load_ratio
        self._lull = gpu % PER_SECOND
        self._last: int | None = None

    def read(self, seconds: float) -> Sequence[LoadSample]:
        """Return what there is `seconds` after the start."""
        newest = int(seconds * PER_SECOND)
        last, self._last = self._last, newest
        if last is None:
            return (self._sample(newest),)
        if newest <= last:
            return ()
        first = max(last, newest - BUFFERED)
        return [self._sample(number) for number in range(first, newest + 1)]

    def _sample(self, number: int) -> LoadSample:
        """Return the sample that tells of the 200 ms before it."""
        load = self._load_ratio((number - 0.5) / PER_SECOND)
        swing = min(1.0 - load, load / (PER_SECOND - 1))
        if number % PER_SECOND == self._lull:
            swing *= 1 - PER_SECOND
        return number * 1_000_000 // PER_SECOND, round(100 * (load + swing))
