"""The files in grafana/ as values, and their queries with variables filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
GRAFANA = ROOT / "grafana"
FILES = sorted(GRAFANA.glob("gpu-*.json"))

_REFERENCE = re.compile(r"\$\{?(\w+)\}?")


@dataclass(frozen=True, slots=True)
class Target:
    """One query of a panel or of an annotation."""

    ref: str
    expr: str
    legend: str = ""
    instant: bool = False
    format: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; rows are none."""

    dashboard: str
    title: str
    type: str
    document: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What tells it from all others."""
        return f"{self.dashboard}: {self.document['id']} {self.title}"

    @property
    def targets(self) -> tuple[Target, ...]:
        """Its queries."""
        return tuple(
            Target(
                target["refId"],
                target["expr"],
                target["legendFormat"],
                target["instant"],
                target.get("format", ""),
            )
            for target in self.document["targets"]
        )

    @property
    def defaults(self) -> Mapping[str, Any]:
        """What holds for every field."""
        defaults: Mapping[str, Any] = self.document["fieldConfig"]["defaults"]
        return defaults

    def overrides(self, key: str) -> Iterator[tuple[str, Any]]:
        """Yield the field and the value of each override of a property."""
        for override in self.document["fieldConfig"]["overrides"]:
            for given in override["properties"]:
                if given["id"] == key:
                    yield override["matcher"]["options"], given["value"]

    def all(self, key: str) -> list[Any]:
        """Return the values of a property: the default, and every override."""
        default = [self.defaults[key]] if key in self.defaults else []
        return default + [value for _, value in self.overrides(key)]

    @property
    def alerts(self) -> set[str]:
        """The alerts to whose runbooks it links."""
        urls = [link["url"] for link in self.document["links"]]
        return {url.removeprefix("${runbooks}/").removesuffix(".md") for url in urls}


@cache
def dashboards() -> Mapping[str, Mapping[str, Any]]:
    """Return every dashboard by its uid."""
    documents = [json.loads(path.read_text()) for path in FILES]
    return {document["uid"]: document for document in documents}


@cache
def panels() -> tuple[Panel, ...]:
    """Return every panel of every dashboard."""
    return tuple(
        Panel(uid, panel["title"], panel["type"], panel)
        for uid, document in dashboards().items()
        for panel in document["panels"]
        if panel["type"] != "row"
    )


def variables(uid: str) -> list[Mapping[str, Any]]:
    """Return the variables of a dashboard."""
    found: list[Mapping[str, Any]] = dashboards()[uid]["templating"]["list"]
    return found


def events(uid: str) -> list[Mapping[str, Any]]:
    """Return the annotations of a dashboard."""
    found: list[Mapping[str, Any]] = dashboards()[uid]["annotations"]["list"]
    return found


def filled(expr: str, values: Mapping[str, str]) -> str:
    """Return an expression with its variables as Grafana fills them in.

    Raises:
        KeyError: a variable that there is not.
    """
    return _REFERENCE.sub(lambda match: values[match.group(1)], expr)


def several(options: list[str]) -> str:
    """Return what Grafana's Prometheus writes for chosen options of a variable."""
    escaped = [re.sub(r"([$^*{}\[\]'+?.()|\\])", r"\\\\\1", option) for option in options]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"
