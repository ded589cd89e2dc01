"""Reads the host, from one place: the folder below which /proc, /sys and /dev are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from exporter.doctor.facts import Kernel, Machine, NumaNode, PciGpu, Space, Vm
from exporter.host.processes import INITIAL_PID_NAMESPACE

ROOT = Path("/")
MOST_BYTES = 1 << 16  # of one file
NVIDIA, DISPLAY_CLASSES = "0x10de", ("0x0300", "0x0302")
LIBRARY_FOLDERS = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/nvidia/current",  # Debian
    "usr/lib/aarch64-linux-gnu",
    "usr/lib/aarch64-linux-gnu/nvidia/current",
    "usr/lib64",
    "usr/local/nvidia/lib64",
    "run/opengl-driver/lib",  # NixOS
)
_MODULE_VERSION = re.compile(r"Kernel Module\b.*?\s([0-9]+\.[0-9.]+)")
_LIBRARY_VERSION = re.compile(r"libnvidia-ml\.so\.([0-9]+\.[0-9.]+)")
_STALL = re.compile(r"^(some|full) avg10=([0-9.]+)", re.MULTILINE)
_ENABLED = re.compile(r"\[(\w+)\]")

Access = Callable[[str, int], bool]


def read(
    models: Path, storage: Path | None, root: Path = ROOT, access: Access = os.access
) -> Machine:
    """Read the host. What cannot be read is None, or empty.

    Args:
        models: Where models are; if it is not there yet, the nearest folder above counts.
        storage: Where recordings and requests are kept; None: not to be looked at.
        root: What stands for /.
        access: os.access(2) of device files.
    """
    meminfo, vmstat = _text(root / "proc/meminfo"), _text(root / "proc/vmstat")
    return Machine(
        kernel=_kernel(root, access),
        in_container=_in_container(root),
        sees_all_processes=_sees_all_processes(root),
        memory_bytes=_kib(meminfo, "MemTotal"),
        available_bytes=_kib(meminfo, "MemAvailable"),
        swap_bytes=_kib(meminfo, "SwapTotal"),
        swap_free_bytes=_kib(meminfo, "SwapFree"),
        swapped_pages=_swapped(vmstat),
        oom_kills=_number(vmstat, "oom_kill"),
        stalls_percent=_stalls(root),
        vm=_vm(root),
        governor=_governor(root),
        numa_nodes=_numa_nodes(root),
        shm=space(root / "dev/shm"),
        models=space(models),
        storage=space(storage) if storage and os.path.exists(storage) else None,  # noqa: PTH110
    )


def swapped_pages(root: Path = ROOT) -> int | None:
    """Return how many pages went to and from swap since boot."""
    return _swapped(_text(root / "proc/vmstat"))


def space(path: Path) -> Space:
    """Return the file system of a path, or of the nearest folder above that is there."""
    there = path.absolute()
    while not os.path.exists(there) and there != there.parent:  # noqa: PTH110  never raises
        there = there.parent
    try:
        found = os.statvfs(there)
    except OSError as error:
        return Space(str(path), problem=error.strerror or "cannot be read")
    problem = "is read-only" if found.f_flag & os.ST_RDONLY else ""
    unit = found.f_frsize
    return Space(str(path), found.f_blocks * unit, found.f_bavail * unit, problem)


def _kernel(root: Path, access: Access) -> Kernel:
    module = root / "sys/module/nvidia"
    version = _text(module / "version").strip()
    if not version:
        match = _MODULE_VERSION.search(_text(root / "proc/driver/nvidia/version"))
        version = match[1] if match else ""
    versions, has_libcuda = _libraries(root)
    return Kernel(
        release=_text(root / "proc/sys/kernel/osrelease").strip(),
        module_version=version or ("" if module.is_dir() else None),
        library_versions=versions,
        has_libcuda=has_libcuda,
        gpus=_pci_gpus(root / "sys/bus/pci/devices"),
        device_files={
            file.name: access(str(file), os.R_OK | os.W_OK)
            for file in sorted((root / "dev").glob("nvidia*"))
            if not file.is_dir()
        },
    )


def _libraries(root: Path) -> tuple[tuple[str, ...], bool | None]:
    """Return the versions of libnvidia-ml, and whether libcuda stands beside one of them."""
    versions: set[str] = set()
    has_libcuda = False
    for folder in LIBRARY_FOLDERS:
        found = [m[1] for n in _names(root / folder) if (m := _LIBRARY_VERSION.fullmatch(n))]
        versions.update(found)
        has_libcuda |= bool(found) and (root / folder / "libcuda.so.1").exists()
    return tuple(sorted(versions)), has_libcuda if versions else None


def _pci_gpus(devices: Path) -> tuple[PciGpu, ...] | None:
    if not devices.is_dir():
        return None
    return tuple(
        _pci_gpu(device)
        for device in (devices / name for name in _names(devices))
        if _text(device / "vendor").strip() == NVIDIA
        and _text(device / "class").startswith(DISPLAY_CLASSES)
    )


def _pci_gpu(device: Path) -> PciGpu:
    node = _whole(_text(device / "numa_node"))
    link = device / "driver"
    return PciGpu(
        address=device.name,
        driver=link.resolve().name if link.exists() else "",
        numa_node=node if node is not None and node >= 0 else None,
        max_lanes=_whole(_text(device / "max_link_width")),
    )


def _vm(root: Path) -> Vm:
    sysctl = root / "proc/sys"
    pages = _ENABLED.search(_text(root / "sys/kernel/mm/transparent_hugepage/enabled"))
    return Vm(
        swappiness=_whole(_text(sysctl / "vm/swappiness")),
        overcommit_memory=_whole(_text(sysctl / "vm/overcommit_memory")),
        zone_reclaim_mode=_whole(_text(sysctl / "vm/zone_reclaim_mode")),
        numa_balancing=_whole(_text(sysctl / "kernel/numa_balancing")),
        transparent_hugepage=pages[1] if pages else None,
    )


def _governor(root: Path) -> str | None:
    """Return the governor of all CPUs; None where they differ, or have none."""
    cpus = list((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    found = {_text(cpu / "scaling_governor").strip() for cpu in cpus}
    drivers = {_text(cpu / "scaling_driver").strip() for cpu in cpus}
    # Under these two drivers, "powersave" is the usual governor, and goes to full speed.
    if drivers & {"intel_pstate", "amd-pstate-epp"} or len(found) != 1:
        return None
    return found.pop() or None


def _numa_nodes(root: Path) -> tuple[NumaNode, ...]:
    folder = root / "sys/devices/system/node"
    numbers = sorted(int(n[4:]) for n in _names(folder) if re.fullmatch("node[0-9]{1,5}", n))
    return tuple(
        NumaNode(
            number,
            has_cpus=bool(_text(folder / f"node{number}/cpulist").strip()),
            memory_bytes=_kib(_text(folder / f"node{number}/meminfo"), rf"Node {number} MemTotal")
            or 0,
        )
        for number in numbers
    )


def _stalls(root: Path) -> dict[tuple[str, str], float]:
    return {
        (resource, kind): float(percent)
        for resource in ("cpu", "memory", "io")
        for kind, percent in _STALL.findall(_text(root / "proc/pressure" / resource))
    }


def _in_container(root: Path) -> bool:
    marks = (root / ".dockerenv", root / "run/.containerenv")
    secrets = root / "var/run/secrets/kubernetes.io"
    return any(mark.exists() for mark in (*marks, secrets))


def _sees_all_processes(root: Path) -> bool:
    try:
        return (root / "proc/self/ns/pid").stat().st_ino == INITIAL_PID_NAMESPACE
    except OSError:
        return False


def _swapped(vmstat: str) -> int | None:
    moved = [_number(vmstat, key) for key in ("pswpin", "pswpout")]
    return None if None in moved else sum(pages or 0 for pages in moved)


def _text(path: Path) -> str:
    """Return a file of the kernel, "" where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES).decode(errors="replace")
    except (OSError, ValueError):
        return ""


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []


def _whole(text: str) -> int | None:
    match = re.fullmatch(r"\s*(-?[0-9]{1,18})\s*", text)
    return int(match[1]) if match else None


def _number(content: str, key: str) -> int | None:
    match = re.search(rf"^{key}:? +([0-9]{{1,18}})\b", content, re.MULTILINE)
    return int(match[1]) if match else None


def _kib(content: str, key: str) -> int | None:
    """Return a line of /proc/meminfo or of a node's meminfo, which are in KiB, in bytes."""
    kib = _number(content, key)
    return None if kib is None else kib << 10
