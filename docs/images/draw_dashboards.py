# noqa: INP001  a script, in no package
"""Draws docs/images/gpu-*.webp: dashboards, as a real Prometheus answers their queries.

It draws what the JSON of a dashboard says, and is no Grafana. It needs `make setup` and Chromium:

    .venv/bin/python docs/images/draw_dashboards.py /tmp/answers.json

The first run takes eight minutes: Prometheus scrapes simulated nodes each second, and its answers
are kept in the file. A run that finds the file only draws.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2] / "tests"))

from browser import Tab, chromium
from dashboard_site import AS_DEFAULT, BUSY_NODE, PAUSED_NODE, SICK_NODE, chosen, site
from dashboards import ROOT, Panel, dashboards, filled, panels, several
from drawn_panels import GAP, ROW_HEIGHT, STEP_SECONDS, STYLE, WIDTH, Span, drawn
from fake_nvml import build
from prometheus import Prometheus

SECONDS = 440  # the first two surges of requests
SHOWN_SECONDS = 400
# What is chosen, and the rows that are drawn.
CHOICES: Mapping[str, Mapping[str, str]] = {
    "gpu-node": {"instance": BUSY_NODE, "host": BUSY_NODE.partition(":")[0]},
    "gpu-detail": {"instance": several([PAUSED_NODE, SICK_NODE]), "gpu": "1"},
}
ROWS = {
    "gpu-fleet": ("Now", "Nodes", "Alerts", "Trend", "Energy"),
    "gpu-node": ("State", "GPUs side by side", "Inference servers"),
    "gpu-detail": ("Load", "Errors", "Heat and power"),
    "gpu-scaleout": ("Now", "What was decided", "Why", "Would more replicas help?"),
}
CAPTION = (
    "Drawn from the dashboard's JSON and from what a real Prometheus scraped of simulated nodes. "
    "Not a screenshot of Grafana."
)


def main(path: Path) -> None:
    """Records unless the file is there; then draws."""
    if not path.exists():
        path.write_text(json.dumps(record()), encoding="utf-8")
    answers = json.loads(path.read_text(encoding="utf-8"))
    with chromium() as browser, tempfile.TemporaryDirectory() as folder:
        for uid in dashboards():
            page = Path(folder) / f"{uid}.html"
            page.write_text("".join(html(uid, answers)), encoding="utf-8")
            tab = Tab(browser, page.as_uri(), width=WIDTH)
            Path(__file__).with_name(f"{uid}.webp").write_bytes(tab.picture("webp"))


def record() -> dict[str, Any]:
    """Returns the answer to each query of each panel, and the times that they span."""
    library = build(ROOT / ".cache" / "fakenvml")
    with tempfile.TemporaryDirectory() as folder, site(Path(folder), library, AS_DEFAULT) as server:
        time.sleep(SECONDS)
        end = time.time()
        span = end - SHOWN_SECONDS, end
        answers: dict[str, Any] = {"span": span}
        for panel in panels():
            values = {**chosen(panel.dashboard, server), "__rate_interval": "1m"}
            values |= CHOICES.get(panel.dashboard, {})
            answers[panel.name] = [
                answer(server, filled(target.expr, values), span, target.instant)
                for target in panel.targets
            ]
        return answers


def answer(server: Prometheus, expr: str, span: Span, at_its_end: bool) -> list[Any]:
    """Returns the series of a query, or their values at the end of the span."""
    if not at_its_end:
        return server.history(expr, *span, STEP_SECONDS)
    found = server.history(expr, span[1], span[1])
    return [(labels, points[-1][1]) for labels, points in found]


def html(uid: str, answers: dict[str, Any]) -> Iterator[str]:
    """Yields the page of a dashboard."""
    document = dashboards()[uid]
    yield f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>"
    yield f"<h1>{document['title']}</h1><p>{CAPTION}</p><main>"
    row, shift, below = "", 0, 0
    for panel in document["panels"]:
        place = panel["gridPos"]
        if panel["type"] == "row":
            row, shift = panel["title"], below - place["y"]
        if row not in ROWS[uid]:
            continue
        if panel["type"] == "row":
            yield f'<h2 style="{box(place, shift)}">{row}</h2>'
        else:
            one = Panel(uid, panel["title"], panel["type"], panel)
            yield f'<section style="{box(place, shift)}">'
            yield from drawn(one, answers[one.name], answers["span"])
            yield "</section>"
        below = max(below, place["y"] + place["h"] + shift)
    yield f'<div style="height:{below * ROW_HEIGHT + GAP}px"></div></main>'


def box(place: Mapping[str, int], shift: int) -> str:
    """Returns where a panel lies; rows that are left out make it move up."""
    column = WIDTH / 24
    return (
        f"left:{place['x'] * column + GAP / 2:.0f}px;top:{(place['y'] + shift) * ROW_HEIGHT}px;"
        f"width:{place['w'] * column - GAP:.0f}px;height:{place['h'] * ROW_HEIGHT - GAP}px"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
