# noqa: INP001  of a script, in no package
"""Panels as HTML and SVG: what their JSON says, with the answers to their queries."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from operator import itemgetter
from typing import Any

from dashboards import Panel
from drawn_values import color_of, shown, word_of

from exporter.recorder import axis

Points = Sequence[tuple[float, float]]
Lines = Sequence[tuple[Mapping[str, str], Points]]
Span = tuple[float, float]
Size = tuple[float, float]

COLORS = (
    *("#73a942", "#e0a800", "#2f7fd1", "#8f5bd6", "#1f9fb0", "#b5651d", "#cf6fb0", "#5a6b7a"),
    *("#3f7f4f", "#8a6d1a", "#6aa7e0", "#b79be8", "#6cc5d0", "#d9a273", "#e3a8d0", "#9aa8b4"),
)
NAMED = {"green": "#3a9a4b", "orange": "#d9601a", "red": "#c0262d", "blue": "#2f7fd1"}
NAMED |= {"yellow": "#d8a200", "text": "#39424b"}
WIDTH, ROW_HEIGHT, GAP = 1200, 30, 8  # of the page, of Grafana's 24 columns and its rows
LEFT, BOTTOM, TOP = 58, 18, 6
STEP_SECONDS, HOLE_SECONDS = 2, 10
LEGEND, LETTER, LABEL = 34, 11, 48
MARK, CHARACTER = 24, 5.5  # of a legend: what each name takes, and each character
LINE = 23  # of a table
MINUTE = 60.0
STYLE = """
body { margin: 0; padding: 12px 0 0; background: #f4f5f7; color: #24292e;
  font: 12px "DejaVu Sans", system-ui, sans-serif }
h1 { font-size: 20px; margin: 0 8px } p { margin: 4px 8px 10px; color: #5b656f }
main { position: relative } h2 { position: absolute; margin: 0; font-size: 14px; line-height: 26px }
section { position: absolute; background: #fff; border: 1px solid #dfe3e7; border-radius: 3px;
  box-sizing: border-box; padding: 6px 8px; overflow: hidden }
h3 { margin: 0 0 4px; font-size: 12px; white-space: nowrap }
.figures { display: flex; justify-content: space-around; align-items: center; height: 70%;
  font-size: 30px } .figures small { display: block; font-size: 12px; color: #5b656f }
.figures.two { font-size: 24px }
table { border-collapse: collapse; width: 100%; font-size: 11px; line-height: 16px }
td, th { text-align: left; padding: 3px 6px 3px 0;
  border-bottom: 1px solid #eceff1; white-space: nowrap } th { color: #2f6db0; font-weight: 600 }
svg { display: block } text { font: 10px "DejaVu Sans", sans-serif; fill: #5b656f }
.grid { stroke: #e6e9ec } .line { fill: none; stroke-width: 1.2; stroke-linejoin: round }
.dashed { fill: none; stroke-width: 1.4; stroke-dasharray: 7 5 }
.legend { height: 30px; overflow: hidden; line-height: 15px; font-size: 10px;
  display: grid; grid-auto-rows: 15px; column-gap: 10px }
.legend span { white-space: nowrap } .legend b { font-weight: 600 }
.empty { color: #5b656f; text-align: center; padding-top: 12% }
"""


def drawn(panel: Panel, answers: Sequence[Any], span: Span) -> Iterator[str]:
    """Yields the inside of a panel's box."""
    place = panel.document["gridPos"]
    size = place["w"] * WIDTH / 24 - GAP - 18, place["h"] * ROW_HEIGHT - GAP - 36
    yield f"<h3>{escape(panel.title)}</h3>"
    if not any(answers):
        yield f'<div class="empty">{escape(panel.defaults["noValue"])}</div>'
    elif panel.type == "stat":
        yield from _figures(panel, answers)
    elif panel.type == "table":
        yield from _table(panel, answers, size[1], span[1])
    elif panel.type == "state-timeline":
        yield from _timeline(panel, _named(panel, answers), size, span)
    elif panel.type == "heatmap":
        yield from _heat(answers[0], size, span)
    else:
        yield from _graph(panel, _named(panel, answers), size, span)


def _named(panel: Panel, answers: Sequence[Lines]) -> dict[str, Points]:
    """Returns each series by the name that its legend gives it."""
    lines = {}
    for target, series in zip(panel.targets, answers, strict=True):
        for labels, points in series:
            lines[_name(target.legend, labels)] = points
    return dict(sorted(lines.items()))


def _name(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), legend)


def _figures(panel: Panel, answers: Sequence[Any]) -> Iterator[str]:
    many = len(answers) > 1
    yield f'<div class="figures{" two" if many else ""}">'
    for target, found in zip(panel.targets, answers, strict=True):
        for _, value in found[:1]:
            color = NAMED[color_of(value, panel.defaults)]
            name = f"<small>{escape(target.legend)}</small>" if many else ""
            text = escape(shown(value, panel.defaults))
            yield f'<div style="color:{color}">{name}{text}</div>'
    yield "</div>"


def _table(panel: Panel, answers: Sequence[Any], height: float, now: float) -> Iterator[str]:
    places = panel.document["transformations"][1]["options"]["indexByName"]
    heads = dict(panel.overrides("displayName"))
    looks: dict[str, dict[str, Any]] = {field: {} for field in places}
    for key in ("unit", "mappings", "thresholds"):
        for field, value in panel.overrides(key):
            looks[field][key] = value
    lines: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for target, found in zip(panel.targets, answers, strict=True):
        for labels, value in found:
            line = lines.setdefault(tuple(sorted(labels.items())), dict(labels))
            line["Value" if len(answers) == 1 else f"Value #{target.ref}"] = value
    rows = [line for _, line in sorted(lines.items())]
    for given in panel.document["options"].get("sortBy", ()):
        (field,) = (field for field, head in heads.items() if head == given["displayName"])
        rows.sort(key=itemgetter(field), reverse=given["desc"])
    fields = sorted({field for line in rows for field in line} & places.keys(), key=places.get)
    yield f"<table><tr>{''.join(f'<th>{escape(heads[field])}</th>' for field in fields)}</tr>"
    room = int(height / LINE) - 1
    shown_rows = rows if len(rows) <= room else rows[: room - 1]
    for line in shown_rows:
        cells = (_cell(line.get(field, ""), looks[field], now) for field in fields)
        yield f"<tr>{''.join(cells)}</tr>"
    if len(rows) > room:
        yield f'<tr><td colspan="{len(fields)}">and {len(rows) - len(shown_rows)} more</td></tr>'
    yield "</table>"


def _cell(value: float | str, look: Mapping[str, Any], now: float) -> str:
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    return (
        f'<td style="color:{NAMED[color_of(value, look)]}">{escape(shown(value, look, now))}</td>'
    )


def _times(size: Size, span: Span, left: float = LEFT) -> Iterator[str]:
    width, height = size
    free = 0.0
    for at, label in axis.times(*span):
        x = left + (at - span[0]) / (span[1] - span[0]) * (width - left)
        yield f'<path class="grid" d="M{x:.0f} {TOP}V{height - BOTTOM}"/>'
        if free < x < width - LABEL / 2:
            yield f'<text x="{x - LABEL / 2:.0f}" y="{height - 4}">{label}</text>'
            free = x + 1.5 * LABEL


def _graph(panel: Panel, lines: Mapping[str, Points], size: Size, span: Span) -> Iterator[str]:
    custom = panel.defaults["custom"]
    width, height = size[0], size[1] - LEGEND
    is_stacked = custom.get("stacking", {}).get("mode") == "normal"
    if is_stacked:
        lines = _stacked(lines)
    limits = [step for step in panel.defaults["thresholds"]["steps"] if step["value"] is not None]
    values = [value for points in lines.values() for _, value in points]
    near = [step["value"] for step in limits if step["value"] <= 4 * max(values)]
    top = max([*values, *near, custom.get("axisSoftMax", 0)])
    scale = MINUTE if panel.defaults["unit"] == "s" and top > MINUTE else 1  # for round ticks
    low, high = (
        scale * end
        for end in axis.around(min(0.0, *values) / scale, top / scale, 1e-6 if any(values) else 1)
    )
    per_unit = (height - BOTTOM - TOP) / (high - low)

    def y(value: float) -> float:
        return TOP + (high - min(max(value, low), high)) * per_unit

    yield f'<svg width="{width:.0f}" height="{height:.0f}">'
    yield from _times((width, height), span)
    for value in (scale * tick for tick in axis.ticks(low / scale, high / scale, 5)):
        yield f'<path class="grid" d="M{LEFT} {y(value):.0f}H{width:.0f}"/>'
        yield f'<text x="0" y="{y(value) + 4:.0f}">{escape(shown(value, panel.defaults))}</text>'
    for step in limits:
        if low <= step["value"] <= high:
            # Green from the value on: the alert fires below it.
            color = NAMED["orange" if step["color"] == "green" else step["color"]]
            line = f"M{LEFT} {y(step['value']):.1f}H{width:.0f}"
            yield f'<path class="dashed" stroke="{color}" d="{line}"/>'
    names = list(lines)
    floor = f"V{height - BOTTOM:.0f}H{LEFT}Z"
    for name in names[::-1] if is_stacked else names:  # the upper areas are painted first
        path = _path(lines[name], span, width, y)
        color, kind = _look(name, names)
        if is_stacked:
            fill = f"color-mix(in srgb, {color} 35%, white)"
            yield f'<path style="fill:{fill}" d="{path}{floor}"/>'
        yield f'<path class="{kind}" stroke="{color}" d="{path}"/>'
    yield "</svg>"
    yield from _legend(names, width)


def _legend(names: Sequence[str], width: float) -> Iterator[str]:
    """Yields the names that two lines have room for, and how many more there are."""
    columns = max(int(width / (MARK + CHARACTER * max(map(len, names)))), 1)
    room = 2 * columns
    shown_names = names if len(names) <= room else names[: room - 1]
    yield f'<div class="legend" style="grid-template-columns:repeat({columns}, max-content)">'
    for name in shown_names:
        color, _ = _look(name, names)
        yield f'<span><b style="color:{color}">&#9644;</b> {escape(name)}</span>'
    if len(names) > room:
        yield f"<span>and {len(names) - len(shown_names)} more</span>"
    yield "</div>"


def _look(name: str, names: Sequence[str]) -> tuple[str, str]:
    """Returns color and class of a line."""
    if name.startswith("threshold"):
        return NAMED["red"], "dashed"
    return COLORS[names.index(name) % len(COLORS)], "line"


def _stacked(lines: Mapping[str, Points]) -> dict[str, Points]:
    sums: dict[float, float] = {}
    stacked: dict[str, Points] = {}
    for name, points in lines.items():
        for at, value in points:
            sums[at] = sums.get(at, 0.0) + value
        stacked[name] = [(at, sums[at]) for at, _ in points]
    return stacked


def _path(points: Points, span: Span, width: float, y: Callable[[float], float]) -> str:
    per_second = (width - LEFT) / (span[1] - span[0])
    parts, before = [], 0.0
    for at, value in points:
        letter = "L" if at - before <= HOLE_SECONDS else "M"
        parts.append(f"{letter}{LEFT + (at - span[0]) * per_second:.1f} {y(value):.1f}")
        before = at
    return "".join(parts)


def _timeline(panel: Panel, lines: Mapping[str, Points], size: Size, span: Span) -> Iterator[str]:
    width, height = size
    names = min(0.4 * width, 7 * max(map(len, lines)))
    row = min((height - BOTTOM - TOP) / len(lines), 26.0)
    per_second = (width - names) / (span[1] - span[0])
    height = min(height, len(lines) * row + TOP + BOTTOM)
    yield f'<svg width="{width:.0f}" height="{height:.0f}">'
    yield from _times((width, height), span, names)
    for number, (name, points) in enumerate(lines.items()):
        top = number * row
        yield f'<text x="0" y="{top + row / 2 + 4:.1f}">{escape(name)}</text>'
        for begin, end, value in _runs(points):
            x = names + max(begin - span[0], 0) * per_second
            color = NAMED[color_of(value, panel.defaults)]
            wide = max((end - begin) * per_second, 2)
            yield f'<rect x="{x:.1f}" y="{top + 1:.1f}" width="{wide:.1f}" '
            yield f'height="{row - 2:.1f}" fill="{color}" opacity=".75"/>'
            word = word_of(value, panel.defaults) or f"{value:g}"
            if wide > 8 * len(word) and row > LETTER:
                yield f'<text x="{x + 4:.1f}" y="{top + row / 2 + 4:.1f}" style="fill:#fff">'
                yield f"{escape(word)}</text>"
    yield "</svg>"


def _runs(points: Points) -> Iterator[tuple[float, float, float]]:
    begin = before = points[0][0]
    state = points[0][1]
    for at, value in points[1:]:
        if value != state or at - before > HOLE_SECONDS:
            yield begin, at if at - before <= HOLE_SECONDS else before, state
            begin, state = at, value
        before = at
    yield begin, before, state


def _heat(series: Lines, size: Size, span: Span) -> Iterator[str]:
    """Draws the requests between an edge and the one before it."""
    width, height = size
    edges = sorted(series, key=lambda line: float(line[0]["le"]))
    row = (height - BOTTOM) / len(edges)
    per_second = (width - LEFT) / (span[1] - span[0])
    below: dict[float, float] = {}
    cells = []
    yield f'<svg width="{width:.0f}" height="{height:.0f}">'
    yield from _times(size, span)
    for number, (labels, points) in enumerate(edges, start=1):
        top = height - BOTTOM - number * row
        name = "longer" if labels["le"] == "+Inf" else f"{labels['le']} s"
        yield f'<text x="0" y="{top + row / 2 + 4:.1f}">{name}</text>'
        cells += [(at, top, value - below.get(at, 0.0)) for at, value in points]
        below = dict(points)
    most = max(count for _, _, count in cells)
    for at, top, count in cells:
        left, right = (
            round(LEFT + (edge - span[0]) * per_second) for edge in (at - STEP_SECONDS, at)
        )
        yield f'<rect x="{max(left, LEFT)}" y="{top:.1f}" width="{right - max(left, LEFT)}" '
        yield f'height="{row:.1f}" fill="#d9601a" opacity="{max(count, 0) / most:.2f}"/>'
    yield "</svg>"
