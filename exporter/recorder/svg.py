"""Pieces of a picture: its measures, its looks for light and dark, and text that is safe in it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from exporter.frozen import dataclass
from exporter.recorder.model import Mark
from exporter.recorder.summary import Summary

WIDTH, LEFT, RIGHT = 1200, 64, 1164
PLOT, GAP = 140, 36  # height of a plot, and between two
LONGEST_TEXT, LONGEST_TITLE = 170, 84

# Told apart on white and on black, and by most people who see few colours.
_COLORS = ("#3b82c4", "#d9601a", "#2f9e6e", "#c2569b", "#b58900", "#2aa3b5", "#8f6fd6", "#8a8168")
_DASHES = ("", "6 3", "2 3")

STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #3c434a }
.paper { fill: #ffffff } .strong { fill: #111418 } .title { font-size: 20px; font-weight: 600 }
.panel { font-size: 13px; font-weight: 600 } .end { text-anchor: end } .mid { text-anchor: middle }
.note { fill: #a14b00; font-weight: 600 }
.grid { stroke: #dfe3e7 } .frame { stroke: #aab2ba; fill: none }
.limit { stroke: #6d757d; stroke-dasharray: 5 4 }
.limits { font-size: 11px } .halo { paint-order: stroke; stroke: #ffffff; stroke-width: 3px }
.fired { stroke: #c0262d; stroke-width: 1.6 } .fires { fill: #c0262d; font-weight: 600 }
.also { stroke: #c0262d; stroke-width: 1; stroke-dasharray: 2 2 }
.resolved { stroke: #6d757d; stroke-dasharray: 7 4 }
.pending { fill: #c0262d; fill-opacity: 0.1 }
.trace { fill: none; stroke-width: 1.4; stroke-linejoin: round; stroke-linecap: round }
@media (prefers-color-scheme: dark) {
text { fill: #b9c0c7 } .paper { fill: #14171a } .strong { fill: #f2f4f6 } .note { fill: #f0a35e }
.grid { stroke: #2b3137 } .frame { stroke: #565e66 } .halo { stroke: #14171a }
.limit, .resolved { stroke: #98a1aa }
.fired, .also { stroke: #ff6b70 } .fires { fill: #ff6b70 } .pending { fill: #ff6b70 }
}
"""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of one recording goes."""

    summary: Summary
    plots: int
    top: float  # of the first plot
    pixels_per_second: float

    @property
    def bottom(self) -> float:
        """The lower end of the last plot."""
        return self.plot_top(self.plots - 1) + PLOT

    def plot_top(self, number: int) -> float:
        """Return the upper end of a plot."""
        return self.top + number * (PLOT + GAP)

    def x(self, elapsed_seconds: float) -> float:
        """Return pixels from the left."""
        return LEFT + (elapsed_seconds - self.summary.first_seconds) * self.pixels_per_second

    def marks(self) -> list[Mark]:
        """Return the marks that lie within the samples: the first of each kind and rule."""
        marks: dict[tuple[str, str], Mark] = {}
        for mark in self.summary.marks:
            if LEFT - 1 <= self.x(mark.elapsed_seconds) <= RIGHT + 1:
                marks.setdefault((mark.kind, mark.rule), mark)
        return list(marks.values())


def text(x: float, y: float, content: str, style: str = "") -> str:
    """Return a text element; what the content is made of does not matter."""
    look = f' class="{style}"' if style else ""
    longest = LONGEST_TITLE if "title" in style else LONGEST_TEXT
    return f'<text x="{x:.1f}" y="{y:.1f}"{look}>{safe(content, longest)}</text>'


def safe(content: str, longest: int = LONGEST_TEXT) -> str:
    """Return text as XML may hold it, of so many letters at most."""
    short = content if len(content) <= longest else content[: longest - 1] + "…"
    return escape("".join(letter if letter.isprintable() else " " for letter in short))


def look(number: int) -> str:
    """Return the attributes by which one GPU's lines are told from the others'."""
    dash = _DASHES[number // len(_COLORS) % len(_DASHES)]
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'stroke="{_COLORS[number % len(_COLORS)]}"{dashes}'


def path(points: Sequence[tuple[float, float]]) -> str:
    """Return a line through points; a single one becomes a dot."""
    (x, y), *rest = points
    line = "".join(f"L{x:.1f} {y:.1f}" for x, y in rest)
    return f"M{x:.1f} {y:.1f}{line or 'h0.1'}"
