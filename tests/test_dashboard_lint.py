"""What each panel holds to: known series, chosen nodes, units, the alerts' limits, texts."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from alert_rules import alerts, recordings
from alert_series import COUNTERS, KNOWN, OURS, RECORDED, TARGET
from dashboards import Panel, filled, panels
from promql import grouped, matchers, metrics, tokens

UNITS = {
    *("percentunit", "bytes", "celsius", "watt", "kwatth", "hertz", "s", "Bps"),
    *("reqps", "cps", "none", "dateTimeFromNow"),
}
LEVELS = {"Uncorrected ECC errors"}  # a reset clears the counter: its level counts
NODE = {'cluster=~"$cluster"', 'job=~"$job"', 'instance=~"$instance"'}
OF_TARGETS = {
    *OURS,
    *(name for name in RECORDED if name.startswith("instance:")),
    *("up", "scrape_duration_seconds"),
}
ANY = 1.0  # of what should not be there at all

NUMBERS = {
    rule.name: {float(token.text) for token in tokens(rule.expr) if token.kind == "number"}
    for rule in (*alerts(), *recordings())
}
MENTIONED = {alert.name: metrics(alert.expr) & RECORDED.keys() for alert in alerts()}

each_panel = pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel.name)


def queries(panel: Panel) -> list[str]:
    """Return its queries as PromQL: a variable is a word in a string, Grafana's range a minute."""
    return [target.expr.replace("[$__rate_interval]", "[1m]") for target in panel.targets]


def check_series(expr: str) -> None:
    """Assert that every metric and label is known."""
    named = metrics(expr)
    assert named
    assert named <= KNOWN.keys(), named - KNOWN.keys()
    for matcher in matchers(expr):
        assert matcher.label in KNOWN[matcher.metric] | TARGET, matcher
    labels = {label for name in named for label in KNOWN[name]} | TARGET
    assert {label.text for label in grouped(expr)} <= labels


@each_panel
def test_metrics_and_labels_exist(panel: Panel) -> None:
    """Whatever a query or a legend names is in the catalogue, recorded in alerts/, or known."""
    for expr, target in zip(queries(panel), panel.targets, strict=True):
        check_series(expr)
        labels = {label for name in metrics(expr) for label in KNOWN[name]} | TARGET
        assert set(re.findall(r"\{\{(\w+)\}\}", target.legend)) <= labels


@each_panel
def test_selectors_follow_the_variables(panel: Panel) -> None:
    """A series of ours is of the chosen nodes, and any other at least of the chosen cluster."""
    for expr in queries(panel):
        words = Counter(token.text for token in tokens(expr) if token.place == "expr")
        for name in metrics(expr) - {"ALERTS_FOR_STATE"}:  # it is joined with ALERTS
            selected = Counter(
                f'{matcher.label}{matcher.operator}"{matcher.value}"'
                for matcher in matchers(expr)
                if matcher.metric == name
            )
            wanted = NODE if name in OF_TARGETS else {'cluster=~"$cluster"'}
            assert {selected[matcher] for matcher in wanted} == {words[name]}, name


@each_panel
def test_gpus_are_the_chosen_ones(panel: Panel) -> None:
    """Where GPUs can be chosen, every series that is of one GPU is of these."""
    if panel.dashboard == "gpu-detail":
        for expr in queries(panel):
            chosen = {matcher.metric for matcher in matchers(expr) if matcher.value == "$gpu"}
            assert chosen == {name for name in metrics(expr) if "gpu" in KNOWN[name]}


@each_panel
def test_counters_are_shown_by_their_growth(panel: Panel) -> None:
    """A counter stands in rate() or increase(), over a range that Grafana or an alert chose."""
    if panel.title in LEVELS:
        return
    for target, expr in zip(panel.targets, queries(panel), strict=True):
        for name in metrics(expr) & COUNTERS:
            window = r"\[(?:\$__rate_interval|[1-9]\d*[mh])\]"
            grown = rf"(?:rate|increase)\(\s*{name}(?:\{{[^}}]*\}})?{window}\)"
            times = len(re.findall(rf"\b{name}\b", target.expr))
            assert len(re.findall(grown, target.expr)) == times, name


@each_panel
def test_texts_help(panel: Panel) -> None:
    """There is a title, how to read it, and why it may be empty; alerts are named and linked."""
    assert panel.title
    assert panel.document["description"].endswith(".")
    assert panel.defaults["noValue"].endswith(".")
    assert len(panel.defaults["noValue"]) > len("No data.")
    assert panel.alerts <= {alert.name for alert in alerts()}
    named = set(re.findall(r"\b(?:Gpu|Host|Process|Inference)[A-Z]\w+", queries_stripped(panel)))
    assert named == panel.alerts


def queries_stripped(panel: Panel) -> str:
    """Return the sentence on alerts in a panel's description."""
    return str(panel.document["description"].partition("Alerts: ")[2])


@each_panel
def test_units_are_grafanas(panel: Panel) -> None:
    """Every figure has a unit, one that Grafana knows; a ratio is shown in percent."""
    units = panel.all("unit")
    assert set(units) <= UNITS
    assert panel.type in {"state-timeline", "table"} or len(units) == 1
    if all(re.fullmatch(r"[a-z_]+_ratio\{[^}]*\}", expr) for expr in queries(panel)):
        assert units == ["percentunit"]


@each_panel
def test_limits_are_those_of_the_alerts(panel: Panel) -> None:
    """Each limit is a number in the condition of an alert whose runbook the panel links to.

    A count of what should not be there at all has its limit at 1.
    """
    numbers = {
        number
        for alert in panel.alerts
        for rule in (alert, *MENTIONED[alert])
        for number in NUMBERS[rule]
    } | ({ANY} if "none" in panel.all("unit") else set())
    for given in panel.all("thresholds"):
        first, *steps = (step["value"] for step in given["steps"])
        assert first is None
        assert steps == sorted(steps)
        assert set(steps) <= numbers


@each_panel
def test_queries_and_legends_are_told_apart(panel: Panel) -> None:
    """No two queries of a panel have one id or one legend, and a graph's names its series."""
    targets = panel.targets
    assert len({target.ref for target in targets}) == len(targets)
    assert all(target.instant == (panel.type in {"stat", "table"}) for target in targets)
    if panel.type != "table":
        assert len({target.legend for target in targets}) == len(targets)
    if panel.type in {"timeseries", "state-timeline"}:
        assert all("{{" in target.legend for target in targets)
    if panel.type == "table":
        assert {target.format for target in targets} == {"table"}


@each_panel
def test_states_are_words(panel: Panel) -> None:
    """A state is told by a word, not by its color alone."""
    if panel.type == "state-timeline":
        (mapping,) = panel.defaults["mappings"]
        assert all(state["text"] for state in mapping["options"].values())


def test_every_alert_has_its_panel() -> None:
    """Of each alert on nodes and servers, some panel shows what it is about and its runbook."""
    shown = {alert for panel in panels() for alert in panel.alerts}
    about_nodes = {alert.name for alert in alerts() if alert.labels["component"] != "meta"}
    assert about_nodes - shown == set()


def test_variables_are_filled_in() -> None:
    """A variable that a dashboard does not have is told, rather than left in a query."""
    assert filled('up{job=~"$job"}[${x}]', {"job": "a", "x": "1m"}) == 'up{job=~"a"}[1m]'
    with pytest.raises(KeyError):
        filled("up{job=~'$jobs'}", {"job": "a"})
