"""Step 5, second half: memory, swap, disks, pressure and settings of the host."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.doctor.facts import Facts, Machine, Space, Vm, vram
from exporter.doctor.finding import Finding, Kind, Severity, Step, fine
from exporter.doctor.words import GIB, MIB, counted, size

STEP = Step.NODE
RAM_PER_VRAM, TOLERANCE = 2.0, 0.95  # MemTotal is what firmware and kernel have left
LEAST_AVAILABLE_SHARE = 0.05
LEAST_SWAP_USED_BYTES = GIB
HIGH_SWAPPINESS = 10
HIGH_SOME_PERCENT, HIGH_FULL_PERCENT = 20.0, 5.0  # of the last 10 s
LEAST_SHM_BYTES = GIB
LEAST_MODEL_BYTES = 10 * GIB
LEAST_STORAGE_BYTES = GIB
STRICT_OVERCOMMIT = 2
SHM = "/dev/shm"  # noqa: S108  its real name

LITTLE_RAM = Kind(
    "ram-small",
    STEP,
    Severity.WARNING,
    "The host has less than twice as much RAM as its GPUs have VRAM. Models come through the page "
    "cache, and pinned buffers and offloaded caches are in RAM.",
    "Add memory; or serve models that take half of the RAM at most, and offload nothing.",
)
NO_RAM = Kind(
    "ram-exhausted",
    STEP,
    Severity.WARNING,
    "Hardly any memory is available: the kernel is about to swap or to kill.",
    "ps aux --sort=-rss | head; give services a MemoryMax=.",
)
SWAP_USED = Kind(
    "swap-used",
    STEP,
    Severity.NOTE,
    "Memory has been moved to swap, which answers slowly when it is touched again.",
    "Nothing, if nothing is swapped in now; swapoff -a && swapon -a brings it back.",
)
SWAPPING = Kind(
    "swapping",
    STEP,
    Severity.WARNING,
    "The host swaps now: every request waits for the disk.",
    "Stop what takes the memory; give the inference server a MemorySwapMax=0.",
)
SWAPPINESS = Kind(
    "swappiness-high",
    STEP,
    Severity.NOTE,
    f"There is swap, and the kernel uses it early (vm.swappiness above {HIGH_SWAPPINESS}).",
    "echo vm.swappiness=1 > /etc/sysctl.d/90-inference.conf; sysctl --system",
)
OOM = Kind(
    "oom-kills",
    STEP,
    Severity.NOTE,
    "The kernel has killed processes for want of memory since boot, in containers too.",
    "journalctl -k | grep -i oom tells which.",
)
PRESSURE = Kind(
    "pressure",
    STEP,
    Severity.WARNING,
    "Tasks wait for memory or disks a good part of the time.",
    "systemd-cgtop and cat /sys/fs/cgroup/*/memory.pressure show whose tasks.",
)
BUSY_CPU = Kind(
    "pressure-cpu",
    STEP,
    Severity.NOTE,
    "Tasks wait for a CPU a good part of the time; GPUs may wait for them.",
    "Give the inference server CPUs of its own (AllowedCPUs=, CPUWeight=).",
)
SMALL_SHM = Kind(
    "shm-small",
    STEP,
    Severity.WARNING,
    f"{SHM} is too small for NCCL and PyTorch, which pass data between processes there.",
    "In a container: docker run --ipc=host or --shm-size=16g; in Kubernetes an emptyDir of medium "
    f"Memory at {SHM}. On a host: mount -o remount,size=50% {SHM}.",
)
STRICT = Kind(
    "overcommit-strict",
    STEP,
    Severity.WARNING,
    "vm.overcommit_memory is 2: CUDA reserves far more address space than it uses, and fails.",
    "sysctl vm.overcommit_memory=0, and the same in /etc/sysctl.d.",
)
RECLAIM = Kind(
    "zone-reclaim",
    STEP,
    Severity.WARNING,
    "vm.zone_reclaim_mode is on: the kernel drops a node's page cache although others have room.",
    "sysctl vm.zone_reclaim_mode=0, and the same in /etc/sysctl.d.",
)
BALANCING = Kind(
    "numa-balancing",
    STEP,
    Severity.NOTE,
    "kernel.numa_balancing is on: page faults that it makes on purpose add to latency.",
    "sysctl kernel.numa_balancing=0 where servers are bound to NUMA nodes anyway.",
)
NO_HUGE_PAGES = Kind(
    "huge-pages-off",
    STEP,
    Severity.NOTE,
    "Transparent huge pages are off: large weights in RAM cost more page faults.",
    "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
)
SLOW_CPU = Kind(
    "cpu-powersave",
    STEP,
    Severity.NOTE,
    "The CPUs' frequency governor is powersave, which keeps them at their lowest clock.",
    "cpupower frequency-set -g performance, or schedutil.",
)
LITTLE_DISK = Kind(
    "disk-small",
    STEP,
    Severity.WARNING,
    "Where models are kept there is no room for one that fills a GPU.",
    "Remove models that are not used (hf cache delete), or set HF_HOME to another disk.",
)
BAD_STORAGE = Kind(
    "storage-unusable",
    STEP,
    Severity.ERROR,
    "The daemon cannot keep recordings and scale-out requests: the disk is read-only, or full.",
    "Free space, look in dmesg why it is read-only, or name another place with --storage.path.",
)
KINDS = (
    LITTLE_RAM,
    NO_RAM,
    SWAP_USED,
    SWAPPING,
    SWAPPINESS,
    OOM,
    PRESSURE,
    BUSY_CPU,
    SMALL_SHM,
    STRICT,
    RECLAIM,
    BALANCING,
    NO_HUGE_PAGES,
    SLOW_CPU,
    LITTLE_DISK,
    BAD_STORAGE,
)


def check(facts: Facts) -> Iterator[Finding]:
    """Look at what the host offers to inference servers."""
    machine = facts.machine
    yield from _ram(facts)
    yield from _swap(machine, facts.swapped_pages)
    yield from _pressure(machine)
    yield from _settings(machine.vm, len(machine.numa_nodes))
    if machine.governor == "powersave":
        yield SLOW_CPU.found("CPU frequency governor powersave")
    yield from _spaces(facts)


def _ram(facts: Facts) -> Iterator[Finding]:
    total, available = facts.machine.memory_bytes, facts.machine.available_bytes
    if total is None:
        return
    needed = facts.vram_bytes
    ratio = f", {total / needed:.2g} times the VRAM ({size(needed)})" if needed else ""
    is_short = bool(needed) and total < TOLERANCE * RAM_PER_VRAM * needed
    what = f"RAM {size(total)}{ratio}"
    yield LITTLE_RAM.found(what) if is_short else fine(STEP, "ram", what)
    if available is not None and available < LEAST_AVAILABLE_SHARE * total:
        yield NO_RAM.found(f"{size(available)} of {size(total)} RAM are available")


def _swap(machine: Machine, moved: int | None) -> Iterator[Finding]:
    total, free = machine.swap_bytes, machine.swap_free_bytes
    if total is None or free is None:
        return
    if not total:
        yield fine(STEP, "swap", "no swap")
        return
    swappiness = machine.vm.swappiness
    told = "" if swappiness is None else f", swappiness {swappiness}"
    yield fine(STEP, "swap", f"swap {size(total)}, {size(total - free)} in use{told}")
    if moved:
        yield SWAPPING.found(f"{counted(moved, 'page')} to or from swap during the trial")
    if total - free >= LEAST_SWAP_USED_BYTES:
        yield SWAP_USED.found(f"{size(total - free)} of {size(total)} swap in use")
    if swappiness is not None and swappiness > HIGH_SWAPPINESS:
        yield SWAPPINESS.found(f"vm.swappiness is {swappiness}")


def _pressure(machine: Machine) -> Iterator[Finding]:
    for resource in ("memory", "io"):
        some = machine.stalls_percent.get((resource, "some"), 0.0)
        full = machine.stalls_percent.get((resource, "full"), 0.0)
        if some >= HIGH_SOME_PERCENT or full >= HIGH_FULL_PERCENT:
            yield PRESSURE.found(f"{resource}: some tasks waited {some:.0f} %, all {full:.0f} %")
    cpu = machine.stalls_percent.get(("cpu", "some"), 0.0)
    if cpu >= HIGH_SOME_PERCENT:
        yield BUSY_CPU.found(f"some tasks waited for a CPU {cpu:.0f} % of the last 10 s")
    if machine.oom_kills:
        yield OOM.found(f"{counted(machine.oom_kills, 'OOM kill')} since boot")


def _settings(vm: Vm, numa_nodes: int) -> Iterator[Finding]:
    if vm.overcommit_memory == STRICT_OVERCOMMIT:
        yield STRICT.found("vm.overcommit_memory is 2")
    if vm.zone_reclaim_mode:
        yield RECLAIM.found(f"vm.zone_reclaim_mode is {vm.zone_reclaim_mode}")
    if vm.numa_balancing and numa_nodes > 1:
        yield BALANCING.found(f"kernel.numa_balancing is {vm.numa_balancing}")
    if vm.transparent_hugepage == "never":
        yield NO_HUGE_PAGES.found("transparent huge pages: never")


def _spaces(facts: Facts) -> Iterator[Finding]:
    shm, models, storage = facts.machine.shm, facts.machine.models, facts.machine.storage
    if shm is not None and not shm.problem and shm.total_bytes < LEAST_SHM_BYTES:
        yield SMALL_SHM.found(f"{SHM}: {shm.total_bytes / MIB:.0f} MiB")
    if models is not None and models.total_bytes:
        largest = max((vram(gpu) or 0 for gpu in facts.gpus), default=0)
        what = f"models in {models.path}: {size(models.free_bytes)} free"
        is_short = models.free_bytes < max(largest, LEAST_MODEL_BYTES)
        yield LITTLE_DISK.found(what) if is_short else fine(STEP, "disk", what)
    if storage is not None:
        yield from _storage(storage)


def _storage(storage: Space) -> Iterator[Finding]:
    problem = storage.problem
    if not problem and storage.free_bytes < LEAST_STORAGE_BYTES:
        problem = f"{size(storage.free_bytes)} free"
    if problem:
        yield BAD_STORAGE.found(f"{storage.path}: {problem}")
    else:
        yield fine(STEP, "storage", f"{storage.path}: {size(storage.free_bytes)} free")
