"""A driver whose every answer a test can set: values, errors, and calls that hang."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from exporter.fields import Field
from exporter.sampling import (
    DriverAbsentError,
    DriverInfo,
    FoundGpu,
    LoadSample,
    MigDevice,
    Reader,
    ReadFailedError,
    Tier,
    XidWatch,
)

GIB = 1 << 30


class Clock:
    """A monotonic clock that stands still until it is told."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.seconds


def good_answers() -> dict[str, Any]:
    """Return what a healthy GPU answers, by NVML function."""
    return {
        "nvmlDeviceGetName": "Scripted GPU",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(
            total=80 * GIB, used=20 * GIB, free=59 * GIB, reserved=GIB
        ),
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=50, memory=20),
        "nvmlDeviceGetTemperatureV": 60,
        "nvmlDeviceGetPowerUsage": 300_000,
        "nvmlDeviceGetClockInfo": 1500,
        "nvmlDeviceGetEncoderUtilization": [10, 1000],
        "nvmlDeviceGetPcieThroughput": 1000,
    }


class ScriptedDevice:
    """One GPU. An answer that is an exception is raised; one that is callable is called."""

    max_gap_seconds = 3.0

    def __init__(self, driver: ScriptedDriver, index: int) -> None:
        self.denied = False
        self.answers = 0
        self._driver = driver
        self._index = index

    def now(self) -> float:
        """Return the driver's clock."""
        return self._driver.clock()

    def begin(self, tier: Tier) -> None:
        """Note the tier that is read."""
        self._driver.log.append((self._index, tier))

    def ask(self, call: str, *_args: object) -> Any:
        """Give the scripted answer."""
        answer = self._driver.answers[self._index].get(call)
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = answer(self)
        self.answers += answer is not None
        return answer

    def field(self, field: Field, _scope: int = 0) -> float | None:
        """Answer by the field's name."""
        value: float | None = self.ask(field.name)
        return value

    def gpm(self) -> Mapping[int, float]:
        """Have no profiling counters."""
        return {}

    def utilization_samples(self) -> Sequence[LoadSample]:
        """Give the scripted samples, if there are any."""
        return self.ask("nvmlDeviceGetSamples") or ()

    def mig_devices(self) -> tuple[MigDevice, ...]:
        """Have no MIG devices."""
        return ()

    def mig_gpm(self, _gpu_instance: int, _metrics: Sequence[int]) -> Mapping[int, float]:
        """Have no profiling counters."""
        return {}


class ScriptedDriver:
    """A node of `count` such GPUs."""

    def __init__(self, count: int, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.absent: str | None = None
        self.answers = [good_answers() for _ in range(count)]
        self.log: list[tuple[int, Tier]] = []
        self.opened: list[int] = []
        self.closed = 0

    def connect(self) -> tuple[DriverInfo, tuple[FoundGpu, ...]]:
        """List the GPUs, unless there is no driver."""
        if self.absent is not None:
            raise DriverAbsentError(self.absent)
        found = tuple(FoundGpu(i, f"GPU-{i}") for i in range(len(self.answers)))
        return DriverInfo("580.1", "13.580.1", "13.0"), found

    def open(
        self, gpu: FoundGpu, _readers: tuple[Reader[Any], ...], _max_gap_seconds: float
    ) -> ScriptedDevice:
        """Open a GPU; a scripted answer to "open" may refuse."""
        self.opened.append(gpu.index)
        refusal = self.answers[gpu.index].get("open")
        if refusal is not None:
            raise refusal
        return ScriptedDevice(self, gpu.index)

    def close(self) -> None:
        """Count that it was let go of."""
        self.closed += 1

    def abandon(self) -> None:
        """Hold nothing."""

    def watch_xids(self) -> XidWatch:
        """Tell of no XID errors."""
        raise ReadFailedError("not_supported")

    def pci_gpus(self) -> int | None:
        """Return as many as there are."""
        return len(self.answers)


class Hang:
    """An answer that does not come until it is released."""

    def __init__(self) -> None:
        self._gate = threading.Event()

    def __call__(self, _device: object) -> None:
        """Block."""
        self._gate.wait(60)

    def release(self) -> None:
        """Let every caller go."""
        self._gate.set()
