"""What the alert rules hold to: names, labels, annotations, and only metrics that exist."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from alert_rules import ALERTS, RULE_FILES, Rule, alerts, fired_labels, recordings, rules
from alert_series import COUNTERS, KNOWN, OURS, RECORDED, TARGET, values
from promql import COMPARISONS, grouped, matchers, metrics, tokens

JOB = "gpu-node"
RUNBOOKS = "https://runbooks.example.com/gpu-node/"
DASHBOARDS = "https://grafana.example.com/d/"
PAGES = {
    "gpu-fleet",
    "gpu-node?var-instance={{ $labels.instance }}",
    "gpu-scaleout?var-instance={{ $labels.instance }}",
    "gpu-detail?var-instance={{ $labels.instance }}&var-gpu={{ $labels.gpu }}",
}

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
def test_label_values_exist(rule: Rule) -> None:
    """A value that a rule looks for is one that the daemon writes."""
    for matcher in matchers(rule.expr):
        if matcher.metric in OURS and matcher.label not in TARGET:
            known = values(matcher.metric, matcher.label)
            assert set(matcher.value.split("|")) <= known, (matcher, sorted(known))


@each_rule
def test_our_series_are_told_from_those_of_others(rule: Rule) -> None:
    """Every selector of a metric of ours, and of `up` where it is about us, names the job."""
    jobs = Counter(
        matcher.metric
        for matcher in matchers(rule.expr)
        if (matcher.label, matcher.operator, matcher.value) == ("job", "=", JOB)
    )
    words = Counter(token.text for token in tokens(rule.expr) if token.kind == "word")
    for name in metrics(rule.expr) & OURS.keys():
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
