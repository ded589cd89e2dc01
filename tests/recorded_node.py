"""A simulated node whose flight is recorded, at times that the test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from scripted import Clock

from exporter.board import Plan
from exporter.catalogue import GPU_READERS
from exporter.config import Config, FlightRecorder
from exporter.poll import Poller, Sources
from exporter.recorder.decode import Decoder, read
from exporter.recorder.flight import Recorder, settings
from exporter.recorder.library import Recording, list_recordings
from exporter.recorder.model import Item, Sample, Series
from exporter.recorder.summary import series_of
from exporter.rules import Engine
from exporter.sampling import Fault
from exporter.scaleout.model import EventKind, RuleEvent
from exporter.simulate import SimulatedDriver
from exporter.snapshot import Build, Reload, Snapshot

EPOCH = 1_763_715_600.0  # 2025-11-21 09:00:00 UTC
PLAN = Plan(
    readers=GPU_READERS,
    fast_seconds=1.0,
    slow_seconds=30.0,
    blocking_seconds=5.0,
    deadline_seconds=0.5,
)


class Node:
    """A simulated node, read once a second of its own clock."""

    def __init__(self, profile: str) -> None:
        self.clock = Clock()
        self.faults: dict[int, Fault] = {}  # by GPU; from the next tick on
        driver = SimulatedDriver(profile, self.clock, faults=self.faults)
        self._poller = Poller(
            Sources(
                driver,
                Build("1.0.0", "3.10", simulated=True),
                lambda: None,
                self.clock,
                driver.processes(EPOCH),
            ),
            PLAN,
            (),
            Reload(successful=True, success_timestamp_seconds=EPOCH),
        )

    def tick(self) -> Snapshot:
        """Return the node one second later."""
        self.clock.seconds += 1
        return self._poller.tick()


class Flight:
    """A node, its rules and its recorder, wired as the daemon wires them.

    Each tick waits until the recorder's thread has written all there is.
    """

    def __init__(self, storage: Path, profile: str = "t4", config: Config | None = None) -> None:
        self.config = config or Config()
        self.storage = storage
        self.node = Node(profile)
        self.wall = EPOCH
        self.recorder = Recorder(storage, settings(self.config), "node-7")
        self._engine = Engine(self.config.rules, (), {}, 1.0)

    def tick(self, *events: RuleEvent) -> Snapshot:
        """Go on by a second; rules tell by themselves only in `fly`."""
        snapshot = self.node.tick()
        self.wall += 1
        self.recorder.add(snapshot, self.wall)
        for event in events:
            self.recorder.on_event(event)
        self.settle()
        return snapshot

    def fly(self, seconds: int) -> list[RuleEvent]:
        """Go on by some seconds with the real rules; return what they told."""
        told: list[RuleEvent] = []
        for _ in range(seconds):
            events = self._engine.observe(self.tick(), self.wall)
            for event in events:
                self.recorder.on_event(event)
            self.settle()
            told += events
        return told

    def settle(self) -> None:
        """Wait until all commands are carried out."""
        self.recorder._writer._commands.join()

    def event(self, kind: EventKind, rule: str = "GpuMemoryHigh") -> RuleEvent:
        """Return what a rule would tell now."""
        return RuleEvent(rule, kind, f"{rule} is", "", self.wall - 5, self.wall, (), ("record",))

    def firing(self, rule: str = "GpuMemoryHigh") -> RuleEvent:
        """Return that a rule fires."""
        return self.event(EventKind.FIRING, rule)

    def resolved(self, rule: str = "GpuMemoryHigh") -> RuleEvent:
        """Return that a rule ended."""
        return self.event(EventKind.RESOLVED, rule)

    def only(self) -> Recording:
        """Return the one recording there is."""
        (recording,) = list_recordings(self.storage)
        return recording


TakeOff = Callable[..., Flight]


@contextmanager
def flights(storage: Path) -> Iterator[TakeOff]:
    """Give what makes a Flight below storage, or elsewhere; their threads end with the test."""
    begun: list[Flight] = []

    def begin(profile: str = "t4", config: Config | None = None, at: Path = storage) -> Flight:
        begun.append(Flight(at, profile, config))
        return begun[-1]

    yield begin
    for flight in begun:
        flight.recorder.close()


def recording_config(**changes: float) -> Config:
    """Return the default config with other values for the recorder."""
    record, *others = Config().actions
    recorder = replace(FlightRecorder(), **changes)  # type: ignore[arg-type]  # counts are whole
    return replace(Config(), actions=(replace(record, flight_recorder=recorder), *others))


def items_of(data: Path) -> list[Item]:
    """Return all that a data file holds."""
    return list(read(data, Decoder()))


def samples_of(recording: Recording) -> list[Sample]:
    """Return the samples of a recording."""
    return [item for item in recording.items() if isinstance(item, Sample)]


def of_gpu(snapshot: Snapshot, gpu: int, metric: str) -> Series:
    """Return the series of a metric of one GPU."""
    return series_of(metric, str(gpu), snapshot.gpus[gpu].uuid)
