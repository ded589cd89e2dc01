"""XID errors of the simulated node: planted by whoever starts it, at times of the scenario."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

from exporter.frozen import dataclass
from exporter.sampling import FoundGpu

LOOK_SECONDS = 0.05

_PLANTED = re.compile(r"(\d{1,9}(?:\.\d{1,3})?):(\d{1,3}):(\d{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class PlantedXid:
    """An XID error that a GPU will have, so many seconds after the start."""

    after_seconds: float
    gpu: int
    xid: int


def planted_xid(text: str, gpus: int) -> PlantedXid:
    """Return the error that a flag names, on a node of so many GPUs.

    Raises:
        ValueError: it is not SECONDS:GPU:XID, or there is no such GPU.
    """
    found = _PLANTED.fullmatch(text)
    if found is None or not int(found[3]):
        raise ValueError(f'"{text}" is not SECONDS:GPU:XID, as in 30:3:79')
    if int(found[2]) >= gpus:
        raise ValueError(f'"{text}" names GPU {found[2]}, and there are {gpus}, from 0 on')
    return PlantedXid(float(found[1]), int(found[2]), int(found[3]))


class SimulatedXidWatch:
    """Tells of the planted errors of the GPUs that were added: see sampling.XidWatch."""

    def __init__(
        self, xids: Sequence[PlantedXid], clock: Callable[[], float], start: float
    ) -> None:
        self._clock = clock
        self._start = start
        self._to_come = sorted(xids, key=lambda xid: xid.after_seconds)
        self._uuids: dict[int, str] = {}

    def add(self, gpu: FoundGpu) -> bool:
        """Watch this GPU too."""
        self._uuids[gpu.index] = gpu.uuid
        return True

    def wait(self, seconds: float) -> tuple[str, int] | None:
        """Return the next error that is due, or None after `seconds` of real time."""
        deadline = time.monotonic() + seconds
        while True:
            now = self._clock() - self._start
            for xid in self._to_come:
                if xid.after_seconds <= now and xid.gpu in self._uuids:
                    self._to_come.remove(xid)
                    return self._uuids[xid.gpu], xid.xid
            if (left := deadline - time.monotonic()) <= 0:
                return None
            time.sleep(min(left, LOOK_SECONDS) if self._to_come else left)

    def close(self) -> None:
        """Tell no more."""
        self._to_come = []
