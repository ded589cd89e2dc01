"""The files in alerts/ as values, and promtool's verdict on rules and unit tests."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from debian import program

ROOT = Path(__file__).parents[1]
ALERTS = ROOT / "alerts"
RULE_FILES = sorted(ALERTS.glob("*.rules.yml"))
TEST_FILES = sorted((ALERTS / "tests").glob("*.yml"))

_NAMED = re.compile(r'alertname="(\w+)"')


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: an alert, or a recording (without severity and annotations)."""

    name: str
    expr: str
    file: str
    group: str
    is_alert: bool
    wait: str = ""
    keep: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return it as Prometheus reads it, without annotations."""
        optional = {"for": self.wait, "keep_firing_for": self.keep, "labels": dict(self.labels)}
        kind = "alert" if self.is_alert else "record"
        kept = {key: value for key, value in optional.items() if value}
        return {kind: self.name, "expr": self.expr, **kept}


@dataclass(frozen=True, slots=True)
class Case:
    """One unit test, with what promtool needs to run it."""

    file: str
    rule_files: tuple[str, ...]
    evaluation: str
    document: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What it says of itself; the alert's name comes first."""
        return str(self.document["name"])

    @property
    def alert(self) -> str:
        """The alert that it is about."""
        return self.name.split()[0]


@cache
def rules() -> tuple[Rule, ...]:
    """Return all rules, in the order of evaluation."""
    return tuple(
        Rule(
            name=rule.get("alert") or rule["record"],
            expr=rule["expr"].strip(),
            file=path.name,
            group=group["name"],
            is_alert="alert" in rule,
            wait=rule.get("for", ""),
            keep=rule.get("keep_firing_for", ""),
            labels=rule.get("labels", {}),
            annotations=rule.get("annotations", {}),
        )
        for path in RULE_FILES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    )


def alerts() -> tuple[Rule, ...]:
    """Return the alerts."""
    return tuple(rule for rule in rules() if rule.is_alert)


def recordings() -> tuple[Rule, ...]:
    """Return the recording rules."""
    return tuple(rule for rule in rules() if not rule.is_alert)


@cache
def cases() -> tuple[Case, ...]:
    """Return all unit tests."""
    found = []
    for path in TEST_FILES:
        document = yaml.safe_load(path.read_text())
        found += [
            Case(
                path.name,
                tuple(Path(name).name for name in document["rule_files"]),
                document["evaluation_interval"],
                case,
            )
            for case in document["tests"]
        ]
    return tuple(found)


def alert_names(case: Mapping[str, Any]) -> set[str]:
    """Return the alerts that a unit test looks at."""
    return {name for test in case["promql_expr_test"] for name in _NAMED.findall(test["expr"])}


def fired_labels(alert: str) -> list[dict[str, str]]:
    """Return the whole label sets with which an alert fires in its unit tests."""
    return [
        dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"]))
        for case in cases()
        for test in case.document["promql_expr_test"]
        for sample in test["exp_samples"]
        if f'alertname="{alert}"' in sample["labels"]
    ]


def write_rules(path: Path, written: Iterable[Rule]) -> None:
    """Write a rule file with one group."""
    documents = [rule.document() for rule in written]
    # JSON is YAML, and is written in a tenth of the time.
    group = {"name": "gpu-tested", "rules": documents}
    path.write_text(json.dumps({"groups": [group]}))


def write_cases(path: Path, rule_file: Path, evaluation: str, written: Iterable[object]) -> None:
    """Write a file of unit tests for one rule file."""
    head = {"rule_files": [str(rule_file)], "evaluation_interval": evaluation}
    path.write_text(json.dumps({**head, "tests": list(written)}))


def promtool(*words: object) -> tuple[int, str]:
    """Run promtool; return its exit code and all that it says."""
    done = subprocess.run(
        [program("promtool"), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=110,
    )
    return done.returncode, done.stdout
