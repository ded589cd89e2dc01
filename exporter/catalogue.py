"""The one table of all metrics, and of what must be read for them. Nothing registers itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from exporter import (
    host,
    inference_view,
    processes_view,
    recorder_view,
    rules_view,
    scaleout_view,
    status,
)
from exporter.frozen import dataclass
from exporter.gpu import (
    clocks,
    confidential,
    ecc,
    fabric,
    identity,
    inventory,
    memory,
    mig,
    modes,
    nvlink,
    nvlinks,
    pcie,
    power,
    processes,
    profiling,
    recovery,
    row_remap,
    temperature,
    utilization,
    vgpu,
)
from exporter.metric import Kind, Metric, MetricVec, Row, unit_of
from exporter.sampling import Reader
from exporter.snapshot import Gpu, Host, Snapshot
from exporter.xid import view as xid_view

T = TypeVar("T")

Labels = tuple[str, ...]

GPU_LABELS = ("gpu", "uuid")


@dataclass(frozen=True, slots=True)
class Table:
    """Things of one sort: the labels that name them, and what each measures.

    `things` gives one for each GPU, or a single one where there are no labels; None: not there,
    or not read.
    """

    labels: tuple[str, ...]
    things: Callable[[Snapshot], list[Any]]
    metrics: tuple[Row[Any], ...]
    reader: Reader[Any] | None = None

    def rows(self, snapshot: Snapshot) -> list[tuple[Labels, Any]]:
        """Return (label values, thing) of everything there is."""
        names = owners(snapshot) if self.labels else [()]
        pairs = zip(names, self.things(snapshot), strict=True)
        return [(labels, thing) for labels, thing in pairs if thing is not None]


def owners(snapshot: Snapshot) -> list[Labels]:
    """Return the values of GPU_LABELS for every GPU."""
    return [(str(gpu.index), gpu.uuid) for gpu in snapshot.gpus]


def per_gpu(
    reader: Reader[T] | None, part: Callable[[Gpu], T | None], metrics: tuple[Row[T], ...]
) -> Table:
    """Return the table of a part of every GPU, and how that part is read."""
    return Table(GPU_LABELS, lambda s: [part(gpu) for gpu in s.gpus], metrics, reader)


def single(part: Callable[[Snapshot], T | None], metrics: tuple[Row[T], ...]) -> Table:
    """Return the table of something there is once."""
    return Table((), lambda s: [part(s)], metrics)


def of_host(part: Callable[[Host], T | None], metrics: tuple[Row[T], ...]) -> Table:
    """Return the table of a part of the host."""
    return single(lambda s: part(s.host) if s.host else None, metrics)


def windows(snapshot: Snapshot) -> list[rules_view.Window | None]:
    """Return each GPU's window of sustained load."""
    seen = snapshot.rules.windows if snapshot.rules else {}
    return [seen.get(gpu.index) for gpu in snapshot.gpus]


def processes_on_gpu(snapshot: Snapshot) -> list[processes_view.OnGpu | None]:
    """Return each GPU's processes that have series of their own."""
    seen = snapshot.processes.on_gpu if snapshot.processes else {}
    return [seen.get(gpu.index) for gpu in snapshot.gpus]


def inference_of_gpus(snapshot: Snapshot) -> list[inference_view.Load | None]:
    """Return the load of each GPU's inference servers."""
    view = snapshot.inference
    return [view.of_gpu(gpu.index, gpu.uuid) if view else None for gpu in snapshot.gpus]


def of_processes(
    part: Callable[[processes_view.ProcessesView], T], metrics: tuple[Row[T], ...]
) -> Table:
    """Return the table of a part of what is known of processes beyond a single GPU."""
    return single(lambda s: part(s.processes) if s.processes else None, metrics)


CATALOGUE: tuple[Table, ...] = (
    per_gpu(None, lambda g: status.HEALTHS[g.fault], status.GPU_METRICS),
    per_gpu(identity.READER, lambda g: g.identity, identity.METRICS),
    per_gpu(inventory.READER, lambda g: g.board_info, inventory.METRICS),
    per_gpu(inventory.PLATFORM_READER, lambda g: g.platform, inventory.PLATFORM_METRICS),
    per_gpu(memory.READER, lambda g: g.memory, memory.METRICS),
    per_gpu(memory.BAR1_READER, lambda g: g.bar1, memory.BAR1_METRICS),
    per_gpu(utilization.READER, lambda g: g.utilization, utilization.METRICS),
    per_gpu(utilization.ENGINES_READER, lambda g: g.engines, utilization.ENGINES_METRICS),
    per_gpu(temperature.READER, lambda g: g.temperature, temperature.METRICS),
    per_gpu(temperature.THRESHOLDS_READER, lambda g: g.thresholds, temperature.THRESHOLDS_METRICS),
    per_gpu(temperature.MARGIN_READER, lambda g: g.temperature_margin, temperature.MARGIN_METRICS),
    per_gpu(
        temperature.MARGIN_THRESHOLDS_READER,
        lambda g: g.margin_thresholds,
        temperature.MARGIN_THRESHOLDS_METRICS,
    ),
    per_gpu(temperature.FANS_READER, lambda g: g.fans, temperature.FANS_METRICS),
    per_gpu(power.READER, lambda g: g.power, power.METRICS),
    per_gpu(power.LIMITS_READER, lambda g: g.power_limits, power.LIMITS_METRICS),
    per_gpu(clocks.READER, lambda g: g.clocks, clocks.METRICS),
    per_gpu(clocks.SLOW_READER, lambda g: g.slow_clocks, clocks.SLOW_METRICS),
    per_gpu(None, lambda g: g.all_clocks, clocks.ALL_METRICS),
    per_gpu(clocks.MAX_READER, lambda g: g.max_clocks, clocks.MAX_METRICS),
    per_gpu(profiling.READER, lambda g: g.profiling, profiling.METRICS),
    per_gpu(mig.READER, lambda g: g.mig, mig.METRICS),
    per_gpu(pcie.READER, lambda g: g.pcie_throughput, ()),
    per_gpu(pcie.SAMPLED_READER, lambda g: g.pcie_sampled, ()),
    per_gpu(None, lambda g: g.pcie, pcie.METRICS),
    per_gpu(pcie.LINK_READER, lambda g: g.pcie_link, pcie.LINK_METRICS),
    per_gpu(nvlink.READER, lambda g: g.nvlink, nvlink.METRICS),
    per_gpu(nvlinks.READER, lambda g: g.nvlinks, nvlinks.METRICS),
    per_gpu(nvlinks.PEERS_READER, lambda g: g.nvlink_peers, nvlinks.PEERS_METRICS),
    per_gpu(recovery.READER, lambda g: g.recovery, recovery.METRICS),
    per_gpu(ecc.READER, lambda g: g.ecc, ecc.METRICS),
    per_gpu(ecc.LOCATIONS_READER, lambda g: g.ecc_locations, ecc.LOCATIONS_METRICS),
    per_gpu(ecc.SRAM_READER, lambda g: g.ecc_sram, ecc.SRAM_METRICS),
    per_gpu(ecc.MODE_READER, lambda g: g.ecc_mode, ecc.MODE_METRICS),
    per_gpu(row_remap.READER, lambda g: g.remapped_rows, row_remap.METRICS),
    per_gpu(row_remap.BANKS_READER, lambda g: g.row_remap_banks, row_remap.BANKS_METRICS),
    per_gpu(row_remap.REPAIR_READER, lambda g: g.repair, row_remap.REPAIR_METRICS),
    per_gpu(row_remap.RETIRED_READER, lambda g: g.retired_pages, row_remap.RETIRED_METRICS),
    per_gpu(fabric.READER, lambda g: g.fabric, fabric.METRICS),
    per_gpu(modes.PERSISTENCE_READER, lambda g: g.persistence_mode, modes.PERSISTENCE_METRICS),
    per_gpu(modes.COMPUTE_READER, lambda g: g.compute_mode, modes.COMPUTE_METRICS),
    per_gpu(modes.MIG_READER, lambda g: g.mig_mode, modes.MIG_METRICS),
    per_gpu(confidential.READER, lambda g: g.confidential, confidential.METRICS),
    per_gpu(vgpu.READER, lambda g: g.vgpu_license, vgpu.METRICS),
    per_gpu(processes.READER, lambda g: g.processes, processes.METRICS),
    Table(GPU_LABELS, processes_on_gpu, processes_view.GPU_METRICS),
    of_processes(lambda p: p.on_host, processes_view.HOST_METRICS),
    of_processes(lambda p: p.workloads, processes_view.WORKLOAD_METRICS),
    Table(GPU_LABELS, lambda s: [s.xids_of(gpu) for gpu in s.gpus], xid_view.GPU_METRICS),
    single(lambda s: s.xids, xid_view.METRICS),
    Table(GPU_LABELS, windows, rules_view.WINDOW_METRICS),
    of_host(lambda h: h.memory, host.memory.METRICS),
    of_host(lambda h: h.swap, host.swap.METRICS),
    of_host(lambda h: h.pressure, host.pressure.METRICS),
    of_host(lambda h: h.cpu, host.cpu.METRICS),
    of_host(lambda h: h.disk, host.disk.METRICS),
    of_host(lambda h: h.thermal, host.thermal.METRICS),
    single(lambda s: s.rules, rules_view.METRICS),
    single(lambda s: s.recorder, recorder_view.METRICS),
    single(lambda s: s.scaleout, scaleout_view.METRICS),
    single(lambda s: s, status.SNAPSHOT_METRICS),
    single(lambda s: s.inference, inference_view.METRICS),
    single(lambda s: s.process, status.PROCESS_METRICS),
)

# What is others' and never on our page.
RULE_ONLY: tuple[Table, ...] = (Table(GPU_LABELS, inference_of_gpus, inference_view.RULE_METRICS),)

GPU_READERS: tuple[Reader[Any], ...] = tuple(t.reader for t in CATALOGUE if t.reader is not None)

# Switched off, the utilization's reader asks for no samples.
UTILIZATION_SAMPLES = "utilization_samples"

# What can be switched off. Identity stays: every join needs it.
COLLECTORS: tuple[str, ...] = (
    *dict.fromkeys(r.collector for r in GPU_READERS if r.collector != identity.READER.collector),
    UTILIZATION_SAMPLES,
    "xid",
    *(group.name for group in host.GROUPS),
)

# No readings, but what is made of them.
JUDGEMENTS = {"gpu_up", "gpu_sampler_coverage_ratio"}


def watched(row: Row[T]) -> Callable[[T], float | None] | None:
    """Return what a rule sees of a metric: its value, or the highest of a GPU's MIG devices.

    None: it has other labels of its own, and no one value.
    """
    if isinstance(row, Metric):
        return row.value
    if row.labels != mig.UUID:
        return None
    values = row.values
    return lambda thing: max(
        (value for value in values(thing).values() if value is not None), default=None
    )


# What a rule may watch: levels with one value a GPU, or one for the host.
RULE_METRICS: tuple[str, ...] = tuple(
    metric.name
    for table in (*CATALOGUE, *RULE_ONLY)
    for metric in table.metrics
    if watched(metric) is not None
    and metric.kind is Kind.GAUGE
    and metric.name not in JUDGEMENTS
    and (table.labels == GPU_LABELS or metric.name.startswith("host_"))
)


def reference() -> str:
    """Return the metrics reference as Markdown: the content of docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Generated from the catalogue by `gpu-node-exporter metrics`; `make docs` writes it.",
        "",
        "A reading that a board, driver or kernel does not have gives no series. It is never 0.",
        "",
        "What changes from moment to moment is read at every poll (`poll.fast`, 1 s), the host's",
        "CPU and disks every 5 s, and what seldom changes every `poll.slow` (30 s).",
        "",
        "| name | type | unit | labels | what it is |",
        "|---|---|---|---|---|",
    ]
    lines += [_row(table, metric) for table in CATALOGUE for metric in table.metrics]
    lines += [
        "",
        "## For rules alone",
        "",
        "Levels of the inference servers in the config, for each GPU that they use:",
        "[how to name them in a rule](scale-out.md#is-the-gpu-busy-or-the-service). `/metrics`",
        "never has these, because the servers export them themselves.",
        "",
        "| name | type | unit | labels | what it is |",
        "|---|---|---|---|---|",
    ]
    lines += [_row(table, metric) for table in RULE_ONLY for metric in table.metrics]
    return "\n".join(lines) + "\n"


def _row(table: Table, metric: Row[Any]) -> str:
    own = metric.labels if isinstance(metric, MetricVec) else ()
    labels = ", ".join(f"`{label}`" for label in (*table.labels, *own))
    return (
        f"| `{metric.name}` | {metric.kind.value} | {unit_of(metric.name)} "
        f"| {labels} | {metric.help} |"
    )
