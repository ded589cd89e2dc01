"""The unit tests of the alerts notice mistakes: a thousand planted ones, one at a time."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alert_mutants import changes, mutants, survivors
from alert_rules import Rule, alerts, recordings

WORKERS = 2  # each is a promtool
BOTH_SIDES = "series match on all their labels, so what one side selects holds for the other"
BOUNDARY = "a rate or quotient does not meet its limit to the last bit, so >= is >"
LATENCY = "a latency is never negative, and 0 only in a server without requests"

# Mutants that no series can tell from the rule, and why. Each must be among the survivors.
EQUIVALENT = {
    r"(GpuMissing|HostSwapInUse|HostSwapping|ProcessMemoryGrowth|GpuPcie(Width|Generation)Degraded"
    r"|GpuNvlinkDown|GpuMemoryExhausted|GpuScaleOutFlapping|GpuExporterCollectionSlow"
    r"|GpuTemperatureNearSlowdown|GpuMemoryTemperatureNearLimit|GpuFanFailed)"
    r': job="gpu-node" #\d -> nothing': BOTH_SIDES,
    r"(GpuExporterCollection(Failing|Slow)|GpuEccCorrectedRateHigh|HostSwapping|GpuNvlinkErrors"
    r"|GpuPcie(GenerationDegraded|ReplaysHigh)|AlertmanagerNotificationsFailing|GpuXidStorm"
    r"|GpuScaleOutFlapping|GpuThermalThrottling|InferenceLatencyBudgetBurn): > #\d -> >=": BOUNDARY,
    r"ProcessMemoryGrowth: > #1 -> >=": BOUNDARY,
    r"InferenceLatencyP99High: < #1 -> <=": BOUNDARY,
    r"GpuPcie(Width|Generation)Degraded: kind=\"current\" #1 -> nothing": (
        "the highest width and generation are never below themselves"
    ),
    r"InferenceLatencyP99High: (>= #1 -> >|0 #1 -> -1)": LATENCY,
    r"InferenceLatencyUnknown: (>= #1 -> >|0 #2 -> -1)": LATENCY,
    r'InferenceLatencyP99High: latency="request" #1 -> nothing': (
        "what it lets in besides is NaN, which no comparison keeps"
    ),
    r"instance:gpu_\w+_threshold:ratio\{\}: rule #1 -> nothing": (
        "joins leave the label out; it would only make the recorded series differ"
    ),
    r"Watchdog: 1 #1 -> .*": "nobody looks at the value",
}


@pytest.mark.slow(60)
@pytest.mark.timeout(600)
def test_no_mistake_in_a_rule_goes_unnoticed(tmp_path: Path) -> None:
    """No mutant of a rule passes the unit tests, but for those that are no mistakes."""

    def of(alert: Rule) -> list[str]:
        return survivors(alert, tmp_path / alert.name)

    with ThreadPoolExecutor(WORKERS) as pool:
        living = Counter(one for found in pool.map(of, alerts()) for one in found)
    # A recording's mutant is noticed as soon as one of the alerts on it notices.
    asked = Counter(str(mutant) for alert in alerts() for mutant in mutants(alert))
    unnoticed = {one for one, count in living.items() if count == asked[one]}
    unlisted = {one for one in unnoticed if not any(re.fullmatch(e, one) for e in EQUIVALENT)}
    assert not unlisted
    stale = {e for e in EQUIVALENT if not any(re.fullmatch(e, one) for one in unnoticed)}
    assert not stale


def test_mistakes_of_every_kind_are_planted() -> None:
    """Each alert has mutants in its condition and labels; waits, holds and recordings too."""
    for alert in alerts():
        planted = {what for what, _ in changes(alert)}
        assert {"no label severity", "no label component", "no label family"} <= planted
        assert ("no for" in planted) == bool(alert.wait)
        assert ("no keep_firing_for" in planted) == bool(alert.keep)
        assert any("->" in what for what in planted), alert.name
    used = {str(mutant).split("{")[0] for alert in alerts() for mutant in mutants(alert)}
    assert {recording.name for recording in recordings()} <= used
