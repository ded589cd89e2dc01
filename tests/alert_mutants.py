"""Small mistakes planted in the alert rules, and which of them the unit tests do not notice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alert_rules import Rule, cases, promtool, recordings, write_cases, write_rules
from alert_variants import in_a_fleet
from promql import grouped, matchers, tokens

_FLIPS = {
    "==": ("!=",),
    "!=": ("==",),
    ">": (">=", "<"),
    "<": ("<=", ">"),
    ">=": (">", "<"),
}
_OTHER_SET = {"and": "or", "or": "and", "unless": "or"}
_NAMED = re.compile(r'alertname=\\"(\w+)\\"')
_FAULTY = re.compile(r"rule: (\w[\w:]*), time: \S+, err")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A rule with one mistake.

    Attributes:
        rule: the rule that is changed.
        changed: the name of that rule.
        what: the mistake.
        program: the rules to evaluate; the alert comes last.
    """

    rule: str
    changed: str
    what: str
    program: tuple[Rule, ...]

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


def changes(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """Yield a rule's mutations, each with what it is."""
    for what, expr in _expressions(rule.expr):
        yield what, replace(rule, expr=expr)
    if rule.wait:
        yield "no for", replace(rule, wait="")
    if rule.keep:
        yield "no keep_firing_for", replace(rule, keep="")
    for label in rule.labels:
        rest = {key: value for key, value in rule.labels.items() if key != label}
        yield f"no label {label}", replace(rule, labels=rest)


def _expressions(expr: str) -> Iterator[tuple[str, str]]:
    """Yield an expression with one change each: in numbers, comparisons, sets, labels."""
    for start, end, text in _edits(expr):
        old = expr[start:end].strip(", ")
        nth = len(re.findall(rf"(?<![\w.]){re.escape(old)}(?![\w.=])", expr[:start])) + 1
        yield f"{old} #{nth} -> {text or 'nothing'}", expr[:start] + text + expr[end:]


def _edits(expr: str) -> Iterator[tuple[int, int, str]]:
    for token in tokens(expr):
        if token.place != "expr":
            continue
        if token.kind == "number":
            value = float(token.text)
            for near in (value * 1.5, value * 0.5) if value else (2.0, -1.0):
                yield token.start, token.end, f"{near:g}"
        for other in _FLIPS.get(token.text, ()):
            yield token.start, token.end, other
        if token.text in _OTHER_SET:
            yield token.start, token.end, _OTHER_SET[token.text]
    for matcher in matchers(expr):
        yield matcher.start, matcher.end, ""
    for label in grouped(expr):
        yield label.start, label.end + 2 * expr.startswith(", ", label.end), ""


def mutants(alert: Rule) -> list[Mutant]:
    """Return all mutants of an alert and of the recordings that it stands on."""
    below = _below(alert)
    found = [Mutant(alert.name, alert.name, what, (*below, rule)) for what, rule in changes(alert)]
    for index, recording in enumerate(below):
        for what, rule in changes(recording):
            program = (*below[:index], rule, *below[index + 1 :], alert)
            name = f"{recording.name}{json.dumps(dict(recording.labels))}"
            found.append(Mutant(name, recording.name, what, program))
    return found


def _below(alert: Rule) -> tuple[Rule, ...]:
    """Return the recordings that an alert uses, directly or not."""
    needed, known = {alert.expr}, set[str]()
    while needed:
        expr = needed.pop()
        for rule in recordings():
            if rule.name in expr and rule.name not in known:
                known.add(rule.name)
                needed |= {same.expr for same in recordings() if same.name == rule.name}
    return tuple(rule for rule in recordings() if rule.name in known)


def survivors(alert: Rule, folder: Path) -> list[str]:
    """Return the mutants of an alert that its unit tests let live.

    All are evaluated at once, each under a name of its own: on one node, which few survive, then on
    the nodes of a fleet.

    Raises:
        AssertionError: The rules as they are do not pass.
    """
    folder.mkdir()
    living = {"": Mutant(alert.name, alert.name, "nothing", (*_below(alert), alert))}
    living |= {f"__{number}": mutant for number, mutant in enumerate(mutants(alert))}
    tests = [case for case in cases() if case.alert == alert.name]
    alone = [case.document for case in tests]
    for documents in (alone, [in_a_fleet(document) for document in alone]):
        killed = {"not begun"}
        while killed:
            said = _run(alert, living, tests[0].evaluation, documents, folder)
            faulty = {_suffix(name) for name in _FAULTY.findall(said)}
            killed = faulty or {_suffix(name) for name in _NAMED.findall(said)}
            assert "" not in killed, said
            living = {suffix: one for suffix, one in living.items() if suffix not in killed}
            if not faulty:
                break
    return [str(one) for suffix, one in living.items() if suffix]


def _suffix(name: str) -> str:
    found = re.search(r"__\d+$", name)
    return found.group() if found else ""


def _run(
    alert: Rule,
    living: dict[str, Mutant],
    evaluation: str,
    tests: Sequence[Mapping[str, Any]],
    folder: Path,
) -> str:
    rule_file, case_file = folder / "rules.json", folder / "cases.json"
    written: dict[str, Rule] = {}
    for suffix, mutant in living.items():
        for rule in _renamed(mutant, suffix):
            written[f"{rule.name}{rule.labels}{rule.expr}"] = rule
    write_rules(rule_file, written.values())
    documents = [_for_all(test, alert.name, living) for test in tests]
    write_cases(case_file, rule_file, evaluation, documents)
    return promtool("test", "rules", case_file)[1]


def _renamed(mutant: Mutant, suffix: str) -> Iterator[Rule]:
    """Yield a mutant's rules; what is changed, and what stands on it, has names of its own."""
    own: set[str] = set()
    for rule in mutant.program:
        expr = rule.expr
        for name in own:
            expr = re.sub(rf"{re.escape(name)}(?![\w:])", name + suffix, expr)
        if rule.is_alert or rule.name == mutant.changed or expr != rule.expr:
            own.add(rule.name)
        yield replace(rule, name=rule.name + suffix if rule.name in own else rule.name, expr=expr)


def _for_all(case: Mapping[str, Any], alert: str, living: dict[str, Mutant]) -> dict[str, Any]:
    """Return a test that asks of each mutant what it asks of the alert."""
    tests: list[object] = []
    for suffix in living:
        named = json.dumps(case["promql_expr_test"]).replace(
            f'alertname=\\"{alert}\\"', f'alertname=\\"{alert}{suffix}\\"'
        )
        tests += json.loads(named)
    return {**case, "promql_expr_test": tests}
