"""Ways from one place to the next: fleet, node, GPU, runbook."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.models import dashboard

TAG = "gpu-node"
RUNBOOKS = "https://runbooks.example.com/gpu-node"  # as in alerts/; the variable `runbooks`
_KEPT = "${datasource:queryparam}&${cluster:queryparam}&${job:queryparam}&${__url_time_range}"


def link(title: str, url: str, *, new_tab: bool = False) -> builder.DashboardLink:
    """Return a link to a URL in which variables stand."""
    made = builder.DashboardLink(title).type(dashboard.DashboardLinkType.LINK).url(url)
    return made.target_blank(new_tab)


def runbook(alert: str) -> builder.DashboardLink:
    """Return a link to the runbook of an alert."""
    return link(f"Runbook: {alert}", f"${{runbooks}}/{alert}.md", new_tab=True)


# Of a series, by its labels.
TO_NODE = link("Node", f"/d/gpu-node?var-instance=${{__field.labels.instance}}&{_KEPT}")
TO_GPU = link(
    "GPU",
    "/d/gpu-detail?var-instance=${__field.labels.instance}&var-gpu=${__field.labels.gpu}&" + _KEPT,
)
# Of a row in a table, by its columns.
ROW_TO_NODE = link("Node", f"/d/gpu-node?var-instance=${{__data.fields.instance}}&{_KEPT}")
ROW_TO_GPU = link(
    "GPU",
    "/d/gpu-detail?var-instance=${__data.fields.instance}&var-gpu=${__data.fields.gpu}&" + _KEPT,
)
ROW_TO_RUNBOOK = link("Runbook", "${runbooks}/${__data.fields.alertname}.md", new_tab=True)


def to_others() -> builder.DashboardLink:
    """Return the menu of our dashboards, which takes variables and time along."""
    return (
        builder.DashboardLink("GPU dashboards")
        .type(dashboard.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )
