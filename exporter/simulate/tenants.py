"""Who uses the GPUs of the simulated nodes: inference servers, training, a desktop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from exporter.cgroup import attribution
from exporter.frozen import dataclass
from exporter.procs import HostProcess
from exporter.simulate.scenario import LOOP_SECONDS

GIB = 1 << 30
AGE_SECONDS = 7200.0  # of every process when the scenario begins
BUSY_CORES = 0.8
GROWTH_PER_SECOND = 0.05 / 60  # of a leak; 16 % in five minutes even at the end of the loop

_POD = "0b6c1d4e-8a37-4f52-9c1e-5d2f7a90b3c8"
_CONTAINER = "4f9a1c0e7d2b" + "6e83a5c1" * 6 + "90fe"
_KUBERNETES = (
    "0::/kubepods.slice/kubepods-burstable.slice/"
    f"kubepods-burstable-pod{_POD.replace('-', '_')}.slice/"
    f"cri-containerd-{'b7d04a95' * 8}.scope\n"
)
_DOCKER = f"0::/system.slice/docker-{_CONTAINER}.scope\n"
_SLURM = "0::/system.slice/slurmstepd.scope/job_48213/step_0/user/task_{task}\n"


@dataclass(frozen=True, slots=True)
class Tenant:
    """One process.

    Attributes:
        pid: Its PID.
        name: What the kernel calls it.
        user: Who started it.
        cgroup: Its /proc/PID/cgroup.
        gpus: Which GPUs it uses.
        memory_share: Of the memory in use on each of them.
        sm_share: Of the load of each of them.
        resident_gib: Host memory.
        is_leaking: Whether that grows, until the scenario's loop ends.
        is_graphics: Whether it draws.
        instance: The MIG instances it runs on: GPU instance, compute instance.
    """

    pid: int
    name: str
    user: str
    cgroup: str
    gpus: tuple[int, ...]
    memory_share: float
    sm_share: float
    resident_gib: float = 3.5
    is_leaking: bool = False
    is_graphics: bool = False
    instance: tuple[int, int] | None = None


def _unit(name: str) -> str:
    return f"0::/system.slice/{name}.service\n"


def _session(unit: str) -> str:
    return f"0::/user.slice/user-1000.slice/{unit}\n"


def _vllm(gpu: int) -> Tenant:
    return Tenant(3100 + gpu, "VLLM::EngineCore", "vllm", _unit(f"vllm@{gpu}"), (gpu,), 0.98, 1.0)


_EIGHT = (
    *(
        Tenant(4210 + gpu, "VLLM::Worker_TP", "root", _KUBERNETES, (gpu,), 0.98, 1.0, 6.2)
        for gpu in range(4)
    ),
    Tenant(5120, "tritonserver", "triton-server", _DOCKER, (4, 5), 0.64, 0.75, 11.4),
    Tenant(5301, "text-embeddings", "embed", _unit("embeddings"), (5,), 0.31, 0.25, 1.8),
    Tenant(7731, "python3", "alice", _SLURM.format(task=0), (6,), 0.97, 1.0, 18.0),
    Tenant(7732, "python3", "alice", _SLURM.format(task=1), (7,), 0.97, 1.0, 18.0, is_leaking=True),
)

_PARTED = (
    *(
        Tenant(
            3200 + number,
            "tritonserver",
            "triton-server",
            _unit(f"triton@{number}"),
            (0,),
            share,
            share,
            instance=(gpu_instance, 0),
        )
        for number, (gpu_instance, share) in enumerate(((1, 0.5), (5, 0.3), (13, 0.15)))
    ),
    _vllm(1),
)

# By profile of the node; nobody uses the others.
TENANTS: Mapping[str, tuple[Tenant, ...]] = MappingProxyType(
    {
        "h100x8": _EIGHT,
        "b200x8": _EIGHT,
        "b200x8-sick": _EIGHT,
        "a100-mig": _PARTED,
        "h100-mig": _PARTED,
        "l40s": tuple(_vllm(gpu) for gpu in range(4)),
        "t4": (_vllm(0),),
        "geforce": (
            Tenant(1710, "Xorg", "root", _unit("gdm"), (0,), 0.03, 0.02, 0.2, is_graphics=True),
            Tenant(
                8841,
                "ollama",
                "bob",
                _session("user@1000.service/app.slice/ollama.service"),
                (0,),
                0.8,
                0.9,
            ),
            Tenant(9020, "python3", "bob", _session("session-3.scope"), (0,), 0.12, 0.08, 1.1),
        ),
        "gb10": (_vllm(0),),
    }
)


class SimulatedProcesses:
    """The processes of a simulated node, as its kernel would show them: see procs.ProcessSource."""

    samples_match = True

    def __init__(
        self, tenants: tuple[Tenant, ...], seconds: Callable[[], float], began_at: float
    ) -> None:
        """Take the scenario's time, and when it began, in seconds since the epoch."""
        self._tenants = {tenant.pid: tenant for tenant in tenants}
        self._seconds = seconds
        self._started_at_seconds = began_at - AGE_SECONDS

    def pids_match(self, _driver_version: str) -> bool:
        """Return that they do."""
        return True

    def read(self, pid: int) -> HostProcess | None:
        """Return a tenant."""
        tenant = self._tenants.get(pid)
        if tenant is None:
            return None
        seconds = max(self._seconds(), 0.0)
        grown = 1.0
        if tenant.is_leaking:
            grown += GROWTH_PER_SECOND * (seconds % LOOP_SECONDS)
        return HostProcess(
            pid,
            tenant.name,
            tenant.user,
            self._started_at_seconds,
            int(tenant.resident_gib * grown * GIB),
            round(BUSY_CORES * (AGE_SECONDS + seconds), 2),
            attribution(tenant.cgroup),
        )

    def keep(self, pids: Collection[int]) -> None:
        """Remember nothing."""
