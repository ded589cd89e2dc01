"""Every query of every dashboard, on a real Prometheus that scraped the real daemon."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from dashboard_site import (
    BUSY_NODE,
    NODES,
    PAUSED_NODE,
    SERVER,
    SICK_NODE,
    VIRTUAL_NODE,
    chosen,
    site,
)
from dashboards import Panel, dashboards, events, filled, panels
from prometheus import Prometheus

SCRAPES = 12
ALL_NODES = {BUSY_NODE, PAUSED_NODE, *NODES, SICK_NODE, VIRTUAL_NODE}
PATIENCE_SECONDS = 90.0
# What must have happened before it is worth to look.
READY = (
    "scaleout_paused == 1",
    f"count(count_over_time(up[5m]) >= {SCRAPES}) == {len(ALL_NODES) + 1}",
    f'scaleout_deliveries_total{{instance="{BUSY_NODE}", result="delivered"}} > 0',
    f'gpu_xid_last_timestamp_seconds{{instance="{BUSY_NODE}", xid="79"}}',
    f'gpu_fault{{instance="{SICK_NODE}", reason="lost"}} == 1',
    f'inference:latency_seconds:p99{{instance="{SERVER}"}} > 0',
)


@pytest.fixture(scope="module")
def server(fake_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Give a Prometheus that has seen a while of the site."""
    with site(tmp_path_factory.mktemp("prometheus"), fake_library) as it:
        for condition in READY:
            it.until(condition, PATIENCE_SECONDS)
        yield it


@pytest.fixture(scope="module")
def values(server: Prometheus) -> Mapping[str, Mapping[str, str]]:
    """Give the variables of each dashboard."""
    return {uid: chosen(uid, server) for uid in dashboards()}


def named(legend: str, labels: Mapping[str, str]) -> str:
    """Return the name that Grafana gives a series."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match.group(1), ""), legend)


@pytest.mark.slow
@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel.name)
def test_panel_has_data(
    panel: Panel, server: Prometheus, values: Mapping[str, Mapping[str, str]]
) -> None:
    """Each query is understood and gives a finite figure; no two lines of a graph have one name.

    Five minutes back become five seconds: so old is no series here.
    """
    names: list[str] = []
    for target in panel.targets:
        expr = filled(target.expr, values[panel.dashboard]).replace("offset 5m", "offset 5s")
        now = time.time()
        if target.instant:
            figures = [value for _, value in server.query(expr)]
        else:
            lines = server.history(expr, now - 20, now)
            figures = [value for _, points in lines for _, value in points]
            names += [named(target.legend, labels) for labels, _ in lines]
        assert any(map(math.isfinite, figures)), expr
    assert len(set(names)) == len(names)


@pytest.mark.slow
@pytest.mark.parametrize("uid", dashboards())
def test_annotations_mark_what_happened(
    uid: str, server: Prometheus, values: Mapping[str, Mapping[str, str]]
) -> None:
    """The alerts, XIDs, requests, recordings and starts of the site are on its graphs."""
    now = time.time()
    for annotation in events(uid):
        expr = filled(annotation["expr"], values[uid])
        lines = server.history(expr, now - PATIENCE_SECONDS, now)
        assert lines, annotation["name"]
        if annotation.get("useValueForTime"):
            millis = [value for _, points in lines for _, value in points]
            assert all(now - 3600 < value / 1000 <= now for value in millis)


@pytest.mark.slow
def test_fleet_lists_every_node(
    server: Prometheus, values: Mapping[str, Mapping[str, str]]
) -> None:
    """Each query of the table of nodes is about these nodes, so that they make one line each."""
    (table,) = (panel for panel in panels() if panel.name.endswith(" Nodes"))
    for target in table.targets:
        rows = server.query(filled(target.expr, values["gpu-fleet"]))
        assert {labels["instance"] for labels, _ in rows} <= ALL_NODES
        assert all(labels.keys() <= {"instance", "cluster"} for labels, _ in rows)
    up = server.query(filled(table.targets[0].expr, values["gpu-fleet"]))
    assert {labels["instance"] for labels, _ in up} == ALL_NODES


@pytest.mark.slow
def test_zero_alerts_fire_only_where_rules_are_evaluated(server: Prometheus) -> None:
    """A Prometheus without the rules shows no reassuring 0."""
    (firing,) = (panel for panel in panels() if panel.title == "Alerts firing")
    expr = filled(firing.targets[0].expr, {"cluster": ".*", "job": "nobody", "instance": ".+"})
    assert server.query(expr)
    assert server.query(expr.replace("ALERTS{", "ALERTS{none!='',")) == []
