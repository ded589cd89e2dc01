"""The dashboards as files: generated, valid, tied to each other, and provisioned."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from alert_rules import alerts
from dashboards import FILES, GRAFANA, Panel, dashboards, events, panels, variables
from test_dashboard_lint import check_series

EVENTS = {
    *("Alerts", "XID errors", "Scale-out requests", "Flight recordings", "Exporter starts"),
}
DOCUMENT = GRAFANA.parent / "docs" / "dashboards.md"
UIDS = {"gpu-fleet", "gpu-node", "gpu-detail", "gpu-scaleout"}

each_dashboard = pytest.mark.parametrize("uid", dashboards())
of_the_sdk = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="grafana-foundation-sdk needs Python 3.11"
)


@of_the_sdk
def test_regenerating_changes_nothing(tmp_path: Path) -> None:
    """The committed files are what their code gives, and nothing else lies there."""
    subprocess.run([sys.executable, GRAFANA / "build.py", tmp_path], check=True)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in (*FILES, DOCUMENT)}
    assert {path.stem for path in FILES} == dashboards().keys() == UIDS


@of_the_sdk
@each_dashboard
# Grafana 10 and 11 do not load what it prefers.
@pytest.mark.filterwarnings("ignore:Prefer using dashboardv2:DeprecationWarning")
def test_grafanas_types_hold_all_of_it(uid: str) -> None:
    """Grafana's own types read a dashboard and write it again with no part lost or changed."""
    # Python 3.10 does not have them.
    from grafana_foundation_sdk.cog.encoder import JSONEncoder  # noqa: PLC0415
    from grafana_foundation_sdk.cog.plugins import register_default_plugins  # noqa: PLC0415
    from grafana_foundation_sdk.models.dashboard import Dashboard  # noqa: PLC0415

    register_default_plugins()
    read = Dashboard.from_json(dict(dashboards()[uid]))
    again = json.loads(json.dumps(read, cls=JSONEncoder))
    assert list(lost(dashboards()[uid], again, uid)) == []


def lost(before: Any, after: Any, path: str) -> Iterator[str]:
    """Yield where something of the first is not in the second."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{path}[{place}]")
    elif before != after:
        yield f"{path}: {before!r} became {after!r}"


@each_dashboard
def test_frame(uid: str) -> None:
    """Read only, tagged, one cursor for all graphs, and of a schema that Grafana 10 loads."""
    document = dashboards()[uid]
    assert document["uid"] == uid
    assert document["title"]
    assert document["description"].endswith(("?", "."))
    assert (document["editable"], document["graphTooltip"]) == (False, 1)
    assert (document["schemaVersion"], document["tags"]) == (39, ["gpu-node"])
    assert document["refresh"] == "30s"


@each_dashboard
def test_panels_lie_beside_each_other(uid: str) -> None:
    """Ids are unique, and no panel covers another or leaves the grid."""
    everything = dashboards()[uid]["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        place = panel["gridPos"]
        assert 0 <= place["x"] <= 24 - place["w"], panel["title"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@each_dashboard
def test_variables(uid: str) -> None:
    """Source, cluster, job and nodes are chosen everywhere; lists follow the time range.

    A page of many nodes shows all of them at first; one of single nodes none but the first.
    """
    found = {variable["name"]: variable for variable in variables(uid)}
    assert list(found)[:4] == ["datasource", "cluster", "job", "instance"]
    assert (found["datasource"]["type"], found["datasource"]["label"]) == (
        "datasource",
        "Data source",
    )
    assert found["cluster"]["allValue"] == ".*"  # a target without the label is of no cluster
    assert found["instance"]["allValue"] == ".+"
    assert "allValue" not in found["job"]  # or up{job=~".+"} would count everybody's targets
    assert found["instance"]["includeAll"] == (uid in {"gpu-fleet", "gpu-scaleout"})
    for name in found.keys() - {"datasource", "runbooks"}:
        variable = found[name]
        assert (variable["label"], variable["multi"]) == (
            name.title() if name != "gpu" else "GPU",
            True,
        )
        assert variable["refresh"] == 2
        assert variable["datasource"]["uid"] == "${datasource}"
    assert found["runbooks"]["hide"] == 2
    assert (
        f"{found['runbooks']['query']}/{alerts()[0].name}.md"
        == (alerts()[0].annotations["runbook_url"])
    )


@each_dashboard
def test_queries_go_to_the_chosen_source(uid: str) -> None:
    """No panel, query or annotation names a data source of its own."""
    text = json.dumps(dashboards()[uid], sort_keys=True)
    ours = '"datasource": {"type": "prometheus", "uid": "${datasource}"}'
    assert text.count('"datasource": ') == text.count(ours)
    assert text.count(ours) >= 2 * sum(panel.dashboard == uid for panel in panels())


@each_dashboard
def test_annotations(uid: str) -> None:
    """What happened is marked on every graph, by series that there are."""
    assert {annotation["name"] for annotation in events(uid)} == EVENTS
    for annotation in events(uid):
        assert annotation["enable"]
        assert annotation["target"]["expr"] == annotation["expr"]
        check_series(annotation["expr"].replace("[$__rate_interval]", "[1m]"))
        millis = annotation["expr"].endswith("* 1000")
        assert annotation.get("useValueForTime", False) == millis


@each_dashboard
def test_links_lead_somewhere(uid: str) -> None:
    """A link goes to a dashboard of ours with variables that it has, or to a runbook."""
    for url in re.findall(r'"url": "([^"]*)"', json.dumps(dashboards()[uid])):
        if url.startswith("${runbooks}/"):
            assert url.endswith(".md")
            continue
        page = re.match(r"/d/([\w-]+)\?", url)
        assert page, url
        theirs = {variable["name"] for variable in variables(page.group(1))}
        assert set(re.findall(r"var-(\w+)=", url)) <= theirs
        ours = {variable["name"] for variable in variables(uid)}
        assert set(re.findall(r"\$\{(\w+):queryparam\}", url)) <= ours
        assert "${__url_time_range}" in url
    (menu,) = dashboards()[uid]["links"]
    assert (menu["type"], menu["tags"]) == ("dashboards", ["gpu-node"])
    assert (menu["keepTime"], menu["includeVars"]) == (True, True)


def test_alerts_open_a_dashboard() -> None:
    """Each alert's dashboard_url is one of ours, with variables that it has."""
    for alert in alerts():
        url = alert.annotations["dashboard_url"].removeprefix("https://grafana.example.com/d/")
        uid, _, query = url.partition("?")
        names = {variable["name"] for variable in variables(uid)}
        assert set(re.findall(r"var-(\w+)=", query)) <= names


def test_fleet_leads_to_node_and_node_to_gpu() -> None:
    """From a node's line or graph one click leads to the node, from a GPU's to the GPU."""

    def ways(panel: Panel) -> set[str]:
        return set(re.findall(r"/d/([\w-]+)", json.dumps(panel.document)))

    of_nodes = [panel for panel in panels() if panel.dashboard == "gpu-fleet"]
    of_gpus = [panel for panel in panels() if panel.dashboard == "gpu-node"]
    assert sum("gpu-node" in ways(panel) for panel in of_nodes) >= 5
    assert sum("gpu-detail" in ways(panel) for panel in of_gpus) >= 5


def test_columns_are_fields_of_their_queries() -> None:
    """Each column of a table is a label that its queries keep, or the value of one of them."""
    for panel in panels():
        if panel.type != "table":
            continue
        columns = {field for field, _ in panel.overrides("displayName")}
        single = len(panel.targets) == 1
        values = {"Value"} if single else {f"Value #{target.ref}" for target in panel.targets}
        labels = set()
        for target in panel.targets:
            kept = re.search(r"\b(?:by) \(([^)]*)\)", target.expr)
            assert kept, target.expr
            labels |= set(kept.group(1).split(", "))
        assert columns - labels - values == set()
        (organize,) = (t for t in panel.document["transformations"] if t["id"] == "organize")
        shown = labels | values - organize["options"]["excludeByName"].keys()
        assert shown - columns == set(), panel.name


def test_documentation_names_files_that_there_are() -> None:
    """Every link and picture of docs/dashboards.md is there."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", DOCUMENT.read_text())
    assert {f"images/{uid}.webp" for uid in UIDS} <= set(links)
    assert [link for link in links if not (DOCUMENT.parent / link).exists()] == []


def test_provisioning() -> None:
    """Grafana finds a default Prometheus, and the folder that the files belong in."""
    folder = GRAFANA / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    (provider,) = yaml.safe_load((folder / "dashboards/gpu-node.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"].endswith("/gpu-node-exporter")
    assert not provider["allowUiUpdates"]
