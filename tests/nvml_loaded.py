"""The fake library inside this process, where pynvml finds it, until the test is over."""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pynvml
from fake_nvml import LIBRARY, FakeNvml
from fake_nvml_log import Calls
from scripted import Clock

from exporter.board import Outcome, Plan, take
from exporter.catalogue import GPU_READERS
from exporter.device import NvmlDevice
from exporter.nvml import NvmlDriver
from exporter.poll import Poller, Sources
from exporter.sampling import FoundGpu, Tier
from exporter.snapshot import Build, Reload

# Times, and what grows with them.
UNSTEADY = (".read_at", ".busy_seconds", ".due_microseconds")

PLAN = Plan(
    readers=GPU_READERS,
    fast_seconds=1.0,
    slow_seconds=30.0,
    blocking_seconds=5.0,
    deadline_seconds=0.5,
)


class Node:
    """A machine of the fake library behind the driver seam, and a clock that the test moves.

    `fake` steers the library by its file, within 10 ms; `put` does it at once.
    """

    def __init__(self, library: ctypes.CDLL, fake: FakeNvml, clock: Clock) -> None:
        self.fake = fake
        self.clock = clock
        self.driver = NvmlDriver()
        self._library = library

    def put(self, *lines: str) -> None:
        """Set `key=value` lines of the scenario, over those set before."""
        assert self._library.fakenvml_set("\n".join(lines).encode()) == 0, lines

    def reset(self) -> None:
        """Take all lines back."""
        assert self._library.fakenvml_set(None) == 0

    def connect(self, *machine: str) -> None:
        """Initialise NVML on a machine; its readings stand still at second 100."""
        self.put("time=100", *machine)
        self.driver.connect()

    def device(self, index: int = 0) -> NvmlDevice:
        """Open a GPU of the machine, for all readers there are."""
        return self.driver.open(FoundGpu(index, ""), GPU_READERS, PLAN.max_gap_seconds)

    def poller(self, plan: Plan) -> Poller:
        """Return a poller that has found the driver and read every GPU; host left out."""
        sources = Sources(self.driver, Build("1", "3", simulated=False), lambda: None, self.clock)
        reload = Reload(successful=True, success_timestamp_seconds=0)
        poller = Poller(sources, plan, (), reload)
        while poller.tick().driver is None:  # looking for it has a thread of its own
            self.clock.seconds += 5
        return poller

    def read(
        self, device: NvmlDevice, *tiers: Tier, last: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Let a second pass and read these tiers, all unless told; nothing of it may fail."""
        outcome = self.take(device, *tiers, last=last)
        assert (outcome.errors, outcome.fault, outcome.driver_gone) == ({}, None, "")
        return outcome.readings

    def take(self, device: NvmlDevice, *tiers: Tier, last: dict[str, Any] | None = None) -> Outcome:
        """Let a second pass and read these tiers as the poller does, failures and all."""
        self.clock.seconds += 1
        known = FoundGpu(0, "GPU-of-this-device")
        return take(self.driver, known, device, PLAN, tiers or tuple(Tier), last or {})

    def calls(self) -> Calls:
        """Return what the library has been asked."""
        return self.fake.calls()


@contextlib.contextmanager
def loaded(folder: Path, clock: Clock) -> Iterator[Node]:
    """Load the library of `folder`; it is gone from the process afterwards.

    pynvml opens libnvidia-ml.so.1 by its name, and gets the library of that name that is there.
    """
    assert pynvml.nvmlLib is None, "an earlier test has left a driver library loaded"
    with FakeNvml(folder) as fake, _environment(fake.env()):
        library = ctypes.CDLL(str(folder / LIBRARY))
        try:
            yield Node(library, fake, clock)
        finally:
            _unload(library)


@contextlib.contextmanager
def _environment(wanted: dict[str, str]) -> Iterator[None]:
    names = [name for name in wanted if name.startswith("FAKE_NVML_")]
    os.environ.update({name: wanted[name] for name in names})
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]


def _unload(library: ctypes.CDLL) -> None:
    second, pynvml.nvmlLib = pynvml.nvmlLib, None
    pynvml._nvmlGetFunctionPointer_cache.clear()
    for handle in filter(None, (second, library)):
        _ctypes.dlclose(handle._handle)
    with contextlib.suppress(OSError):
        ctypes.CDLL(LIBRARY, mode=os.RTLD_NOLOAD)
        raise AssertionError("the fake library is still in this process")


def flat(readings: dict[str, Any]) -> dict[str, Any]:
    """Return every value that is there, by its path like "clocks.hertz.sm"; without times.

    A name that the board does not tell is "", and is not there.
    """
    values: dict[str, Any] = {}
    for group, reading in readings.items():
        for field in dataclasses.fields(reading) if reading else ():
            value = getattr(reading, field.name)
            parts = value.items() if isinstance(value, Mapping) else [("", value)]
            values |= {f"{group}.{field.name}.{key}".rstrip("."): part for key, part in parts}
    return {
        name: value
        for name, value in values.items()
        if value not in (None, "") and not name.endswith(UNSTEADY)
    }
