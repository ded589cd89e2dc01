"""The words of a schema: notations, and the structures that a dataclass can ask a file for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from exporter import yamlfile
from exporter.schema import ConfigError, Place, as_duration, boolean, duration, key


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0.0), ("1d", 86_400.0), ("1h30m", 5400.0), ("1m30s", 90.0), ("5m1ms", 300.001)],
)
def test_durations(text: str, seconds: float) -> None:
    """Units mean what they do in Prometheus, m and ms are told apart, and the way back is exact."""
    assert duration(text) == seconds
    assert as_duration(seconds) == text


NO_DURATIONS = ["", "s", "1.5", "1.5s", "-1s", "1 s", "1S", "1s1m", "1s1s", "1w", "٣", "٣s", "1s\n"]
ENDLESS = [pytest.param(text, id="endless") for text in ("9" * 5000, "9" * 5000 + "s")]


@pytest.mark.parametrize("text", [*NO_DURATIONS, *ENDLESS])
def test_what_is_no_duration(text: str) -> None:
    """Only whole numbers with units, the largest first, are read as a duration."""
    with pytest.raises(ValueError, match=r"^is not a duration; write whole numbers"):
        duration(text)


@dataclass(frozen=True, slots=True)
class Rule:
    """A stand-in for a section of a list."""

    alert: str = field(metadata=key("alert", str))
    above: int | None = field(default=None, metadata=key("above", int, at_most="9"))
    actions: tuple[str, ...] = field(default=(), metadata=key("actions", str))


@dataclass(frozen=True, slots=True)
class Plan:
    """A stand-in for a configuration with every structure that a schema can have."""

    rules: tuple[Rule, ...] = field(default=(), metadata=key("rules", unique="alert"))
    labels: Mapping[str, str] = field(default_factory=dict, metadata=key("labels", str))
    groups: Mapping[str, Rule] = field(default_factory=dict)
    dry_run: bool | None = field(default=None, metadata=key("dry_run", boolean))

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield the actions that are none, and a plan of nothing."""
        for number, rule in enumerate(self.rules):
            for place, action in enumerate(rule.actions):
                if action != "record":
                    yield ("rules", number, "actions", place), "is no action; write record"
        if not self.rules and self.dry_run:
            yield (), "has no rules to try; add one"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rules: [{alert: on, above: 7, actions: [record]}]", Plan((Rule("on", 7, ("record",)),))),
        ("rules: []\nlabels: {cluster: 010}", Plan(labels={"cluster": "010"})),
        ("groups: {a: {alert: x}}\ndry_run: no", Plan(groups={"a": Rule("x")}, dry_run=False)),
    ],
)
def test_structures(text: str, expected: Plan, tmp_path: Path) -> None:
    """Lists, free keys and optional sections decode by their type hints, text stays as written."""
    scratch = tmp_path / "scratch.yml"
    scratch.write_text(text)
    assert yamlfile.load(scratch, Plan, {}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rules: [{above: 1}]", '1:9: rules[0]: the key "alert" is missing; add it'),
        (
            "rules: [{alert: x}, {alert: x}]",
            '1:29: rules[1].alert: "x" is taken on line 1; give each its own alert',
        ),
        ("rules:", "1:7: rules: no value; write a value, or leave the key out"),
        (
            "rules: {alert: x}",
            '1:8: rules: keys and values instead of a list; put "- " before each item',
        ),
        (
            "rules: [{alert: x, above: 10}]",
            '1:27: rules[0].above: "10" is above 9; write a value of 9 or less',
        ),
        (
            "rules: [{alert: x, actions: [record, tell]}]",
            '1:38: rules[0].actions[1]: "tell" is no action; write record',
        ),
        ("labels: [x]", "1:9: labels: a list instead of keys and values; write a key and a value"),
        ("labels: {x: y, x: z}", "1:16: labels.x: given again, first on line 1; keep one of them"),
        ("groups: {a: }", '1:13: groups.a: the key "alert" is missing; add it'),
        ("dry_run: on", "1:1: has no rules to try; add one"),
    ],
)
def test_mistakes_in_structures(text: str, expected: str, tmp_path: Path) -> None:
    """A mistake in any structure is told at the value that is to be changed."""
    scratch = tmp_path / "scratch.yml"
    scratch.write_text(text)
    with pytest.raises(ConfigError) as raised:
        yamlfile.load(scratch, Plan, {})
    assert raised.value.mistakes == (f"{scratch}:{expected}",)
