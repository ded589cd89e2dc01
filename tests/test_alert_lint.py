"""What the alert rules hold to: names, labels, annotations, and only metrics that exist."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from alert_rules import ALERTS, RULE_FILES, Rule, alerts, fired_labels, recordings, rules
from promql import COMPARISONS, grouped, matchers, metrics, tokens

from exporter.catalogue import CATALOGUE
from exporter.metric import Kind, MetricVec

JOB = "gpu-node"
TARGET = {"job", "instance", "cluster"}  # Prometheus's and the operator's own labels
RUNBOOKS = "https://runbooks.example.com/gpu-node/"
DASHBOARDS = "https://grafana.example.com/d/"
PAGES = {
    "gpu-fleet",
    "gpu-node?var-instance={{ $labels.instance }}",
    "gpu-scaleout?var-instance={{ $labels.instance }}",
    "gpu-detail?var-instance={{ $labels.instance }}&var-gpu={{ $labels.gpu }}",
}

# Series that are not ours, with the labels that they have of their own.
FOREIGN = {
    "up": set[str](),
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
# Ours, promised and not yet in the catalogue: must be empty before a release.
PENDING = {
    "gpu_xid_errors_total": {"gpu", "uuid", "xid"},
    "gpu_xid_last_timestamp_seconds": {"gpu", "uuid", "xid", "mnemonic", "class", "action"},
    "gpu_xid_unlisted_last_timestamp_seconds": {"pci_bus_id", "xid", "mnemonic", "class", "action"},
    "gpu_exporter_xid_source_up": {"source"},
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
KNOWN = {**FOREIGN, **PENDING, **OURS, **RECORDED}

each_alert = pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
each_rule = pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)


@each_rule
def test_metrics_and_labels_exist(rule: Rule) -> None:
    """Whatever a rule names is in the catalogue, or a series of somebody else that we know."""
    named = metrics(rule.expr)
    assert named <= KNOWN.keys(), named - KNOWN.keys()
    for matcher in matchers(rule.expr):
        assert matcher.label in KNOWN[matcher.metric] | TARGET, matcher
    labels = {label for name in named for label in KNOWN[name]} | TARGET
    assert {label.text for label in grouped(rule.expr)} <= labels


@each_rule
def test_our_series_are_told_from_those_of_others(rule: Rule) -> None:
    """Every selector of a metric of ours, and of `up` where it is about us, names the job."""
    jobs = Counter(
        matcher.metric
        for matcher in matchers(rule.expr)
        if (matcher.label, matcher.operator, matcher.value) == ("job", "=", JOB)
    )
    words = Counter(token.text for token in tokens(rule.expr) if token.kind == "word")
    for name in metrics(rule.expr) & (OURS.keys() | PENDING.keys()):
        assert jobs[name] == words[name], name
    assert jobs["up"] in {0, words["up"]}


@each_rule
def test_counters_are_looked_at_by_their_growth(rule: Rule) -> None:
    """A counter stands in rate() or increase() over at least a minute: two scrapes of 30 s.

    One alert looks at a level on purpose: uncorrected ECC errors, which a reset clears.
    """
    if rule.name == "GpuEccUncorrected":
        return
    for name in metrics(rule.expr) & COUNTERS:
        grown = rf"(?:rate|increase)\({name}(?:\{{[^}}]*\}})?\[(?:\d+h|[1-9]\d*m)\]\)"
        assert len(re.findall(grown, rule.expr)) == rule.expr.count(name), name


def test_names_are_unique_and_of_one_form() -> None:
    """An alert's name says what it is about, and no two rules of a name differ."""
    names = [alert.name for alert in alerts()]
    assert len(names) == len(set(names))
    prefixes = r"(Gpu|Host|Process|Inference|Prometheus|Alertmanager)[A-Z]\w+|Watchdog"
    assert all(re.fullmatch(prefixes, name) for name in names)
    of_a_name = Counter((rule.name, str(rule.labels)) for rule in recordings())
    assert set(of_a_name.values()) == {1}
    assert all(re.fullmatch(r"[a-z_]+:[a-z_0-9]+:\w+|inference:requests_\w+", n) for n in RECORDED)
    groups = [(rule.file, rule.group) for rule in rules()]
    assert len({group for _, group in groups}) == len(set(groups))


@each_alert
def test_labels_route_and_inhibit(alert: Rule) -> None:
    """Severity, component and family are there, constant; a GPU's alert has a GPU to join on."""
    assert {"severity", "component", "family"} <= alert.labels.keys()
    assert alert.labels.keys() <= {"severity", "component", "family", "action"}
    assert alert.labels["severity"] in {"critical", "warning", "info", "none"}
    assert alert.labels["component"] in {
        *("exporter", "gpu", "host", "process", "inference", "scaleout", "meta")
    }
    assert alert.labels.get("action", "record") in {"record", "scale-out"}
    assert "{{" not in str(alert.labels)
    for fired in fired_labels(alert.name):
        of_gpu = alert.labels["component"] == "gpu" and alert.name not in {
            *("GpuMissing", "GpuXidUnlisted")  # which has none is what they are about
        }
        assert not of_gpu or {"gpu", "uuid"} <= fired.keys()


@each_alert
def test_conditions_compare(alert: Rule) -> None:
    """Every alert compares; absent() waits for two scrapes at least."""
    compared = any(
        token.text in COMPARISONS for token in tokens(alert.expr) if token.place == "expr"
    )
    assert compared or alert.name in {"Watchdog", "GpuExporterAbsent"}
    if "absent(" in alert.expr:
        assert alert.wait
    assert "avg_over_time" not in alert.expr or not alert.wait  # one smoothing is enough


@each_alert
def test_a_dead_node_gives_no_all_clear(alert: Rule) -> None:
    """Alerts whose series end with the node hold on for longer than GpuExporterDown waits."""
    if alert.labels["component"] in {"gpu", "host", "process"}:
        assert alert.keep in {"5m", "10m"} or alert.name == "GpuSustainedLoad"


@each_alert
def test_annotations_help(alert: Rule) -> None:
    """All four are there: constant summary, value and first action, runbook and dashboard."""
    said = alert.annotations
    assert said.keys() == {"summary", "description", "runbook_url", "dashboard_url"}
    assert "$value" not in said["summary"]
    assert len(said["summary"]) <= 120
    assert "First: " in said["description"]
    for value in re.findall(r"\{\{[^}]*\$value[^}]*\}\}", said["description"]):
        plain = re.search(r"humanize|printf", value)
        assert plain or alert.name in {
            *("GpuExporterRestarting", "GpuScaleOutStuck", "GpuMissing", "GpuEccUncorrected"),
            *("GpuPcieWidthDegraded", "GpuPcieGenerationDegraded"),  # whole numbers as they are
        }, value
    assert said["runbook_url"] == f"{RUNBOOKS}{alert.name}.md"
    assert said["dashboard_url"].removeprefix(DASHBOARDS) in PAGES


@each_alert
def test_templates_name_labels_that_the_alert_has(alert: Rule) -> None:
    """Each $labels.x survives the aggregations of the condition: no blank in a page."""
    named = set(re.findall(r"\$labels\.(\w+)", str(dict(alert.annotations))))
    for fired in fired_labels(alert.name):
        assert named <= fired.keys()


@each_alert
def test_recordings_are_in_the_group_of_their_alerts(alert: Rule) -> None:
    """Groups run beside each other: an alert would see a recording of the evaluation before."""
    groups = {rule.group for rule in recordings() if rule.name in metrics(alert.expr)}
    assert groups <= {alert.group}


def test_every_rule_file_is_found() -> None:
    """What is in alerts/ and looks like rules is tested, and short enough to read."""
    assert len(RULE_FILES) == 10
    for path in ALERTS.rglob("*.yml"):
        assert len(path.read_text().splitlines()) <= 300, path
