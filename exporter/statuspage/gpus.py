"""The table of GPUs: a row each, with a small graph for each reading."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.recorder.svg import safe
from exporter.statuspage import spark, units
from exporter.statuspage.columns import Column, columns
from exporter.statuspage.past import SPANS, Band
from exporter.statuspage.view import GpuStatus, Status

# Clock events that are news; the others come and go with the load, or were asked for.
EVENTS = {
    "sw_power_cap": "power cap",
    "hw_slowdown": "hardware slowdown",
    "sw_thermal_slowdown": "thermal slowdown",
    "hw_thermal_slowdown": "hardware thermal slowdown",
    "hw_power_brake_slowdown": "power brake",
}
XIDS_SHOWN = 2
XID_STYLES = {"critical": "fault", "application": "firing", "informational": "calm"}
ECC_STYLES = {"uncorrected": "firing", "corrected": "calm"}
OVERHANG = 2  # of a stroke at the upper edge


def table(status: Status) -> Iterator[str]:
    """Yield the table."""
    shown = columns(status)
    yield clips(shown)
    yield '<table class="gpus" role="table"><thead role="rowgroup"><tr role="row">'
    minutes = SPANS * status.history_step_seconds / 60
    yield _head("GPU", f"graphs: the last {minutes:.0f} min")
    for column in shown:
        yield _head(column.name, column.legend)
    yield '</tr></thead><tbody role="rowgroup">'
    metrics = {rule.rule: rule.metric for rule in status.rules}
    for gpu in status.gpus:
        down = "" if gpu.up else ' class="down"'
        yield f'<tr role="row"{down}>{_name(gpu, status)}'
        firing = {metrics.get(rule.rule) for rule in gpu.rules if rule.state == "firing"}
        for column in shown:
            yield _cell(gpu, column, is_firing=column.metric in firing)
        yield "</tr>"
    yield "</tbody></table>"


def clips(shown: tuple[Column, ...]) -> str:
    """Return the part of each graph that lies beyond its lowest threshold."""
    paths = [
        f'<clipPath id="{column.clip}"><rect y="-{OVERHANG}" width="{SPANS}" '
        f'height="{column.scale.y(column.lines[0]) + OVERHANG}"/></clipPath>'
        for column in shown
        if column.lines
    ]
    return f'<svg class="defs" aria-hidden="true">{"".join(paths)}</svg>'


def band(gpu: str, column: Column, past: Band, limits: tuple[float, ...]) -> str:
    """Return the graph of one reading: its band, in colour beyond the threshold, and lines."""
    found = spark.extremes([past])
    if found is None:
        return ""
    low, high = found
    note = f"{column.form(low)} to {column.form(high)}"
    drawing = []
    for line in (*column.lines, *limits):
        drawing.append(f'<path class="l" d="{spark.level(line, column.scale)}"/>')
        note += f", line at {column.form(line)}"
    name = f"{column.readings[0][:2]}{gpu}"
    drawing.append(f'<path id="{name}" d="{spark.band(past, column.scale)}"/>')
    if column.lines and high >= column.lines[0]:
        drawing.append(f'<use class="o" href="#{name}" clip-path="url(#{column.clip})"/>')
    return spark.graph(f"{column.name}, {gpu}", note, *drawing)


def _head(name: str, legend: str) -> str:
    return (
        f'<th scope="col" role="columnheader"><b>{safe(name)}</b><br><small>{legend}</small></th>'
    )


def _name(gpu: GpuStatus, status: Status) -> str:
    """Return the head of a row: who it is, and what is to be said of it."""
    tags = [_tag("calm", EVENTS[event]) for event in gpu.clock_events if event in EVENTS]
    if gpu.fault is not None:
        tags.append(_tag("fault", gpu.fault.replace("_", " ")))
    now = (status.timestamp_seconds or 0.0) + (status.age_seconds or 0.0)
    for error in gpu.xids[:XIDS_SHOWN]:
        ago = units.duration(now - error.last_timestamp_seconds)
        tags.append(_tag(XID_STYLES[error.severity], f"XID {error.xid}, {ago} ago"))
    for name, count in (
        ("uncorrected", gpu.ecc_uncorrected_errors),
        ("corrected", gpu.ecc_corrected_errors),
    ):
        if count:
            tags.append(_tag(ECC_STYLES[name], f"ECC {count:g} {name}"))
    for rule in gpu.rules:
        lasts = units.duration(now - rule.since_timestamp_seconds)
        state = "" if rule.state == "firing" else f"{rule.state}, "
        tags.append(_tag(rule.state, f"{safe(rule.rule)} {state}{lasts}"))
    is_mixed = len({other.name for other in status.gpus if other.name}) > 1
    facts = (gpu.name if is_mixed else "", gpu.pci_bus_id or gpu.uuid)
    text = " · ".join(safe(fact) for fact in facts if fact)
    return (
        f'<th scope="row" role="rowheader"><b>GPU {gpu.gpu}</b> '
        f"<small>{text}</small> {' '.join(tags)}</th>"
    )


def _tag(style: str, text: str) -> str:
    return f'<span class="tag {style}">{text}</span>'


def _cell(gpu: GpuStatus, column: Column, *, is_firing: bool) -> str:
    value = column.form(getattr(gpu, column.readings[0]))
    note = column.note(gpu)
    style = ' class="firing"' if is_firing else ""
    aside = f"<small>{note}</small>" if note else ""
    head = f'<td role="cell" data-k="{column.name}"><b{style}>{value}</b>{aside}'
    return f"{head}{_graph(gpu, column)}</td>"


def _graph(gpu: GpuStatus, column: Column) -> str:
    past = [gpu.history[reading] for reading in column.readings if reading in gpu.history]
    if len(column.readings) == 1:
        limit = column.limit(gpu)
        limits = () if limit is None else (limit,)
        return band(str(gpu.gpu), column, past[0], limits) if past else ""
    found = spark.extremes(past)
    if found is None:
        return ""
    drawing = [
        f'<path class="{style}" d="{spark.line(one.highest, column.scale)}"/>'
        for style, one in zip(("r", "r2"), past, strict=True)
    ]
    note = f"{column.form(found[0])} to {column.form(found[1])}"
    return spark.graph(f"{column.name}, GPU {gpu.gpu}", note, *drawing)
