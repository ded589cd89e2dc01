"""Step 5, first half: how the GPUs are connected, to the host and to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from exporter.doctor.facts import Facts, PciGpu
from exporter.doctor.finding import Finding, Kind, Severity, Step, alike, fine, names
from exporter.doctor.words import counted
from exporter.snapshot import Gpu

STEP = Step.NODE
BUSY_RATIO, BUSY_STATE = 0.2, 2  # under load: at least this, and at most P2
MANY_REPLAYS = 1000

NARROW = Kind(
    "pcie-narrow",
    STEP,
    Severity.WARNING,
    "The PCIe link has fewer lanes than the board could have.",
    "Seat the board and its riser anew, clean the contacts; look in the board's manual whether the "
    "slot has all lanes, or shares them.",
)
SLOW_LINK = Kind(
    "pcie-slow",
    STEP,
    Severity.WARNING,
    "The PCIe link runs at a lower generation than it could, although the GPU is busy. (When "
    "idle, that is normal.)",
    "Set the slot's speed to auto in the BIOS; seat the board and its riser anew.",
)
OLD_SLOT = Kind(
    "pcie-slot-old",
    STEP,
    Severity.NOTE,
    "The slot is of an older PCIe generation than the GPU: models load more slowly.",
    "Nothing; or move the board to a newer slot, or raise the slot's limit in the BIOS.",
)
LINK_ERRORS = Kind(
    "pcie-errors",
    STEP,
    Severity.WARNING,
    f"The PCIe link has had errors that lose data or stop it, or {MANY_REPLAYS} packets or more "
    "that were sent again, since the driver was loaded.",
    "Seat the board and its riser anew; if it goes on, have slot and board checked.",
)
NVLINK_DOWN = Kind(
    "nvlink-down",
    STEP,
    Severity.WARNING,
    "NVLinks are down that are up on the other GPUs, or should be up on this board.",
    "nvidia-smi nvlink -s, dmesg | grep -i nvlink. Seat the bridge anew; on NVSwitch boards "
    "restart the fabric manager; then have the board checked.",
)
NVLINK_UNUSED = Kind(
    "nvlink-unused",
    STEP,
    Severity.NOTE,
    "The GPUs have NVLinks that are not connected; tensor parallelism goes over PCIe.",
    "Nothing, if no bridge is fitted.",
)
NVLINK_ERRORS = Kind(
    "nvlink-errors",
    STEP,
    Severity.WARNING,
    "An NVLink had to be recovered, or has lost packets, since the driver was loaded.",
    "nvidia-smi nvlink -e -i <GPU>. If they grow under load, have the bridge or the board checked.",
)
NUMA_EMPTY = Kind(
    "numa-empty",
    STEP,
    Severity.WARNING,
    "The NUMA node next to the GPU has no CPUs or no memory: all traffic crosses sockets.",
    "Fit memory to each socket, evenly; look at the BIOS's NUMA settings.",
)
NUMA_UNKNOWN = Kind(
    "numa-unknown",
    STEP,
    Severity.NOTE,
    "The firmware does not tell which NUMA node the GPU is next to.",
    "Update the BIOS; in a virtual machine, have the hypervisor pass the topology on.",
)
KINDS = (
    NARROW,
    SLOW_LINK,
    OLD_SLOT,
    LINK_ERRORS,
    NVLINK_DOWN,
    NVLINK_UNUSED,
    NVLINK_ERRORS,
    NUMA_EMPTY,
    NUMA_UNKNOWN,
)
SERIOUS = ("non_fatal", "fatal")
# Errors of a link that it survives by itself, and counts as it goes, are left out.
LOSSES = ("recovery", "recovery_failed", "buffer_overrun", "local_integrity", "malformed_packet")


def check(facts: Facts) -> Iterator[Finding]:
    """Look at PCIe, NVLink and NUMA."""
    gpus = facts.gpus
    on_bus = {gpu.address: gpu for gpu in facts.machine.kernel.gpus or ()}
    narrow = list(NARROW.each(gpus, lambda gpu: _narrow(gpu, on_bus.get(_address(gpu)))))
    slow = list(SLOW_LINK.each(gpus, _slow))
    yield from _sound("pcie", gpus, _link, [*narrow, *slow])
    yield from (*narrow, *slow)
    yield from OLD_SLOT.each(gpus, _old_slot)
    yield from LINK_ERRORS.each(gpus, _link_errors)
    yield from _nvlinks(gpus)
    yield from NVLINK_ERRORS.each(gpus, _nvlink_errors)
    yield from _numa(facts, on_bus)


def _sound(
    name: str,
    gpus: Sequence[Gpu],
    say: Callable[[Gpu], str | None],
    wrong: Sequence[Finding],
) -> Iterator[Finding]:
    """Yield what is to be said of the GPUs with which nothing is wrong."""
    about = {index for finding in wrong for index in finding.gpus}
    for what, indexes in alike([gpu for gpu in gpus if gpu.index not in about], say):
        yield fine(STEP, name, f"{names(indexes)}: {what}", indexes)


def _address(gpu: Gpu) -> str:
    return gpu.identity.pci_bus_id if gpu.identity else ""


def _link(gpu: Gpu) -> str | None:
    link = gpu.pcie_link
    if link is None or link.width_lanes.get("current") is None:
        return None
    lanes, most = link.width_lanes["current"], link.width_lanes.get("max")
    now, best = link.generation.get("current"), link.generation.get("max")
    wide = f"x{lanes:.0f} of x{most:.0f}" if most else f"x{lanes:.0f}"
    if now is None:
        return f"PCIe {wide}"
    return f"PCIe {wide}, generation {now:.0f}" + (f" of {best:.0f}" if best else "")


def _narrow(gpu: Gpu, on_bus: PciGpu | None) -> str | None:
    if gpu.pcie_link is None:
        return None
    now = gpu.pcie_link.width_lanes.get("current")
    told = (gpu.pcie_link.width_lanes.get("max"), on_bus.max_lanes if on_bus else None)
    most = max((lanes for lanes in told if lanes is not None), default=None)
    if now is None or most is None or now >= most:
        return None
    return f"{now:.0f} of {most:.0f} PCIe lanes"


def _slow(gpu: Gpu) -> str | None:
    if gpu.pcie_link is None or not _is_busy(gpu):
        return None
    now, best = (gpu.pcie_link.generation.get(kind) for kind in ("current", "max"))
    if now is None or best is None or now >= best:
        return None
    return f"busy, but at PCIe generation {now:.0f} of {best:.0f}"


def _is_busy(gpu: Gpu) -> bool:
    load = gpu.utilization.gpu_ratio if gpu.utilization else None
    state = gpu.slow_clocks.performance_state if gpu.slow_clocks else None
    return load is not None and load >= BUSY_RATIO and (state is None or state <= BUSY_STATE)


def _old_slot(gpu: Gpu) -> str | None:
    if gpu.pcie_link is None:
        return None
    slot, own = (gpu.pcie_link.generation.get(kind) for kind in ("max", "gpu_max"))
    if slot is None or own is None or slot >= own:
        return None
    return f"a GPU of PCIe generation {own:.0f} in a slot of {slot:.0f}"


def _link_errors(gpu: Gpu) -> str | None:
    link = gpu.pcie_link
    if link is None:
        return None
    errors = {kind: int(link.errors.get(kind, 0)) for kind in SERIOUS}
    told = [f"{count} {kind}" for kind, count in errors.items() if count]
    if link.replays is not None and link.replays >= MANY_REPLAYS:
        told.append(f"{link.replays:.0f} replays")
    return f"errors on the PCIe link: {', '.join(told)}" if told else None


def _nvlinks(gpus: tuple[Gpu, ...]) -> Iterator[Finding]:
    most: dict[str, int] = {}
    for gpu in gpus:
        model = gpu.identity.name if gpu.identity else ""
        most[model] = max(most.get(model, 0), _up(gpu))
    down = list(NVLINK_DOWN.each(gpus, lambda gpu: _down(gpu, most)))
    yield from _sound("nvlink", gpus, _state, down)
    yield from down
    if not any(most.values()):
        yield from NVLINK_UNUSED.each(gpus, lambda g: "no NVLink is up" if _all(g) else None)


def _all(gpu: Gpu) -> Mapping[str, float]:
    return gpu.nvlinks.active if gpu.nvlinks else {}


def _up(gpu: Gpu) -> int:
    return sum(state == 1 for state in _all(gpu).values())


def _state(gpu: Gpu) -> str | None:
    return f"{_up(gpu)} of {counted(len(_all(gpu)), 'NVLink')} up" if _all(gpu) else None


def _down(gpu: Gpu, most: Mapping[str, int]) -> str | None:
    """Tell of links that are down; a board may have more than its bridge connects."""
    is_switched = gpu.fabric is not None and gpu.fabric.info is not None
    if gpu.fabric is not None and gpu.fabric.registered and not _up(gpu):
        return None  # asleep: on the fabric they are
    expected = len(_all(gpu)) if is_switched else most[gpu.identity.name if gpu.identity else ""]
    if not _all(gpu) or _up(gpu) >= expected:
        return None
    down = [link for link, state in _all(gpu).items() if state != 1]
    return f"{_up(gpu)} of {expected} NVLinks up; down: {', '.join(down)}"


def _nvlink_errors(gpu: Gpu) -> str | None:
    if gpu.nvlinks is None:
        return None
    told = [
        f"link {link} {kind} {count:.0f}"
        for (link, kind), count in gpu.nvlinks.errors.items()
        if kind in LOSSES and count
    ]
    return f"NVLink errors: {', '.join(told)}" if told else None


def _numa(facts: Facts, on_bus: Mapping[str, PciGpu]) -> Iterator[Finding]:
    nodes = {node.number: node for node in facts.machine.numa_nodes}
    if len(nodes) < 2:  # noqa: PLR2004  one node is no NUMA
        return
    near = {gpu.index: on_bus[_address(gpu)] for gpu in facts.gpus if _address(gpu) in on_bus}
    placed = [gpu for gpu in facts.gpus if gpu.index in near]

    def node_of(gpu: Gpu) -> str | None:
        number = near[gpu.index].numa_node
        return None if number is None else f"next to NUMA node {number}"

    def emptiness(gpu: Gpu) -> str | None:
        number = near[gpu.index].numa_node
        node = None if number is None else nodes.get(number)
        if node is None or (node.has_cpus and node.memory_bytes):
            return None
        lacks = "memory" if node.has_cpus else "CPUs"
        return f"next to NUMA node {node.number}, which has no {lacks}"

    for what, indexes in alike(placed, node_of):
        yield fine(STEP, "numa", f"{names(indexes)}: {what}", indexes)
    yield from NUMA_EMPTY.each(placed, emptiness)
    yield from NUMA_UNKNOWN.each(
        placed, lambda gpu: None if node_of(gpu) else f"on one of {len(nodes)} NUMA nodes"
    )
