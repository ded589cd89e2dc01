"""The host of a simulated node: one that suits its GPUs, whatever machine this is."""

from __future__ import annotations

from exporter.doctor.facts import Kernel, Machine, NumaNode, PciGpu, Space, Vm
from exporter.doctor.node import SHM
from exporter.doctor.words import GIB
from exporter.snapshot import Gpu, Snapshot

LEAST_RAM_BYTES = 128 * GIB
RAM_PER_VRAM = 2.25
FILES = ("nvidiactl", "nvidia-uvm")


def machine(snapshot: Snapshot) -> Machine:
    """Return a host with a sound driver, memory and disks for these GPUs."""
    gpus = snapshot.gpus
    vram = sum(gpu.memory.total_bytes or 0 for gpu in gpus if gpu.memory)
    ram = int(max(LEAST_RAM_BYTES, RAM_PER_VRAM * vram))
    sockets = 2 if len(gpus) > 1 else 1
    return Machine(
        kernel=_kernel(snapshot),
        memory_bytes=ram,
        available_bytes=ram * 3 // 4,
        swap_bytes=0,
        swap_free_bytes=0,
        swapped_pages=0,
        oom_kills=0,
        stalls_percent={("cpu", "some"): 1.2, ("memory", "some"): 0.0, ("io", "some"): 0.4},
        vm=Vm(60, 0, 0, 0, "madvise"),
        governor="performance",
        numa_nodes=tuple(
            NumaNode(n, has_cpus=True, memory_bytes=ram // sockets) for n in range(sockets)
        ),
        shm=Space(SHM, ram // 2, ram // 2),
        models=Space("/models", 4 * ram, 2 * ram),
    )


def _kernel(snapshot: Snapshot) -> Kernel:
    if snapshot.driver is None:
        return Kernel(gpus=())
    version = snapshot.driver.driver_version
    files = (*FILES, *(f"nvidia{gpu.index}" for gpu in snapshot.gpus))
    return Kernel(
        module_version=version,
        library_versions=(version,),
        has_libcuda=True,
        gpus=tuple(_pci(gpu, len(snapshot.gpus)) for gpu in snapshot.gpus),
        device_files=dict.fromkeys(files, True),
    )


def _pci(gpu: Gpu, count: int) -> PciGpu:
    return PciGpu(
        address=gpu.identity.pci_bus_id if gpu.identity else "",
        driver="nvidia",
        numa_node=2 * gpu.index // count if count > 1 else 0,
    )
