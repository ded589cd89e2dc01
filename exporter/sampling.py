"""The seam to a driver: what a group of readings may ask of a GPU, and how it fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from exporter.fields import Field
from exporter.frozen import dataclass

T = TypeVar("T")


class Tier(Enum):
    """How often a group is read; the periods stand in the config's section `poll`."""

    FAST = "fast"
    MEDIUM = "medium"  # of the host alone, every few seconds: dear to read, asked for over minutes
    SLOW = "slow"
    MIG = "mig"  # MIG devices, which may be many, and come and go
    BLOCKING = "blocking"  # calls that wait on purpose: on a thread of their own
    STATIC = "static"  # once, and again after a GPU came back

    __hash__ = object.__hash__  # Enum's own is in Python, and asked for a hundred times a tick


class Fault(Enum):
    """Why a GPU gives no readings: the label `reason` of gpu_fault."""

    LOST = "lost"
    HUNG = "hung"
    RESET_REQUIRED = "reset_required"
    NO_PERMISSION = "no_permission"
    ERROR = "error"


class ReadFailedError(Exception):
    """A reading failed at this tick; its group is absent until the next one.

    Attributes:
        error: the driver's word for it, as the label `error` carries it.
    """

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


class DeviceGoneError(ReadFailedError):
    """This GPU answers nothing any more; the others are not touched by it."""

    def __init__(self, error: str, fault: Fault) -> None:
        super().__init__(error)
        self.fault = fault


class DriverGoneError(ReadFailedError):
    """The driver itself went away; only a new process can load another one."""


class DriverAbsentError(Exception):
    """There is no usable driver here now; the text says why and what would help."""


class FieldRequest(NamedTuple):
    """A field value to be read in the batch of a tier.

    `scope` is the link of a per-link field, or fields.ALL_LINKS for their sum. With `instead_of`
    it is read only on boards that have refused that one.
    """

    field: Field
    scope: int = 0
    instead_of: FieldRequest | None = None


class RunningProcess(NamedTuple):
    """A process in an answer of nvmlDeviceGet{Compute,Graphics,MPSCompute}RunningProcesses.

    None where the driver does not say; the instances are those of MIG.
    """

    pid: int
    used_bytes: int | None
    gpu_instance: int | None
    compute_instance: int | None


class ProcessSample(NamedTuple):
    """A process in an answer of nvmlDeviceGetProcessesUtilizationInfo; shares in percent.

    None: this driver does not tell of that engine.
    """

    pid: int
    at_microseconds: int
    sm: int
    memory: int
    encoder: int
    decoder: int
    jpeg: int | None
    ofa: int | None


# When it was taken, in microseconds of the driver's own clock, and percent since the one before;
# None: the driver gave no number.
LoadSample = tuple[int, float | None]


class MigDevice(Protocol):
    """A MIG device as this reading found it; it may be gone at the next question."""

    def ask(self, call: str, *args: object) -> Any:  # noqa: ANN401  each call has its own type
        """Return what the NVML function `call` answers, or None: no such reading, or it is gone.

        Raises:
            ReadFailedError: the call failed at this time.
            DriverGoneError: the driver was unloaded or replaced.
        """


class Device(Protocol):
    """One GPU, asked one question at a time."""

    @property
    def max_gap_seconds(self) -> float:
        """Longest time between two readings that a rate or an integral may bridge."""

    def now(self) -> float:
        """Return the monotonic clock, in seconds."""

    def ask(self, call: str, *args: object) -> Any:  # noqa: ANN401  each call has its own type
        """Return what the NVML function `call` answers, or None: the board has no such reading.

        Raises:
            ReadFailedError: the call failed at this time.
            DeviceGoneError: the GPU is lost or needs a reset.
            DriverGoneError: the driver was unloaded or replaced.
        """

    def field(self, field: Field, scope: int = 0) -> float | None:
        """Return a field value from this tick's batch, or None; raises as `ask` does."""

    def gpm(self) -> Mapping[int, float]:
        """Return the profiling counters over the last tick, those that there are, by metric.

        Raises as `ask` does.
        """

    def utilization_samples(self) -> Sequence[LoadSample]:
        """Return the samples of utilization since the last of the call before, and that one first.

        Only the newest at first; none where nothing is new, or the driver buffers none. Raises
        DeviceGoneError and DriverGoneError.
        """

    def mig_devices(self) -> Sequence[MigDevice]:
        """Return the MIG devices that are there now; raises as `ask` does."""

    def mig_gpm(self, gpu_instance: int, metrics: Sequence[int]) -> Mapping[int, float]:
        """Return profiling counters of a GPU instance since they were asked for before.

        Those that there are, by metric; raises as `ask` does.
        """


@dataclass(frozen=True, slots=True)
class Reader(Generic[T]):
    """A group of readings that are taken together.

    `group` is the attribute of snapshot.Gpu that it fills, `collector` the name that switches it.
    `read` gets the group's previous reading, for rates and integrals. A blocking one returns None
    where there is nothing to read, and is not asked again until the GPU is opened anew.
    `fields` and `gpm` are read in one batch per tier before any `read` of that tier.
    """

    group: str
    collector: str
    tier: Tier
    read: Callable[[Device, T | None], T | None]
    fields: tuple[FieldRequest, ...] = ()
    gpm: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DriverInfo:
    """Versions, as the driver writes them; "" where it does not say."""

    driver_version: str
    nvml_version: str
    cuda_version: str


@dataclass(frozen=True, slots=True)
class FoundGpu:
    """A GPU of the driver's list; its UUID is "" until it was opened and asked.

    One that is known not to be openable has a fault.
    """

    index: int
    uuid: str
    fault: Fault | None = None


class OpenDevice(Device, Protocol):
    """A GPU as the poller holds it. Belongs to one thread at a time."""

    denied: bool  # some fast reading was refused for want of permission
    answers: int  # how many readings it has given so far

    def begin(self, tier: Tier) -> None:
        """Start a tick: batches of the tick before are forgotten."""


class XidWatch(Protocol):
    """XID errors as the driver tells them at once. Belongs to one thread."""

    def add(self, gpu: FoundGpu) -> bool:
        """Tell of this GPU too, from now on; return False where the board or driver cannot.

        Raises as Device.ask does.
        """

    def wait(self, seconds: float) -> tuple[str, int] | None:
        """Return UUID and number of the next error, or None: none came in that time.

        Raises as Device.ask does.
        """

    def close(self) -> None:
        """Tell no more."""


class Driver(Protocol):
    """The driver of a node: NVML, or a simulation of it."""

    def connect(self) -> tuple[DriverInfo, tuple[FoundGpu, ...]]:
        """Load and initialise the driver; list its GPUs. May block for seconds.

        Raises:
            DriverAbsentError: no driver, no library, no permission, or versions that do not match.
            DriverGoneError: another driver has been loaded, which only a new process can use.
        """

    def open(
        self, gpu: FoundGpu, readers: tuple[Reader[Any], ...], max_gap_seconds: float
    ) -> OpenDevice:
        """Open a GPU for these readers; again after it was lost. Raises as Device.ask does."""

    def close(self) -> None:
        """Let go of the driver, so that it can be unloaded; `connect` takes it up again.

        Nothing else of it may be in use. May block for seconds.
        """

    def abandon(self) -> None:
        """A call did not return: whatever it holds must not stop the others."""

    def watch_xids(self) -> XidWatch:
        """Begin to watch for XID errors, once connected. Raises as Device.ask does."""

    def pci_gpus(self) -> int | None:
        """Return how many NVIDIA GPUs the PCI bus shows, or None where that cannot be seen."""
