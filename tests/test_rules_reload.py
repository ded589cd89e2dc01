"""Rules across a reload of the config and a restart of the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from rules_feed import EPOCH, SUSTAINED, engine, node, play, seconds, told

from exporter.config import Rule
from exporter.rules import Engine, Fired
from exporter.scaleout.model import RuleEvent

OTHER = Rule("GpuMemoryHigh", "gpu_memory_used_ratio", above=0.8)
LABELS: Mapping[str, str] = {"scale_group": "llm"}
BEFORE = Fired("llm", started_at=EPOCH - 110, fired_at=EPOCH - 100)
KEY = ("GpuSustainedLoad", "GPU-0")


def reload(watcher: Engine, *rules: Rule) -> tuple[RuleEvent, ...]:
    """Replace an engine's rules."""
    return watcher.replace(rules, (), LABELS, 1.0)


def test_unchanged_rule_goes_on() -> None:
    """A wait goes on over a reload that adds a rule, changes the order, and gives other actions."""
    watcher = engine()
    assert play(watcher, seconds((6, 1.0))) == []
    assert reload(watcher, OTHER, replace(SUSTAINED, actions=("page",))) == ()
    (event,) = [e for at in range(6, 11) for e in watcher.observe(node(at, [1.0]), EPOCH)]
    assert event.actions == ("page",)
    assert [rule.alert for rule in watcher.view.rules] == ["GpuMemoryHigh", "GpuSustainedLoad"]


@pytest.mark.parametrize(
    "changed",
    [
        replace(SUSTAINED, above=0.9),
        replace(SUSTAINED, for_seconds=9.0),
        replace(SUSTAINED, max_gap_seconds=2.0),
    ],
)
def test_changed_rule_starts_anew(changed: Rule) -> None:
    """A rule with another definition ends what fired, waits in full, and keeps its counters."""
    watcher = engine()
    play(watcher, seconds((11, 1.0)))
    (end,) = reload(watcher, changed)
    assert (end.kind.value, end.reason, end.series[0].gpu) == ("resolved", "absent", "0")
    assert end.actions == SUSTAINED.actions
    assert watcher.view.rules[0].state == 0
    again = play(watcher, [(float(at), 1.0) for at in range(11, 22)])
    assert told(again)[0] == (11 + changed.for_seconds, "firing")
    assert watcher.view.rules[0].firings == 2
    assert watcher.view.rules[0].condition_seconds == pytest.approx(20.0)


def test_removed_rule_is_gone() -> None:
    """A rule that is not there any more ends, and leaves neither state nor series."""
    watcher = engine(SUSTAINED, OTHER)
    play(watcher, seconds((11, 1.0)))
    assert [end.rule for end in reload(watcher, OTHER)] == ["GpuSustainedLoad"]
    assert watcher.firing == {}
    assert play(watcher, seconds((40, 1.0))[11:]) == []
    assert [rule.alert for rule in watcher.view.rules] == ["GpuMemoryHigh"]


def test_bad_reload_changes_nothing() -> None:
    """A rule that names no metric is refused, and the old rules go on."""
    watcher = engine()
    play(watcher, seconds((6, 1.0)))
    with pytest.raises(KeyError):
        reload(watcher, replace(SUSTAINED, metric="gpu_upp"))
    assert told(play(watcher, seconds((11, 1.0))[6:])) == [(10, "firing")]


def test_restored_firing_repeats_after_a_fresh_wait() -> None:
    """After a restart, what fired is not told as new, but repeated once it held for `for` again."""
    watcher = engine(restored={KEY: BEFORE})
    assert watcher.firing == {KEY: BEFORE}
    assert watcher.view.rules[0].state == 2
    events = play(watcher, seconds((3, None), (11, 1.0)))
    assert told(events) == [(13, "repeat")]
    assert events[0][1].fired_at == BEFORE.fired_at
    assert events[0][1].started_at == EPOCH + 3
    assert watcher.view.rules[0].firings == 0


def test_restored_firing_clears() -> None:
    """It ends when it has been clear long enough since the restart."""
    events = play(engine(restored={KEY: BEFORE}), seconds((31, 0.5)))
    assert [(at, event.reason) for at, event in events] == [(30, "cleared")]


def test_restored_firing_of_a_gpu_that_is_gone() -> None:
    """It ends as absent 30 s after the start; of a rule that is gone, nothing is left at once."""
    gone = {("GpuSustainedLoad", "GPU-9"): BEFORE, ("Gone", "GPU-0"): BEFORE}
    watcher = engine(restored=gone)
    assert list(watcher.firing) == [("GpuSustainedLoad", "GPU-9")]
    events = play(watcher, seconds((40, 0.5)))
    assert [(at, event.reason, event.series) for at, event in events] == [(31, "absent", ())]


def test_firing_survives_a_restart_unchanged() -> None:
    """What an engine says of what fires is what another one takes."""
    first = engine()
    play(first, seconds((15, 1.0)))
    second = engine(restored=first.firing)
    assert second.firing == first.firing == {KEY: Fired("llm", EPOCH, EPOCH + 10)}
