"""Small graphs: the range of a reading in each span of the last minutes, as one SVG path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from exporter.frozen import dataclass
from exporter.recorder.svg import safe
from exporter.statuspage.past import SPANS, Band

HEIGHT = 26  # units of the drawing; a span is one unit wide


@dataclass(frozen=True, slots=True)
class Scale:
    """The ends of an axis, in the unit of its readings."""

    low: float
    high: float

    def y(self, value: float) -> int:
        """Return the place of a value, from the top; outside the axis, that of its end."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0
        return HEIGHT - round(min(max(share, 0.0), 1.0) * HEIGHT)


def band(past: Band, scale: Scale) -> str:
    """Return the path around lowest and highest of every span; each gap begins a new shape.

    Relative and in whole units: a page has a hundred of them.
    """
    tops = [None if value is None else scale.y(value) for value in past.highest]
    floors = [None if value is None else scale.y(value) for value in past.lowest]
    path = []
    for first, last in _runs(tops):
        top = [y for y in tops[first:last] if y is not None]
        floor = [y for y in floors[first:last] if y is not None]
        if len(top) == 1:  # a lone span would have no width
            top, floor = top * 2, floor * 2
        path.append(f"M{first} {top[0]}{_line(top, 1)}")
        drop = floor[-1] - top[-1]
        path.append(f"{f'v{drop}' if drop else ''}{_line(floor[::-1], -1)}z")
    return "".join(path)


def line(values: Sequence[float | None], scale: Scale) -> str:
    """Return the path through values; each gap begins a new line."""
    ys = [None if value is None else scale.y(value) for value in values]
    path = []
    for first, last in _runs(ys):
        run = [y for y in ys[first:last] if y is not None]
        path.append(f"M{first} {run[0]}{_line(run, 1) or 'h1'}")
    return "".join(path)


def level(value: float, scale: Scale) -> str:
    """Return the path of a horizontal line through the whole graph."""
    return f"M0 {scale.y(value)}h{SPANS - 1}"


def _runs(values: Sequence[int | None]) -> Iterator[tuple[int, int]]:
    """Yield first and one past the last of each stretch without a gap."""
    first = None
    for place, value in enumerate((*values, None)):
        if value is None:
            if first is not None:
                yield first, place
            first = None
        elif first is None:
            first = place


def _line(ys: Sequence[int], step: int) -> str:
    """Return relative moves through heights, each one step to the side of the last."""
    moves: list[str] = []
    flat, y = 0, ys[0]
    for after in ys[1:]:
        if after == y:
            flat += step
            continue
        if flat:
            moves.append(f"h{flat}")
            flat = 0
        # A sign parts two numbers, and a step to the left needs no further "l" before it.
        again = "" if step < 0 and moves and moves[-1][0] in "l-" else "l"
        rise = after - y
        moves.append(f"{again}{step}{rise}" if rise < 0 else f"{again}{step} {rise}")
        y = after
    if flat:
        moves.append(f"h{flat}")
    return "".join(moves)


def graph(name: str, note: str, *drawing: str) -> str:
    """Return the graph; its name is what it shows, the note what there is to be seen in it."""
    return (
        f'<svg class="s" role="img" viewBox="0 0 {SPANS - 1} {HEIGHT}" preserveAspectRatio="none">'
        f"<title>{safe(name)}</title><desc>{safe(note)}</desc>{''.join(drawing)}</svg>"
    )


def extremes(bands: Iterable[Band | None]) -> tuple[float, float] | None:
    """Return the lowest and the highest sample of all bands; None if there is none."""
    there = [band for band in bands if band is not None]
    lows = [value for band in there for value in band.lowest if value is not None]
    highs = [value for band in there for value in band.highest if value is not None]
    return (min(lows), max(highs)) if lows else None
