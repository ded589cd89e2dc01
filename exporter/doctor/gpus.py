"""Step 1: which GPUs there are, and which programs the driver can run."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.doctor.facts import PASSED_ON, Facts, vram
from exporter.doctor.finding import Finding, Kind, Severity, Step, alike, fine, names
from exporter.doctor.words import counted, size
from exporter.gpu.identity import Identity
from exporter.sampling import Fault
from exporter.snapshot import Gpu

STEP = Step.GPUS
LEAST_CUDA = (12, 0)
LEAST_CAPABILITY = (7, 5)  # CUDA 13 has no code for those before
# Which number formats the tensor cores multiply, from which compute capability on.
FORMATS = {"fp16": (7, 0), "int8": (7, 2), "bf16": (8, 0), "fp8": (8, 9), "fp4": (10, 0)}

NO_GPU = Kind(
    "no-gpu",
    STEP,
    Severity.ERROR,
    "The kernel sees no GPU by NVIDIA: there is none, it has no power, or its slot is dead.",
    "If there should be one: look at its power cables and seat, and at the BMC's list; lspci -d "
    "10de: shows what the kernel sees. Let a virtual machine have it by PCI passthrough.",
)
NO_DRIVER = Kind(
    "no-driver",
    STEP,
    Severity.ERROR,
    "NVML cannot be used, so nothing is known of the GPUs.",
    "Install NVIDIA's driver for this kernel, or mend what step 2 names. In a container, start it "
    "with the NVIDIA Container Toolkit (docker run --gpus all).",
)
MISSING = Kind(
    "gpu-missing",
    STEP,
    Severity.ERROR,
    "The PCI bus has more GPUs than the driver: one fell off before the driver was loaded, or is "
    "held by another kernel driver.",
    "dmesg | grep -i -e nvrm -e xid tells why. Reboot; if it stays away, power-cycle the node, "
    "then have the board checked.",
)
HIDDEN = Kind(
    "gpus-hidden",
    STEP,
    Severity.NOTE,
    "This container was given a part of the host's GPUs only.",
    "If it should see all of them: NVIDIA_VISIBLE_DEVICES=all, or docker run --gpus all.",
)
MIXED = Kind(
    "gpus-mixed",
    STEP,
    Severity.NOTE,
    "The GPUs are not all of one model: a model parted over them goes at the pace of the weakest.",
    "Give each server GPUs of one model, by CUDA_VISIBLE_DEVICES.",
)
OLD_CUDA = Kind(
    "cuda-old",
    STEP,
    Severity.WARNING,
    "The driver is too old for programs built with CUDA 12, which current inference servers are.",
    "Install driver 535 or later.",
)
OLD_GPU = Kind(
    "gpu-old",
    STEP,
    Severity.NOTE,
    "CUDA 13 and what is built with it do not support GPUs before compute capability 7.5.",
    "Keep to builds for CUDA 12, and to driver 580 or earlier.",
)
LOST = Kind(
    "gpu-lost",
    STEP,
    Severity.ERROR,
    "The GPU does not answer on the bus any more.",
    "Drain the node and reboot it. If it is lost again, power-cycle the node, then have board, "
    "cables and slot checked.",
)
HUNG = Kind(
    "gpu-hung",
    STEP,
    Severity.ERROR,
    "A call to the driver about this GPU did not return within 5 s.",
    "Look for XID 119 or 120 in dmesg. Drain the node, then reset the GPU, or reboot.",
)
NEEDS_RESET = Kind(
    "gpu-needs-reset",
    STEP,
    Severity.ERROR,
    "The driver refuses the GPU until it is reset.",
    "Stop what uses it, then nvidia-smi --gpu-reset -i <GPU>.",
)
FORBIDDEN = Kind(
    "gpu-forbidden",
    STEP,
    Severity.ERROR,
    "This user may not read the GPU.",
    "Let the user read and write /dev/nvidia*; in a container, give it the device.",
)
SILENT = Kind(
    "gpu-silent",
    STEP,
    Severity.ERROR,
    "The GPU is listed, but every reading of it fails.",
    "dmesg | grep -i -e nvrm -e xid tells why. In a container: systemctl daemon-reload on the host "
    "may have taken its devices; start it anew.",
)
KINDS = (
    NO_GPU,
    NO_DRIVER,
    MISSING,
    HIDDEN,
    MIXED,
    OLD_CUDA,
    OLD_GPU,
    LOST,
    HUNG,
    NEEDS_RESET,
    FORBIDDEN,
    SILENT,
)
FAULTS = {
    Fault.LOST: LOST,
    Fault.HUNG: HUNG,
    Fault.RESET_REQUIRED: NEEDS_RESET,
    Fault.NO_PERMISSION: FORBIDDEN,
    Fault.ERROR: SILENT,
}


def check(facts: Facts) -> Iterator[Finding]:
    """Look at GPUs, driver and CUDA."""
    snapshot = facts.snapshot
    if snapshot.driver is None and snapshot.pci_gpus == 0:
        yield NO_GPU.found(f"no NVIDIA GPU on the PCI bus; and {snapshot.driver_problem}")
        return
    if snapshot.driver is None:
        there = "" if snapshot.pci_gpus is None else f"{counted(snapshot.pci_gpus, 'GPU')} on PCI, "
        yield NO_DRIVER.found(f"{there}but no driver: {snapshot.driver_problem}")
        return
    for what, gpus in alike(facts.gpus, _portrait):
        yield fine(STEP, "gpus", f"{names(gpus)}: {what}", gpus)
    driver = snapshot.driver
    cuda = f"CUDA up to {driver.cuda_version}" if driver.cuda_version else "CUDA version not told"
    yield fine(
        STEP, "driver", f"driver {driver.driver_version}, NVML {driver.nvml_version}, {cuda}"
    )
    yield from _missing(facts)
    for fault, kind in FAULTS.items():
        silent = [gpu for gpu in snapshot.gpus if gpu.fault is fault]
        yield from kind.each(silent, _silence)
    yield from _compatibility(facts, driver.cuda_version)


def _silence(gpu: Gpu) -> str | None:
    return f"no readings: {gpu.fault.value}" if gpu.fault else None


def _missing(facts: Facts) -> Iterator[Finding]:
    listed, on_bus = len(facts.snapshot.gpus), facts.snapshot.pci_gpus
    passed_on = sum(gpu.driver in PASSED_ON for gpu in facts.machine.kernel.gpus or ())
    if on_bus is not None and on_bus - passed_on > listed:
        kind = HIDDEN if facts.machine.in_container else MISSING
        yield kind.found(f"the PCI bus has {counted(on_bus, 'GPU')}, the driver {listed}")


def _compatibility(facts: Facts, cuda_version: str) -> Iterator[Finding]:
    models = {gpu.identity.name for gpu in facts.gpus if gpu.identity}
    if len(models) > 1:
        yield MIXED.found(" and ".join(sorted(models)))
    cuda = _numbers(cuda_version)
    if cuda and cuda < LEAST_CUDA:
        yield OLD_CUDA.found(f"the driver runs CUDA up to {cuda_version}")
    yield from OLD_GPU.each(facts.gpus, _is_old)


def _is_old(gpu: Gpu) -> str | None:
    capability = _numbers(gpu.identity.compute_capability) if gpu.identity else ()
    if not capability or capability >= LEAST_CAPABILITY or gpu.identity is None:
        return None
    return f"compute capability {gpu.identity.compute_capability}"


def _portrait(gpu: Gpu) -> str:
    identity = gpu.identity or Identity("", "", "", "", "", "")
    memory = vram(gpu)
    words = [identity.name or "a GPU without a name"]
    words.append("no VRAM of its own told" if memory is None else size(memory))
    if identity.compute_capability:
        capability = _numbers(identity.compute_capability)
        formats = [name for name, least in FORMATS.items() if capability >= least]
        by = f"{identity.architecture}, " if identity.architecture else ""
        words.append(f"{by}compute capability {identity.compute_capability}")
        words.append("tensor cores for " + " ".join(formats) if formats else "no tensor cores")
    return ", ".join(words)


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return tuple(int(part) for part in parts) if all(map(str.isdecimal, parts)) else ()
