"""Every series that alerts/ and grafana/ may name: the catalogue, and what others expose."""

from __future__ import annotations

import re
from functools import cache

from alert_rules import ROOT, recordings
from promql import metrics

from exporter.catalogue import CATALOGUE
from exporter.config import Config
from exporter.metric import Kind, MetricVec
from exporter.rules_view import WINDOW
from exporter.scaleout.model import Outcome
from exporter.scaleout.records import STATES
from exporter.scaleout.verdict import RESULTS
from exporter.xid.table import Severity

TARGET = {"job", "instance", "cluster"}  # Prometheus's and the operator's own labels

# Series that are not ours, with the labels that they have of their own.
FOREIGN = {
    "up": set[str](),
    "scrape_duration_seconds": set[str](),
    "ALERTS": {"alertname", "alertstate", "severity", "component", "family", "gpu"},
    "ALERTS_FOR_STATE": {"alertname", "severity", "component", "family", "gpu"},
    "prometheus_rule_evaluation_failures_total": {"rule_group"},
    "alertmanager_notifications_total": {"integration"},
    "alertmanager_notifications_failed_total": {"integration", "reason"},
    "vllm:num_requests_running": {"model_name", "engine"},
    "vllm:num_requests_waiting": {"model_name", "engine"},
    "vllm:generation_tokens_total": {"model_name", "engine"},
    "vllm:prompt_tokens_total": {"model_name", "engine"},
    "vllm:time_to_first_token_seconds_bucket": {"model_name", "engine", "le"},
    "vllm:time_to_first_token_seconds_count": {"model_name", "engine"},
    "vllm:e2e_request_latency_seconds_bucket": {"model_name", "engine", "le"},
    "vllm:e2e_request_latency_seconds_count": {"model_name", "engine"},
    "tgi_batch_current_size": set[str](),
    "tgi_queue_size": set[str](),
    "tgi_batch_inference_count": {"method"},
    "tgi_request_duration_bucket": {"le"},
    "tgi_request_duration_count": set[str](),
    "nv_inference_pending_request_count": {"model", "version"},
    "nv_inference_exec_count": {"model", "version", "gpu_uuid"},
    "nv_inference_request_success": {"model", "version", "gpu_uuid"},
    "nv_inference_request_summary_us": {"model", "version", "gpu_uuid", "quantile"},
}
OURS = {
    metric.name: {*table.labels, *(metric.labels if isinstance(metric, MetricVec) else ())}
    for table in CATALOGUE
    for metric in table.metrics
}
COUNTERS = {
    metric.name for table in CATALOGUE for metric in table.metrics if metric.kind is Kind.COUNTER
}
RECORDED = {
    recording.name: {
        label for metric in metrics(recording.expr) for label in FOREIGN.get(metric, ())
    }
    | set(recording.labels)
    for recording in recordings()
}
KNOWN = {**FOREIGN, **OURS, **RECORDED}

# Values of labels that no golden page shows, from where the code has them.
_WRITTEN = {
    ("gpu_xid_last_timestamp_seconds", "class"): {one.value for one in Severity},
    ("gpu_xid_unlisted_last_timestamp_seconds", "class"): {one.value for one in Severity},
    ("scaleout_events_total", "result"): set(RESULTS),
    ("scaleout_deliveries_total", "result"): {one.value for one in Outcome},
    ("scaleout_outbox_events", "state"): set(STATES),
    ("gpu_utilization_window_min_peak_ratio", "window"): {WINDOW},
    ("gpu_exporter_read_errors_total", "group"): {"inference"},
    # The rules without a configuration.
    ("gpu_rule_threshold", "rule"): {rule.alert for rule in Config().rules},
    ("gpu_rule_firings_total", "rule"): {rule.alert for rule in Config().rules},
}


@cache
def values(metric: str, label: str) -> set[str]:
    """Return the values that a label of a metric of ours may have."""
    pages = "".join(page.read_text() for page in (ROOT / "tests/golden").glob("*.prom"))
    seen = re.findall(rf'^{metric}\{{(?:[^}}]*,)?{label}="([^"]*)"', pages, re.MULTILINE)
    return set(seen) | _WRITTEN.get((metric, label), set())
