"""The kinds of panels that the dashboards have, and what each of them must say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    common,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from limits import Limit, thresholds
from links import runbook
from queries import DATASOURCE, Query

States = Mapping[int, tuple[str, str]]  # value -> its word and color
PanelT = TypeVar(
    "PanelT", heatmap.Panel, stat.Panel, statetimeline.Panel, table.Panel, timeseries.Panel
)


@dataclass(frozen=True, slots=True)
class About:
    """What a panel says of itself.

    Attributes:
        title: What it shows.
        text: How to read it.
        empty: Why it may be empty: shown instead of a graph.
        alerts: Alerts about this, beside those of its limits.
    """

    title: str
    text: str
    empty: str
    alerts: tuple[str, ...] = ()


def dressed(panel: PanelT, about: About, limits: Sequence[Limit], size: tuple[int, int]) -> PanelT:
    """Give a panel its texts, its runbooks and its size (width of 24, height)."""
    alerts = list(dict.fromkeys([*(limit.alert for limit in limits), *about.alerts]))
    text = f"{about.text}\n\nAlerts: {', '.join(alerts)}." if alerts else about.text
    return (
        panel.title(about.title)
        .description(text)
        .links([runbook(alert) for alert in alerts])
        .datasource(DATASOURCE)
        .no_value(about.empty)
        .span(size[0])
        .height(size[1])
    )


def target(query: Query, number: int) -> prometheus.Dataquery:
    """Return what asks Prometheus."""
    return (
        prometheus.Dataquery()
        .datasource(DATASOURCE)
        .expr(query.written)
        .legend_format(query.legend or "__auto")
        .ref_id(chr(ord("A") + number))
    )


def states(words: States) -> list[dashboard.ValueMapping]:
    """Return the mappings that show values as words."""
    results = {
        str(value): dashboard.ValueMappingResult(text=word, color=color, index=index)
        for index, (value, (word, color)) in enumerate(words.items())
    }
    return [dashboard.ValueMap(options=results)]


def number(
    about: About,
    *queries: Query,
    unit: str = "none",
    limits: Sequence[Limit] = (),
    words: States | None = None,
    size: tuple[int, int] = (3, 4),
) -> stat.Panel:
    """Return a panel of one figure a query, as it is now."""
    panel = (
        stat.Panel()
        .unit(unit)
        .thresholds(thresholds(limits, "green" if limits else "text"))
        .color_mode(options.BigValueColorMode.VALUE)
        .graph_mode(options.BigValueGraphMode.NONE)
        .text_mode(
            options.BigValueTextMode.VALUE_AND_NAME
            if len(queries) > 1
            else options.BigValueTextMode.VALUE
        )
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    if words is not None:
        panel.mappings(states(words))
    for place, query in enumerate(queries):
        panel.with_target(target(query, place).instant())
    return dressed(panel, about, limits, size)


def graph(
    about: About,
    *queries: Query,
    unit: str,
    limits: Sequence[Limit] = (),
    link: builder.DashboardLink | None = None,
    stacked: bool = False,
    bars: bool = False,
    top: float | None = None,
    size: tuple[int, int] = (12, 8),
) -> timeseries.Panel:
    """Return a panel of lines over time. A series named `threshold...` is drawn as a limit."""
    panel = (
        timeseries.Panel()
        .unit(unit)
        .axis_soft_min(0)
        .thresholds(thresholds(limits))
        .color_scheme(builder.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC))
        .thresholds_style(
            common.GraphThresholdsStyleConfig().mode(
                options.GraphThresholdsStyleMode.DASHED
                if limits
                else options.GraphThresholdsStyleMode.OFF
            )
        )
        .line_width(1)
        .show_points(options.VisibilityMode.NEVER)
        .fill_opacity(60 if bars else 20 if stacked else 0)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
            .calcs([])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(options.TooltipDisplayMode.MULTI)
            .sort(options.SortOrder.DESCENDING)
        )
        .override_by_regexp("/^threshold/", _limit_look())
    )
    if bars:
        panel.draw_style(options.GraphDrawStyle.BARS)
    if stacked:
        panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL))
    if top is not None:
        panel.axis_soft_max(top)
    if link is not None:
        panel.data_links([link])
    for place, query in enumerate(queries):
        panel.with_target(target(query, place).range())
    return dressed(panel, about, limits, size)


def _limit_look() -> list[dashboard.DynamicConfigValue]:
    color = {"mode": "fixed", "fixedColor": "red"}
    return [
        dashboard.DynamicConfigValue("color", color),
        dashboard.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}),
    ]


def timeline(
    about: About, *queries: Query, words: States, size: tuple[int, int] = (12, 7)
) -> statetimeline.Panel:
    """Return a panel of states over time, a row for each series, in words and not color alone."""
    panel = (
        statetimeline.Panel()
        .mappings(states(words))
        .thresholds(thresholds((), "text"))
        .color_scheme(builder.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
        .merge_values(True)
        .show_value(options.VisibilityMode.AUTO)
        .fill_opacity(70)
        .line_width(0)
        .row_height(0.8)
        .legend(common.VizLegendOptions().show_legend(False).calcs([]))
    )
    for place, query in enumerate(queries):
        panel.with_target(target(query, place).range())
    return dressed(panel, about, (), size)


def heat(
    about: About, query: Query, *, unit: str, size: tuple[int, int] = (12, 8)
) -> heatmap.Panel:
    """Return a panel of a histogram over time."""
    panel = (
        heatmap.Panel()
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges"))
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .unit(unit)
        .with_target(target(query, 0).range().format(PromQueryFormat.HEATMAP))
    )
    return dressed(panel, about, (), size)
