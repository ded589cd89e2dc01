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
    ALERTS,
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
FULL = {"GpuMemoryHigh"}
HOT = {"GpuTemperatureNearSlowdown"}
FIRING = {
    "none": set(),
    "gb10": set(),
    "a100-mig": FULL,
    "b200x8": FULL,
    "geforce": FULL,
    "t4": FULL,
    "l40s": FULL | HOT,
    "h100x8": FULL | HOT | {"GpuMemoryTemperatureNearLimit"},
    "h100x8-one-forbidden": FULL | {"GpuForbidden"},
    "h100x8-one-hung": FULL | {"GpuHung"},
    "h100x8-one-lost": FULL | {"GpuLost"},
    "b200x8-sick": FULL
    | {"GpuRecoveryActionNeeded", "GpuEccUncorrected", "GpuEccSramThresholdExceeded"}
    | {"GpuRowRemapFailure", "GpuRowRemapPending", "GpuPcieWidthDegraded"}
    | {"GpuFabricManagerUnhealthy", "GpuFabricUnhealthy"},
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
@pytest.mark.parametrize("machine", FIRING)
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
    expected = sorted(FIRING[machine] | {"Watchdog"})
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


def test_annotations_read_as_they_should(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Summary and description of each alert, fired by its unit test: --update writes them anew."""
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda path: rendered(path.name, tmp_path / path.name), TEST_FILES)
        texts = {name: text for file in found for name, text in file.items()}
    assert sorted(texts) == sorted(alert.name for alert in alerts())
    text = "\n".join(f"{name}: {texts[name]}\n" for name in sorted(texts))
    golden = GOLDEN / "alerts.txt"
    if pytestconfig.getoption("update"):
        golden.write_text(text)
    assert text == golden.read_text()


def rendered(file: str, case_file: Path) -> dict[str, str]:
    """Return the annotations with which the alerts of a file of unit tests fire first."""
    asked = []
    for case in (case for case in cases() if case.file == file):
        fired = next(
            test["eval_time"]
            for test in case.document["promql_expr_test"]
            if 'state="firing"' in str(test["exp_samples"])
        )
        silence = {"alertname": case.alert, "eval_time": fired, "exp_alerts": []}
        kept = {"interval", "input_series"} & case.document.keys()
        document = {key: case.document[key] for key in kept}
        asked.append({**document, "alert_rule_test": [silence]})
        head = [str(ALERTS / name) for name in case.rule_files], case.evaluation
    case_file.write_text(
        json.dumps({"rule_files": head[0], "evaluation_interval": head[1], "tests": asked})
    )
    _, said = promtool("test", "rules", case_file)
    assert "<error" not in said
    assert "<no value>" not in said
    of_each = r'alertname: (\w+), .*?description="(.*?)", runbook_url=.*?, summary="(.*?)"\}'
    return {
        name: f"{summary}\n{description}"
        for name, description, summary in re.findall(of_each, said, re.DOTALL)
    }
