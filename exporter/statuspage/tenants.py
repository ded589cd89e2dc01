"""Who uses the GPUs, and what befell them: processes, MIG devices, XID errors."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.gpu.processes import GpuProcess as OnOneGpu
from exporter.procs import HostProcess
from exporter.snapshot import Gpu, Snapshot
from exporter.statuspage.view import GpuProcess, MigDevice, Processes, Xid
from exporter.xid.table import xid

SHOWN = 10  # processes


def xids(gpu: Gpu, snapshot: Snapshot) -> Iterator[Xid]:
    """Yield the XIDs that a GPU has had, the latest first."""
    known = snapshot.xids_of(gpu)
    if known is None:
        return
    latest = sorted(known.last_seconds.items(), key=lambda item: item[1], reverse=True)
    for number, at in latest:
        row = xid(number)
        total = known.totals.get(number, 0)
        yield Xid(number, row.mnemonic, row.severity.value, row.action, total, at)


def mig_devices(snapshot: Snapshot) -> Iterator[MigDevice]:
    """Yield the MIG devices of all GPUs."""
    for gpu in snapshot.gpus:
        for uuid, one in gpu.mig.instances.items() if gpu.mig else ():
            yield MigDevice(
                gpu=gpu.index,
                mig_uuid=uuid,
                profile=one.profile,
                memory_used_bytes=one.memory.used_bytes,
                memory_total_bytes=one.memory.total_bytes,
                graphics_engine_active_ratio=one.activity.graphics_ratio,
            )


def processes(snapshot: Snapshot) -> Processes | None:
    """Return the processes with most GPU memory; None if they are not read."""
    view = snapshot.processes
    if view is None:
        return None
    uses: dict[tuple[str, ...], list[tuple[int, OnOneGpu]]] = {}
    for index, on_gpu in sorted(view.on_gpu.items()):
        for labels, one in on_gpu.processes.items():
            uses.setdefault(labels, []).append((index, one))
    on_host = {one.pid: one for one in view.on_host.processes}
    found = [_process(labels[1], use, on_host.get(use[0][1].pid)) for labels, use in uses.items()]
    found.sort(key=lambda one: one.memory_used_bytes or 0, reverse=True)
    rest = max(len(found) - SHOWN, 0) + sum(one.left_out for one in view.on_gpu.values())
    return Processes(tuple(found[:SHOWN]), rest)


def _process(name: str, uses: list[tuple[int, OnOneGpu]], host: HostProcess | None) -> GpuProcess:
    used = [one.used_bytes for _, one in uses if one.used_bytes is not None]
    ratios = [one.activity.sm_ratio for _, one in uses if one.activity is not None]
    return GpuProcess(
        pid=uses[0][1].pid,
        process=name,
        user=host.user if host else "",
        workload=host.workload if host else "",
        gpus=tuple(index for index, _ in uses),
        memory_used_bytes=sum(used) if used else None,
        sm_utilization_ratio=max(ratios, default=None),
        resident_memory_bytes=host.resident_bytes if host else None,
    )
