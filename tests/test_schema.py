"""The words of a schema: notations, and the structures that a dataclass can ask a file for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from exporter import yamlfile
from exporter.schema import (
    ConfigError,
    Place,
    as_duration,
    boolean,
    choice,
    count,
    duration,
    file_path,
    identifier,
    json_value,
    key,
    label_name,
    number,
    plain,
    size,
)


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


@pytest.mark.parametrize(
    ("notation", "text", "value"),
    [
        (number, "0", 0.0),
        (number, "-0.95", -0.95),
        (number, "1e9", 1e9),
        (number, "1.5E-3", 0.0015),
        (number, "100000000000000000", 1e17),
        (count, "0", 0),
        (count, "-7", -7),
        (count, "999999999", 999_999_999),
        (size, "0B", 0),
        (size, "3KiB", 3072),
        (size, "256MiB", 268_435_456),
        (size, "2GiB", 1 << 31),
        (size, "1TiB", 1 << 40),
        (json_value, "12", 12),
        (json_value, "-0.5", -0.5),
        (json_value, "1e3", 1000.0),
        (json_value, "false", False),
        (json_value, "null", None),
        (json_value, "", None),
        (plain, "Brüssel 1", "Brüssel 1"),
        (plain, "x" * 256, "x" * 256),
        (identifier, "gpu-0:a.b_C", "gpu-0:a.b_C"),
        (label_name, "_scale_group2", "_scale_group2"),
        (choice("a", "b"), "b", "b"),
        (file_path, "/etc/x", Path("/etc/x")),
        (file_path, "${HERE}/${FILE}.pem", Path("/run/a$b/x.pem")),
    ],
)
def test_notations(
    notation: Callable[[str], object], text: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each notation gives the value and the type that are meant."""
    monkeypatch.setenv("HERE", "/run/a$b")
    monkeypatch.setenv("FILE", "x")
    read = notation(text)
    assert (read, type(read)) == (value, type(value))


NO_NUMBERS = ["", "+1", "01", ".5", "1.", "1_0", "0x1", "1:30", "inf", ".nan", "1e999", "1e", "٣"]


@pytest.mark.parametrize(
    ("notation", "text"),
    [
        *((number, text) for text in [*NO_NUMBERS, "9" * 5000]),
        *((count, text) for text in [*NO_NUMBERS, "1.0", "1e2", "9" * 5000]),
        *((size, text) for text in [*NO_NUMBERS, "1", "1MB", "1M", "1 MiB", "1mib", "1.5GiB"]),
        *((json_value, text) for text in ["True", "NULL", "~", "on", *NO_NUMBERS[1:]]),
        *((identifier, text) for text in ["", "a b", "a/b", ".a", "-a", "é", "a\n", "x" * 101]),
        *((label_name, text) for text in ["", "a-b", "1a", "__a", "é", "a\n", "x" * 101]),
        *((plain, text) for text in ["", " ", "a\nb", "\0", "\u200b", "x" * 257]),
        *((file_path, text) for text in ["", "x", "~/x", "/x\0", "/$X", "$X", "/${}", "/${X-y}"]),
        *((file_path, text) for text in ["${NOT_SET}/x", "/x${EMPTY}"]),
    ],
)
def test_what_a_notation_refuses(
    notation: Callable[[str], object], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could be meant in two ways, or not at all, is refused in a line that says a way out."""
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ValueError, match=r"^[^\n]+; [^\n]+$"):
        notation(text)


def side(text: str) -> Side:
    """Read a side."""
    return Side(choice("left", "right")(text))


@dataclass(frozen=True, slots=True)
class Side:
    """A stand-in for a section that may be one value instead, with a field that is not written."""

    word: str = field(default="far", metadata=key(""))
    metres: int = field(default=0, metadata=key("metres", count))


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
    labels: Mapping[str, str] = field(
        default_factory=dict, metadata=key("labels", str, keys=label_name)
    )
    groups: Mapping[str, Rule] = field(default_factory=dict)
    dry_run: bool | None = field(default=None, metadata=key("dry_run", boolean))
    side: Side = field(default=Side("none"), metadata=key("side", side))
    colour: str | None = field(default=None, metadata=key("colour", str, among="colours"))
    body: object | None = None

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield the actions that are none, and a plan of nothing."""
        for position, rule in enumerate(self.rules):
            for place, action in enumerate(rule.actions):
                if action != "record":
                    yield ("rules", position, "actions", place), "is no action; write record"
        if not self.rules and self.dry_run:
            yield (), "has no rules to try; add one"
        for position, rule in enumerate(self.rules):
            if rule.above == 0:
                yield ("rules", position, "actions"), "is empty; add one"


BODY = [1, "1", -0.5, True, None, "on the left"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rules: [{alert: on, above: 7, actions: [record]}]", Plan((Rule("on", 7, ("record",)),))),
        ("rules: []\nlabels: {cluster: 010}", Plan(labels={"cluster": "010"})),
        ("groups: {a: {alert: x}}\ndry_run: no", Plan(groups={"a": Rule("x")}, dry_run=False)),
        ("side: left", Plan(side=Side("left"))),
        ("side: {metres: 3}", Plan(side=Side("far", 3))),
        ("colour: red", Plan(colour="red")),
        ("body: [1, '1', -0.5, true, null, on the left]", Plan(body=BODY)),
        ("body: {'1': {}, a b: [], c: {d: }}", Plan(body={"1": {}, "a b": [], "c": {"d": None}})),
        ("body: |\n  1", Plan(body="1")),
    ],
)
def test_structures(text: str, expected: Plan, tmp_path: Path) -> None:
    """Lists, free keys and optional sections decode by their type hints, text stays as written."""
    scratch = tmp_path / "scratch.yml"
    scratch.write_text(text)
    assert yamlfile.load(scratch, Plan, {"colours": ("red", "blue")}) == expected


TWO_WAYS = "is read in two ways; quote it if it is text, else write it as in JSON"


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
        ("side: up", '1:7: side: "up" is not known here; write left or right'),
        ("side: [left]", "1:7: side: a list instead of a single value; write a value"),
        ("side: ", "1:6: side: no value; write a value, or leave the key out"),
        ("side: {word: far}", "1:8: side.word: unknown key; known here: metres"),
        ("side: {metres: '3'}", '1:16: side.metres: "3" in quotes is text; write 3 without them'),
        (
            "colour: rde",
            '1:9: colour: "rde" is none of the colours that go here; did you mean "red"?',
        ),
        (
            "colour: '5'",
            '1:9: colour: "5" is none of the colours that go here; known here: blue, red',
        ),
        (
            "rules: [{alert: x, actions: [record, record]}]",
            '1:38: rules[0].actions[1]: "record" is taken on line 1; remove one',
        ),
        ("rules: [{alert: x, above: 0}]", "1:9: rules[0].actions: the default is empty; add one"),
        ("body: [off]", f'1:8: body[0]: "off" {TWO_WAYS}'),
        ("body: {a: !x 1}", "1:11: body.a: the tag !x is not supported; remove it"),
        ("dry_run: on", "1:1: has no rules to try; add one"),
    ],
)
def test_mistakes_in_structures(text: str, expected: str, tmp_path: Path) -> None:
    """A mistake in any structure is told at the value that is to be changed."""
    scratch = tmp_path / "scratch.yml"
    scratch.write_text(text)
    with pytest.raises(ConfigError) as raised:
        yamlfile.load(scratch, Plan, {"colours": ("red", "blue")})
    assert raised.value.mistakes == (f"{scratch}:{expected}",)
