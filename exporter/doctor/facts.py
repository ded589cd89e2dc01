"""All that the doctor judges by, read before anything is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from exporter.frozen import dataclass
from exporter.snapshot import Gpu, Snapshot
from exporter.xid.ledger import Count

PASSED_ON = ("vfio-pci", "xen-pciback")  # kernel drivers that keep a GPU for virtual machines


@dataclass(frozen=True, slots=True)
class PciGpu:
    """A GPU by NVIDIA on the PCI bus, as the kernel sees it.

    Attributes:
        address: As in gpu_info: "0000:1b:00.0".
        driver: Which kernel driver has it; "" for none.
        numa_node: The node that it is next to; None where the firmware does not tell.
        max_lanes: How wide a link the board itself can have.
    """

    address: str
    driver: str
    numa_node: int | None = None
    max_lanes: int | None = None


@dataclass(frozen=True, slots=True)
class NumaNode:
    """A NUMA node: its number, whether it has CPUs, and its memory."""

    number: int
    has_cpus: bool
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Kernel:
    """The driver's half in the kernel, its libraries, and its device files.

    Attributes:
        module_version: Of the loaded module "nvidia"; None if there is none.
        library_versions: Of every libnvidia-ml.so in the usual folders.
        has_libcuda: Whether libcuda is beside it; None where no library was found.
        gpus: On the PCI bus; None where that cannot be seen.
        device_files: /dev/nvidia*, and whether we may read and write them.
    """

    release: str = ""
    module_version: str | None = None
    library_versions: tuple[str, ...] = ()
    has_libcuda: bool | None = None
    gpus: tuple[PciGpu, ...] | None = None
    device_files: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Vm:
    """Settings of the kernel's memory management; None where this kernel has no such."""

    swappiness: int | None = None
    overcommit_memory: int | None = None
    zone_reclaim_mode: int | None = None
    numa_balancing: int | None = None
    transparent_hugepage: str | None = None


@dataclass(frozen=True, slots=True)
class Space:
    """A file system: where, what for, and bytes; `problem` tells why it cannot be used."""

    path: str
    total_bytes: int = 0
    free_bytes: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """The host. A part that the kernel does not show is None or empty.

    Attributes:
        in_container: Whether we see less than the host has.
        sees_all_processes: Whether /proc is that of the host.
        swapped_pages: To and from swap since boot.
        stalls_percent: Share of the last 10 s in which tasks waited, by (resource, some or full).
        governor: Of the CPUs' frequency, where it is the same for all.
        shm: /dev/shm.
        models: Where models are.
        storage: Where recordings and requests are kept; None: nowhere yet.
    """

    kernel: Kernel = Kernel()
    in_container: bool = False
    sees_all_processes: bool = True
    memory_bytes: int | None = None
    available_bytes: int | None = None
    swap_bytes: int | None = None
    swap_free_bytes: int | None = None
    swapped_pages: int | None = None
    oom_kills: int | None = None
    stalls_percent: Mapping[tuple[str, str], float] = field(default_factory=dict)
    vm: Vm = Vm()
    governor: str | None = None
    numa_nodes: tuple[NumaNode, ...] = ()
    shm: Space | None = None
    models: Space | None = None
    storage: Space | None = None


@dataclass(frozen=True, slots=True)
class Xids:
    """XID errors since boot by (PCI address, number), and whether the kernel log could be read."""

    counts: Mapping[tuple[str, int], Count]
    is_seen: bool


@dataclass(frozen=True, slots=True)
class ReadSpeed:
    """How fast a file could be read; `direct` means past the page cache."""

    path: str
    read_bytes: int
    seconds: float
    direct: bool
    problem: str = ""

    @property
    def bytes_per_second(self) -> float:
        """The mean speed."""
        return self.read_bytes / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """The node: its GPUs after the trial, its host, and what happened during the trial.

    Attributes:
        snapshot: GPUs, with the times and errors of the trial.
        machine: The host.
        swapped_pages: To and from swap during the trial; None: not counted.
        model_file: The read speed of a model file, if one was named.
        xids: Errors since boot; None: not looked for.
    """

    snapshot: Snapshot
    machine: Machine
    swapped_pages: int | None = None
    model_file: ReadSpeed | None = None
    xids: Xids | None = None

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that answer."""
        return tuple(gpu for gpu in self.snapshot.gpus if gpu.fault is None)

    @property
    def vram_bytes(self) -> int:
        """VRAM of all GPUs that tell it."""
        return sum(vram(gpu) or 0 for gpu in self.gpus)


def vram(gpu: Gpu) -> int | None:
    """Return a GPU's memory in bytes; None where it does not tell."""
    return gpu.memory.total_bytes if gpu.memory else None
