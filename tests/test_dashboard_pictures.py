"""The pictures of the dashboards: what draws them follows the dashboards."""

from __future__ import annotations

import re
import sys
from html import escape

import pytest
from dashboards import ROOT, Panel, dashboards, panels

sys.path.append(str(ROOT / "docs" / "images"))

from draw_dashboards import ROWS, html

SPAN = (1_800_000_000.0, 1_800_000_400.0)
STATES = (0.0, 1.0)


def answers(panel: Panel) -> list[object]:
    """Return what Prometheus may answer to each query of a panel: two series, or their values."""
    series = [{"instance": f"gpu-0{place}", "gpu": "0", "le": f"{place}.5"} for place in (1, 2)]
    return [
        [(labels, 1.0) for labels in series]
        if target.instant
        else [(labels, list(zip(SPAN, STATES, strict=True))) for labels in series]
        for target in panel.targets
    ]


@pytest.mark.parametrize("uid", dashboards())
@pytest.mark.parametrize("is_empty", [False, True], ids=["full", "empty"])
def test_every_panel_of_a_row_is_drawn(uid: str, *, is_empty: bool) -> None:
    """Rows that are drawn are there; so is each of their panels, or its words where it is empty."""
    found: dict[str, object] = {"span": SPAN}
    for panel in panels():
        found[panel.name] = [[] for _ in panel.targets] if is_empty else answers(panel)
    page = "".join(html(uid, found))
    row, drawn = "", set()
    for one in dashboards()[uid]["panels"]:
        row = one["title"] if one["type"] == "row" else row
        if row in ROWS[uid]:
            drawn.add(row)
            assert f">{escape(one['title'])}</h" in page
            if is_empty and one["type"] != "row":
                assert escape(one["fieldConfig"]["defaults"]["noValue"]) in page
    assert drawn == set(ROWS[uid])
    assert not re.search(r"\b(nan|inf|None)\b", page)


def test_pictures_are_small() -> None:
    """A clone does not grow by much: 600 KiB for the four of them."""
    pictures = [ROOT / "docs" / "images" / f"{uid}.webp" for uid in dashboards()]
    assert sum(picture.stat().st_size for picture in pictures) < 600 << 10
