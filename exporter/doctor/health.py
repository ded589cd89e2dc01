"""Step 2, second half: what the GPUs say of their health; of their memory, see memory.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from exporter.doctor import memory
from exporter.doctor.facts import Facts
from exporter.doctor.finding import Finding, Kind, Severity, Step, change, fine, names
from exporter.snapshot import Gpu

STEP = Step.HEALTH

RECOVERY = Kind(
    "recovery-action",
    STEP,
    Severity.ERROR,
    "The driver asks for an action before the GPU can be trusted again.",
    "Drain the GPU's work and do what is asked. gpu_reset: nvidia-smi --gpu-reset -i <GPU>; "
    "node_reboot, system_reboot: reboot; drain_p2p: stop the jobs that span GPUs first.",
)
NO_PERSISTENCE = Kind(
    "persistence-off",
    STEP,
    Severity.WARNING,
    "The driver lets go of the GPU when nobody uses it: the next start takes seconds longer, and "
    "settings such as power limits are lost.",
    "systemctl enable --now nvidia-persistenced; until the next boot: nvidia-smi -pm 1.",
)
PROHIBITED = Kind(
    "compute-prohibited",
    STEP,
    Severity.ERROR,
    "Compute mode is prohibited: no CUDA program can use the GPU.",
    "nvidia-smi -c DEFAULT -i <GPU>",
)
EXCLUSIVE = Kind(
    "compute-exclusive",
    STEP,
    Severity.NOTE,
    "Compute mode is exclusive: one process at a time can use the GPU.",
    "Nothing, if that is meant; else nvidia-smi -c DEFAULT -i <GPU>.",
)
NOT_ON_FABRIC = Kind(
    "fabric-not-joined",
    STEP,
    Severity.ERROR,
    "The GPU has not joined its NVLink fabric: CUDA does not start on it.",
    "systemctl status nvidia-fabricmanager: it must run, in exactly the driver's version. On "
    "NVL72, look at the IMEX domain, too.",
)
SICK_FABRIC = Kind(
    "fabric-unhealthy",
    STEP,
    Severity.WARNING,
    "The driver says that the GPU's NVLink fabric is unhealthy, or has not its full capacity.",
    "journalctl -u nvidia-fabricmanager, nvidia-smi nvlink -s. Jobs over several GPUs are slow.",
)
MIG_PENDING = Kind(
    "mig-pending",
    STEP,
    Severity.NOTE,
    "MIG is to be switched on or off at the next reset of the GPU.",
    "nvidia-smi --gpu-reset -i <GPU> when nothing uses it.",
)
UNLICENSED = Kind(
    "vgpu-unlicensed",
    STEP,
    Severity.WARNING,
    "The vGPU has no license, and is throttled.",
    "nvidia-smi -q | grep -i license; check /etc/nvidia/gridd.conf and the license server.",
)


def check(facts: Facts) -> Iterator[Finding]:
    """Look at what the GPUs that answer say of themselves."""
    gpus = facts.gpus
    wrong = [finding for kind, say in SAYINGS for finding in kind.each(gpus, say)]
    yield from wrong
    about = {index for finding in wrong for index in finding.gpus}
    well = [gpu.index for gpu in gpus if gpu.index not in about]
    if well:
        checked = "nothing is wrong with ECC, memory rows, modes, fabric"
        yield fine(STEP, "healthy", f"{names(well)}: {checked}", well)


def _recovery(gpu: Gpu) -> str | None:
    action = gpu.recovery.action if gpu.recovery else None
    return f"the driver asks for {gpu.recovery.word}" if action and gpu.recovery else None


def _persistence(gpu: Gpu) -> str | None:
    mode = gpu.persistence_mode
    return "persistence mode is off" if mode and mode.enabled == 0 else None


def _prohibited(gpu: Gpu) -> str | None:
    is_so = gpu.compute_mode and gpu.compute_mode.active.get("prohibited")
    return "compute mode is prohibited" if is_so else None


def _exclusive(gpu: Gpu) -> str | None:
    active = gpu.compute_mode.active if gpu.compute_mode else {}
    is_so = active.get("exclusive_process") or active.get("exclusive_thread")
    return "compute mode is exclusive" if is_so else None


def _mig_pending(gpu: Gpu) -> str | None:
    return change("MIG", gpu.mig_mode.enabled) if gpu.mig_mode else None


def _off_fabric(gpu: Gpu) -> str | None:
    if gpu.fabric is None or gpu.fabric.registered != 0 or gpu.fabric.info is None:
        return None
    state, status = gpu.fabric.info[:2]
    return f"not on the NVLink fabric: {state} {status}".rstrip()


def _sick_fabric(gpu: Gpu) -> str | None:
    if gpu.fabric is None or gpu.fabric.healthy != 0:
        return None
    conditions = [name for name, holds in gpu.fabric.conditions.items() if holds]
    return f"NVLink fabric is not healthy: {', '.join(conditions) or 'no reason told'}"


def _unlicensed(gpu: Gpu) -> str | None:
    licensed = gpu.vgpu_license.licensed if gpu.vgpu_license else {}
    without = [product for product, has in licensed.items() if not has]
    return f"no license for {', '.join(without)}" if without else None


SAYINGS: tuple[tuple[Kind, Callable[[Gpu], str | None]], ...] = (
    (RECOVERY, _recovery),
    (NOT_ON_FABRIC, _off_fabric),
    (PROHIBITED, _prohibited),
    (SICK_FABRIC, _sick_fabric),
    (NO_PERSISTENCE, _persistence),
    (UNLICENSED, _unlicensed),
    (MIG_PENDING, _mig_pending),
    (EXCLUSIVE, _exclusive),
    *memory.SAYINGS,
)
KINDS = tuple(kind for kind, _ in SAYINGS)
