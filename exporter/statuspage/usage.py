"""The panels of who uses the GPUs: processes and MIG devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exporter.recorder.svg import safe
from exporter.statuspage import units
from exporter.statuspage.panels import begin, cell, table
from exporter.statuspage.view import GpuProcess, MigDevice, Status


def processes(status: Status) -> Iterator[str]:
    """Yield the processes with most GPU memory."""
    if status.processes is None:
        return
    yield begin("processes", "Processes", "by GPU memory")
    if status.processes.heaviest:
        yield table("processes", "Process", "User", "Workload", "GPU", "VRAM", "SM", "RAM")
        for process in status.processes.heaviest:
            yield _process(process)
        yield "</tbody></table>"
        if status.processes.left_out:
            yield f'<p class="soft">{status.processes.left_out} more: see the metrics.</p>'
    else:
        yield '<p class="soft">No process uses a GPU, or none may be seen.</p>'
    yield "</section>"


def _process(process: GpuProcess) -> str:
    name = f"{safe(process.process) or 'unknown'} <small>{process.pid}</small>"
    cells = (
        f'<th scope="row" role="rowheader">{name}</th>',
        cell(safe(process.user), "w"),
        cell(f"<code>{safe(process.workload)}</code>", "w"),
        cell(_ranges(process.gpus), "w", "GPU"),
        cell(units.size(process.memory_used_bytes), "n", "VRAM"),
        cell(units.percent(process.sm_utilization_ratio), "n", "SM"),
        cell(units.size(process.resident_memory_bytes), "n", "RAM"),
    )
    return f'<tr role="row">{"".join(cells)}</tr>'


def mig_devices(status: Status) -> Iterator[str]:
    """Yield the MIG devices, where there are any."""
    if not status.mig_devices:
        return
    yield begin("mig", "MIG devices")
    yield table("mig", "GPU", "Profile", "Device", "VRAM", "Active")
    for device in status.mig_devices:
        yield _mig_device(device)
    yield "</tbody></table></section>"


def _mig_device(device: MigDevice) -> str:
    memory = units.of_total(device.memory_used_bytes, device.memory_total_bytes)
    cells = (
        f'<th scope="row" role="rowheader">GPU {device.gpu}</th>',
        cell(safe(device.profile), "t"),
        cell(f"<code>{safe(device.mig_uuid)}</code>", "w"),
        cell(memory or units.NONE, "n", "VRAM"),
        cell(units.percent(device.graphics_engine_active_ratio), "n", "active"),
    )
    return f'<tr role="row">{"".join(cells)}</tr>'


def _ranges(numbers: Sequence[int]) -> str:
    """Return `0–3, 6` for 0, 1, 2, 3, 6."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}–{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
