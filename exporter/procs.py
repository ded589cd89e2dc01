"""The seam to the processes of this host: what is known of one that uses a GPU."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from exporter.cgroup import Attribution
from exporter.frozen import dataclass

FULL_ID, SHORT_ID = 64, 12  # digits of a container's hash; `docker ps` shows the short one

OTHER, UNKNOWN = "other", "unknown"  # workloads that no process can be named like


@dataclass(frozen=True, slots=True)
class HostProcess:
    """One process, as the kernel shows it.

    Attributes:
        pid: In the PID namespace of this /proc.
        name: The kernel's name of it (comm), at most 15 bytes; it may change.
        user: The name of its real user, or the number where there is no name.
        started_at_seconds: Since the epoch; with the PID, it tells one process from the next.
        resident_bytes: Host memory in RAM.
        cpu_seconds: User and system time of all its threads since it started.
        attribution: Who runs it.
    """

    pid: int
    name: str
    user: str
    started_at_seconds: float
    resident_bytes: int
    cpu_seconds: float
    attribution: Attribution

    @property
    def workload(self) -> str:
        """What its use of a GPU is booked on: KIND:NAME, the first there is of five kinds."""
        by = self.attribution
        if by.pod_uid:
            return f"pod:{by.pod_uid}"
        if by.slurm_job_id:
            return f"slurm:{by.slurm_job_id}"
        if by.container_id:
            is_hash = len(by.container_id) == FULL_ID  # else LXC's name
            return f"container:{by.container_id[:SHORT_ID] if is_hash else by.container_id}"
        if by.systemd_unit:
            above = f"{by.user_manager}/" if by.user_manager else ""
            return f"unit:{above}{by.systemd_unit}"
        return f"process:{self.name}"


class ProcessSource(Protocol):
    """The processes of a host."""

    samples_match: bool  # the PIDs in the driver's utilization samples are those of this host

    def pids_match(self, driver_version: str) -> bool:
        """Return whether the PIDs that this driver lists are those of this host."""

    def read(self, pid: int) -> HostProcess | None:
        """Return a process; None: it ended, or we may not see it."""

    def keep(self, pids: Collection[int]) -> None:
        """Forget what is remembered of all other processes."""
