"""Panels that are tables: one row for each set of labels, one column a label or a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, table
from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from limits import Limit, thresholds
from panels import About, States, dressed, states, target
from queries import Query

TEXT = "string"


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        source: A label; or the expression whose value it shows.
        title: Its head.
        unit: Grafana's unit; a label has none.
        limits: Values from which on it is colored.
        words: Values that are shown as words.
        link: Where a click leads.
    """

    source: str
    title: str
    unit: str = TEXT
    limits: tuple[Limit, ...] = ()
    words: States | None = None
    link: builder.DashboardLink | None = None

    @property
    def is_value(self) -> bool:
        """Whether it shows a value."""
        return self.unit != TEXT


def rows(
    about: About,
    *columns: Column,
    among: str = "",
    sort: str = "",
    size: tuple[int, int] = (24, 8),
) -> table.Panel:
    """Return a table.

    Args:
        about: Its texts.
        *columns: In their order.
        among: The query of a table that has labels alone.
        sort: Title of the column to sort by, descending.
        size: Width of 24, height.
    """
    exprs = [column.source for column in columns if column.is_value] or [among]
    fields = _fields(columns, len(exprs))
    limits = [limit for column in columns for limit in column.limits]
    panel = table.Panel().transformations(_arranged(fields)).filterable(True)
    for place, expr in enumerate(exprs):
        panel.with_target(target(Query(expr), place).instant().format(PromQueryFormat.TABLE))
    for field, column in fields.items():
        panel.override_by_name(field, _look(column))
    if sort:
        panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(True)])
    return dressed(panel, about, limits, size)


def _fields(columns: Sequence[Column], queries: int) -> dict[str, Column]:
    """Return columns by the field that Grafana makes of each: Value, or Value #A of several."""
    fields, place = {}, 0
    for column in columns:
        if column.is_value:
            field = f"Value #{chr(ord('A') + place)}" if queries > 1 else "Value"
            place += 1
        else:
            field = column.source
        fields[field] = column
    return fields


def _arranged(fields: dict[str, Column]) -> list[dashboard.DataTransformerConfig]:
    hidden = {"Time": True}
    if "Value" not in fields:
        hidden["Value"] = True
    order = {field: index for index, field in enumerate(fields)}
    organized = {"excludeByName": hidden, "indexByName": order, "renameByName": {}}
    return [
        dashboard.DataTransformerConfig(id_val="merge", options={}),
        dashboard.DataTransformerConfig(id_val="organize", options=organized),
    ]


def _look(column: Column) -> list[dashboard.DynamicConfigValue]:
    looks: dict[str, object] = {"displayName": column.title}
    if column.is_value:
        looks["unit"] = column.unit
    if column.limits:
        looks["thresholds"] = thresholds(column.limits, "text").build()
    if column.words:
        looks["mappings"] = states(column.words)
    if column.limits or column.words:
        looks["custom.cellOptions"] = {"type": "color-text"}
    if column.link:
        looks["links"] = [column.link.build()]
    return [dashboard.DynamicConfigValue(key, value) for key, value in looks.items()]
