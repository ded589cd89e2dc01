"""Joins what GPUs and host know of processes, and books what each workload has had."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from exporter.accounts import Accounts, Meter, Share
from exporter.frozen import dataclass
from exporter.gpu.processes import GpuProcess, Processes, total_bytes
from exporter.processes_view import Limits, OnGpu, OnHost, ProcessesView, Workloads
from exporter.procs import OTHER, UNKNOWN, HostProcess, ProcessSource
from exporter.snapshot import Gpu

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Held:
    """What is kept of a GPU from one reading of its processes to the next."""

    reading: Processes
    meter: Meter
    accounts: Mapping[int, str]  # by PID: where it is booked
    shares: Mapping[str, Share]  # by account


class Joiner:
    """Keeps `view`, of processes and workloads. Changed by the poller's thread alone."""

    def __init__(self, source: ProcessSource, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._accounts = Accounts(limits.workloads)
        self._held: dict[int, _Held] = {}
        self._on_gpu: dict[int, OnGpu] = {}
        self._hosts: dict[int, HostProcess | None] = {}
        self.view: ProcessesView | None = None
        self._has_warned = False

    def limit(self, limits: Limits) -> None:
        """Show more or less from the next reading on; what was booked stays."""
        self._limits, self._accounts.most = limits, limits.workloads

    def join(self, gpus: Sequence[Gpu], driver_version: str, now: float) -> ProcessesView | None:
        """Return the view at this monotonic time; None while no GPU tells of processes.

        The host is asked only about processes of GPUs that were read anew, so that both halves
        are of one moment.
        """
        there = {
            gpu.index: gpu for gpu in gpus if gpu.processes and gpu.processes.count is not None
        }
        gone = self._held.keys() - there.keys()
        renewed = [
            gpu
            for index, gpu in there.items()
            if index not in self._held or self._held[index].reading is not gpu.processes
        ]
        if not gone and not renewed:
            return self.view
        for index in gone:
            del self._held[index], self._on_gpu[index]
        trusted = self._trusts(driver_version) if renewed else False
        for gpu in renewed:
            self._take(gpu, gpu.processes or Processes(), now, trusted=trusted)
        return self._renew(now)

    def _trusts(self, driver_version: str) -> bool:
        trusted = self._source.pids_match(driver_version)
        if not (trusted and self._source.samples_match) and not self._has_warned:
            self._has_warned = True
            log.warning(
                "in a PID namespace of our own: %s; run in the host's (Docker: --pid=host,"
                " Kubernetes: hostPID: true)",
                "no utilization of processes" if trusted else "GPU processes have no names",
            )
        return trusted

    def _take(self, gpu: Gpu, reading: Processes, now: float, *, trusted: bool) -> None:
        """Take a new reading of a GPU: look at its processes, and settle the time since."""
        meter = Meter(
            now,
            gpu.utilization.busy_seconds if gpu.utilization else None,
            gpu.power.energy_joules if gpu.power else None,
        )
        processes = reading.heaviest
        if not self._source.samples_match:
            processes = tuple(replace(process, activity=None) for process in processes)
        for process in processes:
            self._hosts[process.pid] = self._source.read(process.pid) if trusted else None
        workloads = {process.pid: self._workload(process.pid) for process in processes}
        rest = [OTHER] if reading.rest_count else []
        booked = self._accounts.open([*dict.fromkeys(workloads.values()), *rest], now, meter)
        accounts = {pid: booked[workload] for pid, workload in workloads.items()}
        shares: dict[str, Share] = {}
        for process in processes:
            name = accounts[process.pid]
            shares[name] = shares.get(name, Share()) + _share(process)
        for name in rest:
            left = Share(reading.rest_sm_ratio, reading.rest_bytes)
            shares[name] = shares.get(name, Share()) + left
        held = self._held.get(gpu.index)
        if held is not None:
            self._accounts.charge(held.shares, shares, held.meter, meter)
        self._held[gpu.index] = _Held(reading, meter, accounts, shares)
        self._on_gpu[gpu.index] = self._shown(reading, processes)

    def _shown(self, reading: Processes, processes: tuple[GpuProcess, ...]) -> OnGpu:
        most = self._limits.processes_per_gpu
        rest = (GpuProcess(0, reading.rest_bytes, None),) if reading.rest_count else ()
        return OnGpu(
            {(str(p.pid), self._name(p.pid)): p for p in processes[:most]},
            max(len(processes) - most, 0) + reading.rest_count,
            total_bytes((*processes[most:], *rest)),
        )

    def _renew(self, now: float) -> ProcessesView | None:
        pids = {pid for held in self._held.values() for pid in held.accounts}
        self._hosts = {pid: host for pid, host in self._hosts.items() if pid in pids}
        self._source.keep(pids)
        shown = {int(pid) for on_gpu in self._on_gpu.values() for pid, _ in on_gpu.processes}
        hosts = (self._hosts.get(pid) for pid in sorted(shown))
        self._accounts.close({n for held in self._held.values() for n in held.shares}, now)
        self.view = (
            ProcessesView(
                dict(self._on_gpu),
                OnHost(tuple(host for host in hosts if host is not None)),
                Workloads(self._counts(), self._used_bytes(), self._accounts.all),
            )
            if self._held
            else None
        )
        return self.view

    def _counts(self) -> Mapping[str, int]:
        """Return how many processes each account has, on however many GPUs."""
        account_of = {p: name for held in self._held.values() for p, name in held.accounts.items()}
        counts = Counter(account_of.values())
        rest = sum(held.reading.rest_count for held in self._held.values())
        if rest:
            counts[OTHER] += rest
        return counts

    def _used_bytes(self) -> Mapping[str, int | None]:
        total: dict[str, Share] = {}
        for held in self._held.values():
            for name, share in held.shares.items():
                total[name] = total.get(name, Share()) + share
        return {name: share.used_bytes for name, share in total.items()}

    def _workload(self, pid: int) -> str:
        host = self._hosts.get(pid)
        return UNKNOWN if host is None else host.workload

    def _name(self, pid: int) -> str:
        host = self._hosts.get(pid)
        return "" if host is None else host.name


def _share(process: GpuProcess) -> Share:
    return Share(process.activity.sm_ratio if process.activity else None, process.used_bytes)
