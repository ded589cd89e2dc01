"""What rules, recorder and scale-out tell the status page beyond their metrics."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded_node import TakeOff, flights
from rules_feed import EPOCH, SUSTAINED, engine, node, seconds
from scaleout_peers import FakeClock

from exporter.config import Aggregate, Rule
from exporter.rules_view import FIRING, INACTIVE, PENDING, RuleSeries
from exporter.sampling import Fault
from exporter.scaleout.audit import FILE, SHOWN, Audit


@pytest.fixture(name="take_off")
def _take_off(tmp_path: Path) -> object:
    with flights(tmp_path) as begin:
        yield begin


def test_rule_tells_since_when_it_is_pending_and_firing() -> None:
    """Pending: since the first sample over the threshold. Firing: that time, and when it fired."""
    watcher = engine()
    for at, load in seconds((3, 0.5), (5, 0.97)):
        watcher.observe(node(at, [load, 0.2]), EPOCH + at)
    (rule,) = watcher.view.rules
    assert (rule.state, rule.value, rule.threshold) == (PENDING, 0.97, 0.95)
    assert rule.condition == "gpu_utilization_ratio >= 0.95 for 10s"
    assert rule.ending == "< 0.85 for 30s"
    assert rule.series == (RuleSeries(0, "", PENDING, EPOCH + 3, None),)
    for at in range(8, 16):
        watcher.observe(node(at, [0.98, 0.2]), EPOCH + at)
    (rule,) = watcher.view.rules
    assert rule.state == FIRING
    assert rule.series == (RuleSeries(0, "llm", FIRING, EPOCH + 3, EPOCH + 13),)


def test_value_of_a_rule_is_that_nearest_to_firing() -> None:
    """The highest GPU for `above`, the lowest for `below`; a faulty one counts for neither."""
    below = Rule("GpuIdle", "gpu_utilization_ratio", below=0.05)
    host = Rule("HostMemory", "host_memory_used_ratio", above=0.9)
    watcher = engine(SUSTAINED, below, host)
    assert [rule.value for rule in watcher.view.rules] == [None, None, None]
    watcher.observe(node(1, [0.3, 0.7, Fault.LOST], host=0.5), EPOCH)
    assert [rule.value for rule in watcher.view.rules] == [0.7, 0.3, 0.5]
    assert {rule.state for rule in watcher.view.rules} == {INACTIVE}
    watcher.replace((below,), (), {}, 1.0)
    assert [rule.value for rule in watcher.view.rules] == [0.3]


def test_series_of_a_group_and_of_the_node_name_no_gpu() -> None:
    """A rule over a scale group, or over the host, fires for no single GPU."""
    group = Rule("All", "gpu_utilization_ratio", above=0.9, aggregate=Aggregate("all"))
    host = Rule("Host", "host_memory_used_ratio", above=0.4)
    watcher = engine(group, host)
    watcher.observe(node(1, [0.95, 0.95], host=0.5), EPOCH)
    assert [rule.series[0].gpu for rule in watcher.view.rules] == [None, None]
    assert [rule.state for rule in watcher.view.rules] == [FIRING, FIRING]


def test_recorder_lists_the_newest_recordings(take_off: TakeOff) -> None:
    """The one under way stands first at once; when it has ended its size is there."""
    flight = take_off()
    flight.tick(flight.firing())
    (first,) = flight.recorder.view().newest
    assert first.active
    assert first.name.endswith("-GpuMemoryHigh")
    flight.tick(flight.resolved())
    stored_bytes = flight.recorder.view().stored_bytes
    flight.tick(flight.firing("Other"))
    second, first = flight.recorder.view().newest
    assert (second.active, first.active) == (True, False)
    assert first.size_bytes == stored_bytes
    assert second.name.endswith("-Other")


def test_audit_remembers_the_newest_lines_across_a_restart(tmp_path: Path) -> None:
    """As many as are shown, newest first; of attempts at one request only the last; no damage."""
    time = FakeClock()
    audit = Audit(tmp_path, time.clock)
    audit.write(
        "decision", result="fired", rule="R", kind="firing", action="a", detail="", reason="x"
    )
    for attempt in range(3):
        audit.write("attempt", result="retry", target="hook", event_id="1", error=f"no {attempt}")
    assert [(entry.what, entry.detail) for entry in audit.newest] == [
        ("attempt", "no 2"),
        ("decision", "x"),
    ]
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'[]\n"x"\n{"ts": 3}\n{"ts": "yesterday", "what": "x"}\nnot json\n\xff\n')
    again = Audit(tmp_path, time.clock)
    assert again.newest == tuple(audit.newest)
    for number in range(SHOWN + 5):
        again.write("decision", result="cooldown", detail=str(number) * 1000)
    assert len(again.newest) == SHOWN
    assert max(len(entry.detail) for entry in again.newest) == 200
    assert Audit(None, time.clock).newest == ()
