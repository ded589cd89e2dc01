"""What the dashboards of many nodes share: one panel, queries, limits."""

from __future__ import annotations

from frame import NO_NODE
from grafana_foundation_sdk.builders import timeseries
from limits import critical, warning
from links import TO_NODE
from panels import About, graph
from queries import Query

NO_SERVER = "No inference server is scraped, or the rules of alerts/ are not loaded."
EACH = "by (cluster, instance)"
VRAM = (warning("GpuMemoryHigh", 0.8), critical("GpuMemoryExhausted", 0.98))
P99 = (warning("InferenceLatencyP99High", 0.8),)
BACKLOG = (warning("InferenceQueueBacklog", 10),)

SLOWEST = Query(
    "topk(20, inference:latency_seconds:p99{CLUSTER} >= 0)",
    "{{instance}} {{server}} {{latency}}",
)
WAITING = Query("topk(20, inference:requests_waiting{CLUSTER})", "{{instance}} {{server}}")


def fullest() -> timeseries.Panel:
    """Return the panel of the nodes with the fullest GPUs."""
    return graph(
        About("GPU memory", "Used share on the fullest GPU. The 20 fullest nodes.", NO_NODE),
        Query(f"topk(20, max {EACH} (gpu_memory_used_ratio{{NODE}}))", "{{instance}}"),
        unit="percentunit",
        limits=VRAM,
        top=1,
        link=TO_NODE,
    )
