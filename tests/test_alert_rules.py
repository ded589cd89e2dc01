"""The alert rules fire when they should, stay silent when they should, at any scrape interval."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alert_rules import (
    RULE_FILES,
    TEST_FILES,
    alert_names,
    alerts,
    cases,
    promtool,
    rules,
    write_cases,
    write_rules,
)
from alert_variants import every_5s, every_30s, in_a_fleet, samples

Variant = Callable[[Mapping[str, Any]], dict[str, Any]]

GOLDEN = Path(__file__).parent / "golden"
MINUTES = 12  # longer than any `for` that a page of one instant can pass
_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)

# What the known machines are paged for; all else stays silent over them.
FIRING = {
    "a100-mig": {"GpuMemoryHigh"},
    "b200x8": {"GpuMemoryHigh", "GpuSustainedLoad"},
}


def test_promtool_finds_no_fault_in_the_rules() -> None:
    """Syntax, and each lint of promtool."""
    code, said = promtool("check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES)
    assert code == 0, said


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_unit_tests_pass_as_they_are(path: Path) -> None:
    """`promtool test rules alerts/tests/*.yml`: what anybody may run."""
    code, said = promtool("test", "rules", path)
    assert code == 0, said


def test_each_alert_has_its_unit_test() -> None:
    """One test an alert, about that alert: nodes that fire, nodes that nearly do, silence."""
    assert sorted(case.alert for case in cases()) == sorted(alert.name for alert in alerts())
    for case in cases():
        assert alert_names(case.document) == {case.alert}
        asked = [test["exp_samples"] for test in case.document["promql_expr_test"]]
        states = {state for all_ in asked for state in re.findall(r'state="(\w+)', str(all_))}
        waits = any(alert.wait for alert in alerts() if alert.name == case.alert)
        assert states == ({"firing", "pending"} if waits else {"firing"}), case.name


@pytest.mark.slow
@pytest.mark.parametrize("variant", [every_5s, every_30s, in_a_fleet])
def test_alerts_are_right_wherever_they_run(variant: Variant, tmp_path: Path) -> None:
    """Scraped every 5 s or 30 s; relabelled, in two clusters whose nodes have the same names."""

    def run(path: Path) -> str:
        found = [case for case in cases() if case.file == path.name]
        if path.stem == "burn" and variant is not in_a_fleet:
            return ""  # it is sampled once a minute anyway
        rule_file, case_file = tmp_path / f"{path.stem}-rules.json", tmp_path / f"{path.stem}.json"
        write_rules(rule_file, [rule for rule in rules() if rule.file in found[0].rule_files])
        documents = [variant(case.document) for case in found]
        write_cases(case_file, rule_file, found[0].evaluation, documents)
        code, said = promtool("test", "rules", case_file)
        return said if code else ""

    with ThreadPoolExecutor(2) as pool:
        failures = [said for said in pool.map(run, TEST_FILES) if said]
    assert not failures, "\n".join(failures)


def test_notation_of_series_is_read_as_promtool_reads_it() -> None:
    """Steps, repetitions, holes and ends."""
    assert samples("1x2 5+2x2 _x2 7 stale") == [
        *("1.0", "1.0", "1.0"),
        *("5.0", "7.0", "9.0"),
        *("_", "_", "7", "stale"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("machine", sorted(path.stem for path in GOLDEN.glob("*.prom")))
def test_known_machines_raise_what_is_wrong_with_them(machine: str, tmp_path: Path) -> None:
    """A page that stands still fires the alerts that it deserves, and no other."""
    page = (GOLDEN / f"{machine}.prom").read_text()
    series = [
        {
            "series": f'{name}{{job="gpu-node", instance="n", {labels}}}',
            "values": f"{value}x{MINUTES * 2}",
        }
        for name, labels, value in _SERIES.findall(page)
    ]
    up = {"series": 'up{job="gpu-node", instance="n"}', "values": f"1x{MINUTES * 2}"}
    expected = sorted(FIRING.get(machine, set()) | {"Watchdog"})
    case = {
        "interval": "30s",
        "input_series": [*series, up],
        "promql_expr_test": [
            {
                "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{MINUTES}m",
                "exp_samples": [
                    {"labels": f'{{alertname="{name}"}}', "value": 1} for name in expected
                ],
            }
        ],
    }
    rule_file, case_file = tmp_path / "rules.json", tmp_path / "cases.json"
    write_rules(rule_file, rules())
    write_cases(case_file, rule_file, "1m", [case])
    code, said = promtool("test", "rules", case_file)
    assert code == 0, said


def test_annotations_are_rendered() -> None:
    """Values, labels and links of a fired alert read as they should."""
