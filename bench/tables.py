"""Tables in Markdown, and the goals that figures meet or miss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

P99 = 0.99


@dataclass(frozen=True, slots=True)
class Goal:
    """Figures, and what they shall not pass: `most` from above or `least` from below.

    figure: of the daemon as it comes, or what does not depend on how it was started. full: of the
    daemon with everything on, where that was measured.
    """

    name: str
    figure: float
    most: float = math.inf
    least: float = -math.inf
    full: float | None = None

    def is_met_by(self, figure: float) -> bool:
        """Return whether a figure keeps to the bounds."""
        return self.least <= figure <= self.most

    def row(self) -> tuple[str, ...]:
        """Return name, bound, and both figures with what is to be said of them."""
        bound = f">= {number(self.least)}" if self.least > -math.inf else f"<= {number(self.most)}"
        return self.name, bound, *self._verdict(self.figure), *self._verdict(self.full)

    def data(self) -> dict[str, object]:
        """Return it as JSON takes it, unrounded."""
        full = None if self.full is None else self.is_met_by(self.full)
        met = self.is_met_by(self.figure)
        return {
            "name": self.name,
            "figure": self.figure,
            "met": met,
            "full": self.full,
            "full_met": full,
        }

    def _verdict(self, figure: float | None) -> tuple[str, str]:
        if figure is None:
            return "", ""
        return number(figure), "met" if self.is_met_by(figure) else "MISSED"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts under a head; the first column is a name, the others are figures."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        """Return it as Markdown that is aligned for reading as it stands."""
        lines = [self.head, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.head))]
        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        cells = [_aligned(self.head, widths), rule, *(_aligned(row, widths) for row in self.rows)]
        text = "\n".join(f"| {' | '.join(row)} |" for row in cells)
        return f"**{self.title}**\n\n{text}\n"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        row[0].ljust(widths[0]),
        *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not pass."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def quotient(ours: float | None, peer: float | None) -> str:
    """Return how many times the peer's figure ours is; "" where one is missing."""
    return "" if ours is None or not peer else number(ours / peer)


def number(value: float | None) -> str:
    """Return three significant digits, or all of a larger number's whole part."""
    if value is None:
        return ""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(min(digits, 3), 0)}f}"
