"""The list of all panels for docs/dashboards.md."""

from __future__ import annotations

import json
from collections.abc import Iterator

CAPTION = (
    "*Drawn from the JSON and from what a real Prometheus scraped of simulated nodes "
    "([draw_dashboards.py](images/draw_dashboards.py)). It is no screenshot of Grafana.*"
)
BEGIN, END = "<!-- `make docs` writes from here -->\n", "<!-- to here -->\n"


def listed(document: str, dashboards: list[str]) -> str:
    """Return a page of documentation with the list between its two marks written anew.

    Raises:
        ValueError: It does not have the two marks.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"it needs a line {BEGIN!r} and a line {END!r}")
    lines = [line for dashboard in dashboards for line in _lines(dashboard)]
    return before + begin + "\n".join(lines) + "\n\n" + end + after


def _lines(text: str) -> Iterator[str]:
    dashboard = json.loads(text)
    uid = dashboard["uid"]
    yield f"\n## {dashboard['title']}\n"
    yield f"[`{uid}.json`](../grafana/{uid}.json). {dashboard['description']}\n"
    yield f"![Rows of the dashboard {dashboard['title']}](images/{uid}.webp)\n"
    yield CAPTION
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield f"\n### {dashboard['title']}: {panel['title']}\n"
            yield "| panel | what it shows | alerts |"
            yield "|---|---|---|"
            continue
        shows, _, _ = panel["description"].partition("\n")
        titles = (link["title"] for link in panel["links"])
        alerts = (title.removeprefix("Runbook: ") for title in titles)
        yield f"| {panel['title']} | {shows} | {', '.join(map(_runbook, alerts))} |"


def _runbook(alert: str) -> str:
    return f"[{alert}](../alerts/runbooks/{alert}.md)"
