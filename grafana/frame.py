"""What all dashboards have in common: variables, annotations, links, and their JSON."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard
from links import RUNBOOKS, TAG, to_others
from queries import DATASOURCE, Query

STEP = "15s"  # between two looks for an event
SCHEMA_VERSION = 39  # of Grafana 10 and 11; later ones migrate it when they load it
NO_NODE = "No readings. Is the exporter up? See the alert GpuExporterDown."


@dataclass(frozen=True, slots=True)
class Row:
    """A heading, and the panels under it."""

    title: str
    panels: tuple[Builder[dashboard.Panel], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A dashboard.

    Attributes:
        uid: Its name in URLs and of its file.
        many: Whether it shows all nodes until some are chosen, or the first.
        host: Whether it shows other programs of the node too.
        gpu: Whether GPUs can be chosen.
    """

    uid: str
    title: str
    text: str
    rows: tuple[Row, ...]
    many: bool = True
    host: bool = False
    gpu: bool = False


def written(page: Page) -> str:
    """Return a dashboard as the text of its file."""
    made = _made(page)
    for number, panel in enumerate(made["panels"], start=1):
        panel["id"] = number
        panel.pop("repeatDirection", None)  # nothing is repeated
    for variable in made["templating"]["list"]:
        if variable["type"] == "constant":
            variable["hide"] = int(dashboard.VariableHide.HIDE_VARIABLE)
    made["schemaVersion"] = SCHEMA_VERSION
    return json.dumps(_plain(made), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _plain(value: object) -> object:
    """Return it without what the SDK adds: a menu of Grafana 12 that would hide links."""
    if isinstance(value, dict):
        return {
            key: _plain(part)
            for key, part in value.items()
            if key != "placement" or value.get("displayMode")
        }
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value


def _made(page: Page) -> dict[str, Any]:
    with warnings.catch_warnings():
        # The newer schema, which the warning recommends, does not load in Grafana 10 and 11.
        warnings.simplefilter("ignore", DeprecationWarning)
        made = builder.Dashboard(page.title)
    made.uid(page.uid).description(page.text).tags([TAG]).readonly().refresh("30s")
    made.time("now-3h", "now").timezone("browser").link(to_others())
    made.tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
    for variable in _variables(page):
        made.with_variable(variable)
    for annotation in _annotations():
        made.annotation(annotation)
    for row in page.rows:
        made.with_row(builder.Row(row.title))
        for panel in row.panels:
            made.with_panel(panel)
    plain: dict[str, Any] = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    return plain


def _variables(page: Page) -> Sequence[Builder[dashboard.VariableModel]]:
    every = dashboard.VariableOption(text="All", value="$__all")
    cluster = _query("cluster", "Cluster", "label_values(gpu_exporter_build_info, cluster)")
    job = _query("job", "Job", 'label_values(gpu_exporter_build_info{cluster=~"$cluster"}, job)')
    instance = _query(
        "instance",
        "Instance",
        'label_values(gpu_exporter_build_info{cluster=~"$cluster", job=~"$job"}, instance)',
    ).all_value(".+")
    if page.many:
        instance.include_all(True).current(every)
    variables: list[Builder[dashboard.VariableModel]] = [
        builder.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        cluster.include_all(True).all_value(".*").current(every),
        # All jobs are those of the list: up{job=~".+"} would count everybody's targets.
        job.include_all(True).current(every),
        instance,
    ]
    if page.host:
        # The chosen nodes without their port: all options of this variable, always.
        of_ours = "gpu_exporter_build_info{NODE}"
        host = _query("host", "Host", f"label_values({Query(of_ours).written}, instance)")
        host.include_all(True).current(every).hide(dashboard.VariableHide.HIDE_VARIABLE)
        variables.append(host.regex(r"/^(.+?)(?::\d+)?$/"))
    if page.gpu:
        gpu = _query("gpu", "GPU", f"label_values({Query('gpu_up{NODE}').written}, gpu)")
        variables.append(gpu.include_all(True).all_value(".+").current(every))
    return [*variables, builder.ConstantVariable("runbooks").label("Runbooks").value(RUNBOOKS)]


def _query(name: str, label: str, query: str) -> builder.QueryVariable:
    return (
        builder.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query({"query": query, "refId": f"variable-{name}"})
        .definition(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.NUMERICAL_ASC)
        .multi(True)
    )


@dataclass(frozen=True, slots=True)
class Event:
    """What is marked on every graph; `at_value`: the value is when it was, in milliseconds."""

    name: str
    color: str
    expr: str
    title: str
    text: str
    at_value: bool = False


EVENTS = (
    Event(
        "Alerts",
        "red",
        'ALERTS{FIRING, severity!="none"}',
        "{{alertname}}",
        "{{severity}} on {{instance}} GPU {{gpu}}",
    ),
    Event(
        "XID errors",
        "purple",
        "gpu_xid_last_timestamp_seconds{NODE} * 1000",
        "XID {{xid}} {{mnemonic}}",
        "{{instance}} GPU {{gpu}}: {{action}}",
        at_value=True,
    ),
    Event(
        "Scale-out requests",
        "blue",
        'increase(scaleout_events_total{NODE, result=~"fired|dry_run"}[$__rate_interval]) > 0',
        "{{action}} {{result}}",
        "{{instance}}",
    ),
    Event(
        "Flight recordings",
        "yellow",
        "gpu_recorder_active{NODE} == 1",
        "Recording",
        "{{instance}}: gpu-node-exporter recordings list",
    ),
    Event(
        "Exporter starts",
        "text",
        "process_start_time_seconds{NODE} * 1000",
        "Exporter started",
        "{{instance}}",
        at_value=True,
    ),
)


def _annotations() -> Iterable[builder.AnnotationQuery]:
    for event in EVENTS:
        expr = Query(event.expr).written
        made = (
            builder.AnnotationQuery()
            .name(event.name)
            .datasource(DATASOURCE)
            .enable(True)
            .icon_color(event.color)
            # Some versions of Grafana look at one of them, some at the other.
            .target(prometheus.Dataquery().expr(expr).ref_id("Anno").range().interval(STEP))
            .expr(expr)
            .title_format(event.title)
            .text_format(event.text)
            .step(STEP)
        )
        yield made.use_value_for_time(True) if event.at_value else made
