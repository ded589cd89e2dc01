#!/usr/bin/env python3
"""Writes the table of all alerts in docs/alerts.md from the rules in alerts/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from marks import write_between

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "alerts.md"

SCRAPE_SECONDS = EVALUATION_SECONDS = 15  # Prometheus's, as docs/install.md has them
PAGE_WAIT_SECONDS = 10  # group_wait of the page in alerts/alertmanager.yml
_UNITS = {"s": 1, "m": 60, "h": 3600}


def main() -> None:
    """Write it anew."""
    write_between(TARGET, table())


def table() -> str:
    """Return all alerts as Markdown, a table for each file of rules."""
    return "".join(
        f"\n### {path.name}\n\n{_head(path)}\n\n"
        "| alert | severity | after | told within | what it says |\n|---|---|---|---|---|\n"
        f"{''.join(_rows(path))}\n"
        for path in sorted((ROOT / "alerts").glob("*.rules.yml"))
    ).lstrip("\n")


def _head(path: Path) -> str:
    lines = path.read_text("utf-8").splitlines()
    comment = [line.removeprefix("# ") for line in lines[: lines.index("groups:")]]
    return " ".join(comment)


def _rows(path: Path) -> Iterator[str]:
    for group in yaml.safe_load(path.read_text("utf-8"))["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                yield _row(rule)


def _row(rule: dict[str, Any]) -> str:
    name, severity, wait = rule["alert"], rule["labels"]["severity"], rule.get("for", "")
    told = ""
    if severity == "critical":
        seconds = int(wait[:-1]) * _UNITS[wait[-1]] if wait else 0
        told = f"{SCRAPE_SECONDS + EVALUATION_SECONDS + seconds + PAGE_WAIT_SECONDS} s"
    summary = rule["annotations"]["summary"].removeprefix("{{ $labels.instance }}: ")
    says = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda label: label[1].upper(), summary)
    says = says.replace("GPU GPU", "GPU N")
    return f"| [{name}](../alerts/runbooks/{name}.md) | {severity} | {wait} | {told} | {says} |\n"


if __name__ == "__main__":
    main()
