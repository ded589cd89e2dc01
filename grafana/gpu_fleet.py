"""The dashboard of all nodes: which are sick, full or idle?"""

from __future__ import annotations

from frame import NO_NODE, Page, Row
from limits import ANY, critical, info, warning
from links import ROW_TO_NODE, ROW_TO_RUNBOOK, TO_NODE
from nodes import BACKLOG, EACH, NO_SERVER, P99, SLOWEST, VRAM, WAITING, fullest
from panels import About, graph, number
from queries import HEAT, Query
from tables import Column, rows
from words import YES_IS_GOOD

NO_RULES = "The rules of alerts/ are not loaded into this Prometheus."


def _firing(severity: str) -> Query:
    """Return how many alerts fire; 0 only where the rules are evaluated."""
    loaded = "count(instance:gpu_memory_high_threshold:ratio{NODE}) * 0"
    return Query(f'count(ALERTS{{FIRING, severity="{severity}"}}) or {loaded}', severity)


NOW = (
    number(
        About(
            "Nodes up",
            "Nodes that Prometheus can scrape.",
            "No target of this job.",
            ("GpuExporterAbsent",),
        ),
        Query("sum(up{NODE})"),
    ),
    number(
        About("Nodes down", "Nodes whose last scrape failed.", "No target of this job."),
        Query("sum(1 - up{NODE})"),
        limits=(critical("GpuExporterDown", ANY),),
    ),
    number(
        About("GPUs up", "GPUs that answer.", NO_NODE),
        Query("sum(gpu_up{NODE})"),
    ),
    number(
        About(
            "GPUs in trouble",
            "Down: lost, hung, in need of a reset or forbidden. Missing: on the PCI bus within the "
            "last day, and not in the driver's list.",
            NO_NODE,
            ("GpuLost", "GpuHung"),
        ),
        Query("sum(1 - gpu_up{NODE})", "down"),
        Query(
            """sum(clamp_min(max_over_time(gpu_devices{NODE, source="pci"}[1d])
            - ignoring (source) gpu_devices{NODE, source="nvml"}, 0))""",
            "missing",
        ),
        limits=(critical("GpuMissing", ANY),),
    ),
    number(
        About("Fullest GPU", "Used share of the memory of the fullest GPU.", NO_NODE),
        Query("max(gpu_memory_used_ratio{NODE})"),
        unit="percentunit",
        limits=VRAM,
    ),
    number(
        About(
            "GPUs with XIDs",
            "GPUs for which the driver reported an error within the last hour.",
            "XID errors are not seen: see the alert GpuXidUnseen.",
            ("GpuXidApplication",),
        ),
        Query(
            """count(count by (cluster, instance, uuid) (
            time() - gpu_xid_last_timestamp_seconds{NODE} < 3600))
            or sum(gpu_exporter_xid_source_up{NODE} == 1) * 0"""
        ),
        limits=(critical("GpuXidCritical", ANY),),
    ),
    number(
        About(
            "Slowest P99",
            "P99 latency of the slowest inference server of the cluster, on whatever node: to the "
            "first token, or of whole requests.",
            NO_SERVER,
        ),
        Query("max(inference:latency_seconds:p99{CLUSTER} >= 0)"),
        unit="s",
        limits=P99,
    ),
    number(
        About("Alerts firing", "Alerts on these nodes, by severity.", NO_RULES),
        _firing("critical"),
        _firing("warning"),
    ),
)

NODES = rows(
    About(
        "Nodes",
        "One line a node; a click leads to it. Load is the mean of its GPUs, memory and heat that "
        "of the fullest and hottest, held down the share of five minutes that heat cost the GPU "
        "that lost most.",
        NO_NODE,
    ),
    Column("cluster", "Cluster"),
    Column("instance", "Node", link=ROW_TO_NODE),
    Column(
        f"min {EACH} (up{{NODE}})",
        "Scraped",
        "none",
        words=YES_IS_GOOD,
    ),
    Column(f"sum {EACH} (gpu_up{{NODE}})", "GPUs up", "none"),
    Column(
        f"avg {EACH} (rate(gpu_busy_seconds_total{{NODE}}[$__rate_interval]))",
        "Load",
        "percentunit",
    ),
    Column(f"max {EACH} (gpu_memory_used_ratio{{NODE}})", "GPU memory", "percentunit", VRAM),
    Column(f"max {EACH} (gpu_temperature_celsius{{NODE}})", "Hottest", "celsius"),
    Column(
        f"max {EACH} (rate(gpu_clock_event_seconds_total{{NODE, {HEAT}}}[5m]))",
        "Held down",
        "percentunit",
        (warning("GpuThermalThrottling", 0.1),),
    ),
    Column(f"sum {EACH} (gpu_power_watts{{NODE}})", "Power", "watt"),
    Column(
        f"max {EACH} (host_memory_used_ratio{{NODE}})",
        "Host memory",
        "percentunit",
        (warning("HostMemoryHigh", 0.85), critical("HostMemoryCritical", 0.95)),
    ),
    Column(
        f"""count {EACH} (
        ALERTS{{alertstate="firing", family!="", severity!~"info|none", NODE}})""",
        "Alerts",
        "none",
    ),
    size=(24, 10),
)

TREND = (
    graph(
        About(
            "Load",
            "Mean share of time that a kernel ran on a node's GPUs. The 20 busiest nodes.",
            NO_NODE,
        ),
        Query(
            f"topk(20, avg {EACH} (rate(gpu_busy_seconds_total{{NODE}}[$__rate_interval])))",
            "{{instance}}",
        ),
        unit="percentunit",
        top=1,
        link=TO_NODE,
    ),
    graph(
        About(
            "Sustained load",
            "Load that the busiest GPU of a node did not fall below for 10 s, the highest such "
            "within the last minute. No scrape interval up to 30 s misses it. The 20 busiest "
            "nodes.",
            NO_NODE,
        ),
        Query(
            f"""topk(20, max {EACH} (
            gpu_utilization_window_min_peak_ratio{{NODE, window="10s"}}))""",
            "{{instance}}",
        ),
        unit="percentunit",
        limits=(info("GpuSustainedLoad", 0.95),),
        top=1,
        link=TO_NODE,
    ),
    fullest(),
    graph(
        About(
            "P99 of inference servers",
            "Time to the first token, and of whole requests. The 20 slowest servers of the "
            "cluster, on whatever node.",
            NO_SERVER,
            ("InferenceLatencyBudgetBurn",),
        ),
        SLOWEST,
        unit="s",
        limits=P99,
    ),
    graph(
        About("Requests", "Requests that servers of the cluster answered, by server.", NO_SERVER),
        Query("sum by (cluster, server) (inference:requests:rate5m{CLUSTER})", "{{server}}"),
        unit="reqps",
        stacked=True,
    ),
    graph(
        About(
            "Requests that wait",
            "Queues of the inference servers of the cluster. The 20 longest.",
            NO_SERVER,
        ),
        WAITING,
        unit="none",
        limits=BACKLOG,
    ),
)

ALERTS = rows(
    About(
        "Alerts that fire",
        "Those that a person is told of. A click on a name opens its runbook. Watchdog always "
        "fires: where it is missing, no other alert can fire either.",
        NO_RULES,
    ),
    Column("alertname", "Alert", link=ROW_TO_RUNBOOK),
    Column("severity", "Severity"),
    Column("cluster", "Cluster"),
    Column("instance", "Node", link=ROW_TO_NODE),
    Column("gpu", "GPU"),
    Column(
        """max by (alertname, severity, cluster, instance, gpu) (
        ALERTS_FOR_STATE and ignoring (alertstate) ALERTS{FIRING, severity!="info"}) * 1000""",
        "Since",
        "dateTimeFromNow",
    ),
    sort="Since",
    size=(24, 9),
)

ENERGY = (
    number(
        About("Energy, 24 h", "What the GPUs used within the last day.", NO_NODE),
        Query("sum(increase(gpu_energy_joules_total{NODE}[24h])) / 3.6e6"),
        unit="kwatth",
        size=(6, 8),
    ),
    number(
        About(
            "Idle GPUs",
            "GPUs on which a kernel ran less than 5 % of the last hour. MIG devices do not count.",
            NO_NODE,
        ),
        Query("sum(rate(gpu_busy_seconds_total{NODE}[1h]) < bool 0.05)"),
        size=(6, 8),
    ),
    graph(
        About("Power", "What the GPUs of a node draw. The 20 hungriest nodes.", NO_NODE),
        Query(f"topk(20, sum {EACH} (gpu_power_watts{{NODE}}))", "{{instance}}"),
        unit="watt",
        link=TO_NODE,
    ),
)

FLEET = Page(
    uid="gpu-fleet",
    title="GPU fleet",
    text="All nodes: which are sick, full or idle?",
    rows=(
        Row("Now", NOW),
        Row("Nodes", (NODES,)),
        Row("Alerts", (ALERTS,)),
        Row("Trend", TREND),
        Row("Energy", ENERGY),
    ),
)
