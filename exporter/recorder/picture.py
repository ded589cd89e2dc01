"""One recording as one picture: an SVG that a browser, a ticket or a chat shows as it is.

Light or dark, as the one who looks at it prefers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from exporter.recorder import axis
from exporter.recorder.clock import time_of_day, utc
from exporter.recorder.model import Item, Mark
from exporter.recorder.panel import PANELS, draw_panel
from exporter.recorder.summary import Summary
from exporter.recorder.svg import LEFT, PLOT, RIGHT, STYLE, WIDTH, Layout, look, safe, text
from exporter.recorder.traces import traces
from exporter.scaleout.model import EventKind

HEAD, FOOT = 164, 32  # above the first plot, without the legend; below the last
LEGEND_WIDTH, LEGENDS_PER_ROW, LEGEND_ROW = 84, 13, 20
ROWS = (28, 44)  # events are named so far above the first plot, where there is room
LETTER = 7.6  # pixels, about
VERBS = {EventKind.FIRING.value: "fired"}


def draw(summary: Summary, items: Iterable[Item]) -> Iterator[str]:
    """Yield the lines of the SVG of a recording, by its summary and everything in it."""
    legend_rows = -(-len(summary.gpus) // LEGENDS_PER_ROW)
    span = summary.seconds or summary.interval_seconds or 1.0
    layout = Layout(summary, len(PANELS), HEAD + legend_rows * LEGEND_ROW, (RIGHT - LEFT) / span)
    metrics = tuple(panel.metric for panel in PANELS)
    lines = traces(items, metrics, summary.first_seconds, layout.pixels_per_second)
    size = f'width="{WIDTH}" height="{layout.bottom + FOOT:.0f}"'
    box = f'viewBox="0 0 {WIDTH} {layout.bottom + FOOT:.0f}"'
    title = f"{', '.join(summary.reasons) or 'Recording'} on {summary.node}"
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} role="img">'
    yield f"<title>{safe(title)}</title>"
    yield f"<style>{STYLE}</style>"
    yield f'<rect class="paper" {size}/>'
    yield text(LEFT, 34, title, "strong title")
    for number, (line, style) in enumerate(_caption(summary)):
        yield text(LEFT, 58 + 18 * number, line, style)
    yield from _legend(summary)
    yield from _pending(layout)
    yield from _times(layout)
    for number, panel in enumerate(PANELS):
        yield from draw_panel(layout, number, panel, lines)
    yield from _marks(layout)
    yield "</svg>"


def _caption(summary: Summary) -> Iterator[tuple[str, str]]:
    first = next((mark for mark in summary.marks if mark.begins), None)
    if first is not None:
        what = f"{first.reason}; " if first.reason != first.kind else ""
        yield f"{what}{_verb(first)} {utc(first.fired_at)} UTC", ""
    names = dict.fromkeys(gpu.name for gpu in summary.gpus if gpu.name)
    parts = [
        f"{len(summary.gpus)} {', '.join(names)}" if names else f"{len(summary.gpus)} GPUs",
        f"driver {summary.driver}" if summary.driver else "",
        f"{summary.samples} samples in {summary.seconds:.0f} s",
        f"{summary.dropped} dropped" if summary.dropped else "",
        f"{summary.damaged} places damaged" if summary.damaged else "",
        f"ended: {summary.ended}" if summary.ended else "torn off, or still going on",
    ]
    yield "; ".join(part for part in parts if part), ""
    if summary.simulated:
        yield "These GPUs are simulated. Nothing here was measured.", "note"


def _legend(summary: Summary) -> Iterator[str]:
    for number, gpu in enumerate(summary.gpus):
        row, place = divmod(number, LEGENDS_PER_ROW)
        x, y = LEFT + place * LEGEND_WIDTH, HEAD - 46 + row * LEGEND_ROW
        yield f'<path class="trace" {look(number)} d="M{x} {y - 4}h20"/>'
        yield text(x + 26, y, f"GPU {gpu.gpu}")


def _pending(layout: Layout) -> Iterator[str]:
    """Shade the time from the crossing of a threshold to the firing of its rule."""
    for mark in layout.marks():
        if not mark.begins:
            continue
        end = layout.x(mark.elapsed_seconds)
        begin = max(LEFT, end - (mark.fired_at - mark.started_at) * layout.pixels_per_second)
        if begin < end:
            height = layout.bottom - layout.top
            yield (
                f'<rect class="pending" x="{begin:.1f}" y="{layout.top}" '
                f'width="{end - begin:.1f}" height="{height}"/>'
            )


def _times(layout: Layout) -> Iterator[str]:
    """Draw the time axis: UTC by the wall clock at the first event, whatever it did later."""
    summary = layout.summary
    anchor = next(iter(layout.marks()), None)
    start = summary.start
    if anchor is not None:
        start = anchor.at - (anchor.elapsed_seconds - summary.first_seconds)
    for at, label in axis.times(start, start + (RIGHT - LEFT) / layout.pixels_per_second):
        x = LEFT + (at - start) * layout.pixels_per_second
        for number in range(len(PANELS)):
            yield f'<path class="grid" d="M{x:.1f} {layout.plot_top(number)}v{PLOT}"/>'
        yield text(x, layout.bottom + 18, label, "mid")
    yield text(4, layout.bottom + 18, "UTC")


def _marks(layout: Layout) -> Iterator[str]:
    """Draw a line for each event, and say what it is where there is room for that."""
    taken: list[tuple[int, float, float]] = []
    labels = []
    for number, mark in enumerate(layout.marks()):
        x = layout.x(mark.elapsed_seconds)
        label = f"{mark.rule} {_verb(mark)} {time_of_day(mark.at)}"
        width = len(label) * LETTER
        begin = min(max(x - width / 2, LEFT), RIGHT - width)
        row = next((row for row in ROWS if _is_free(taken, row, begin, begin + width)), None)
        if row is not None:
            taken.append((row, begin, begin + width))
            kind = "mid halo fires" if mark.begins else "mid halo"
            labels.append(text(begin + width / 2, layout.top - row, label, kind))
        style = "resolved"
        if mark.begins:
            style = "also" if number else "fired"
        top = layout.top - (row or ROWS[0]) + 4
        yield f'<path class="{style}" d="M{x:.1f} {top}V{layout.bottom}"/>'
    yield from labels


def _is_free(taken: list[tuple[int, float, float]], row: int, begin: float, end: float) -> bool:
    return all(row != other or begin > right or end < left for other, left, right in taken)


def _verb(mark: Mark) -> str:
    return VERBS.get(mark.kind, mark.kind)
