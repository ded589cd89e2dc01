"""MIG devices of the simulated node: what they answer, in NVML's units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, SimpleNamespace
from typing import Any

from exporter.simulate.board import Memory, MigSlice
from exporter.simulate.counters import PROFILING
from exporter.simulate.look import Look
from exporter.simulate.scenario import scatter

MIB = 1 << 20
EIGHTHS = 8  # memory is cut into these, SMs into sevenths: from 3g on, an instance has one more
SMALL_SLICES = 2


def _memory_mib(memory: Memory, part: MigSlice) -> int:
    eighths = part.slices + 1 if part.slices > SMALL_SLICES else part.slices
    return memory.total_mib * eighths // EIGHTHS


def _name(look: Look, part: MigSlice) -> str | None:
    memory = look.board.memory
    if memory is None:
        return None
    return f"{look.board.name} MIG {part.slices}g.{round(_memory_mib(memory, part) / 1024)}gb"


def _uuid(look: Look, part: MigSlice) -> str:
    """Return an UUID that tells the place and size on the GPU, as the driver's do."""
    place = f"{look.uuid}/{part.gpu_instance}/{part.slices}"
    d = "".join(f"{scatter(f'{place}/{word}'):08x}" for word in range(4))
    return f"MIG-{d[:8]}-{d[8:12]}-{d[12:16]}-{d[16:20]}-{d[20:]}"


def _memory(look: Look, part: MigSlice, _version: int = 1) -> SimpleNamespace | None:
    memory = look.board.memory
    if memory is None:
        return None
    total = _memory_mib(memory, part) * MIB
    used = int(look.moment.memory_share * total) // (2 * MIB) * (2 * MIB)
    return SimpleNamespace(total=total, used=used, free=total - used, reserved=0)


_CALLS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "nvmlDeviceGetUUID": _uuid,
        "nvmlDeviceGetName": _name,
        "nvmlDeviceGetGpuInstanceId": lambda _, part: part.gpu_instance,
        "nvmlDeviceGetComputeInstanceId": lambda _look, _part: 0,
        "nvmlDeviceGetMemoryInfo": _memory,
    }
)


class SimulatedMigDevice:
    """A MIG device at one moment: see sampling.MigDevice."""

    def __init__(self, look: Look, part: MigSlice) -> None:
        self._look = look
        self._part = part

    def ask(self, call: str, *args: object) -> Any:  # noqa: ANN401  each call has its own type
        """Return what the NVML function `call` answers."""
        if call not in _CALLS:
            raise NotImplementedError(f"{call} is not simulated; add it to simulate/mig.py")
        return _CALLS[call](self._look, self._part, *args)


def profile(
    gpu_instance: int, metrics: Sequence[int], look: Look, before: Look
) -> dict[int, float]:
    """Return what a GPU instance did between two looks: each has its own part of the work."""
    part = 0.5 + 0.05 * (gpu_instance % EIGHTHS)
    return {metric: part * PROFILING[metric](look, before) for metric in metrics}
