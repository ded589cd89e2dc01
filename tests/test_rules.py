"""Rules, one series: every row of the state machine's table, samples of all sorts, and counters."""

from __future__ import annotations

import ast
import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rules_feed import EPOCH, SUSTAINED, Load, engine, node, play, seconds, told

import exporter.rules
from exporter.catalogue import RULE_METRICS
from exporter.config import Rule
from exporter.gpu.utilization import Utilization
from exporter.metric import MetricVec
from exporter.rules.samples import columns, grouping, take
from exporter.rules.step import State, step
from exporter.rules_view import METRICS
from exporter.sampling import Fault
from exporter.scaleout.model import EventKind, RuleEvent, SeriesSummary

AT_ONCE = replace(SUSTAINED, for_seconds=0.0)
MINUTE = replace(SUSTAINED, for_seconds=60.0)
NO_BAND = replace(SUSTAINED, clear_below=None, keep_firing_for_seconds=0.0)
IDLE = Rule(
    "GpuIdle",
    "gpu_utilization_ratio",
    below=0.05,
    for_seconds=10.0,
    clear_above=0.15,
    keep_firing_for_seconds=30.0,
)
LENIENT = replace(SUSTAINED, min_coverage=0.5, max_gap_seconds=5.0)
STRICT = replace(SUSTAINED, min_coverage=1.0)

TABLE: dict[str, tuple[Rule, list[tuple[int, Load]], list[tuple[float, str]]]] = {
    "inactive: never at the threshold": (SUSTAINED, [(60, 0.94)], []),
    "pending: ten samples span 9 s": (SUSTAINED, [(10, 1.0), (20, 0.94)], []),
    "firing: eleven samples span 10 s": (SUSTAINED, [(11, 1.0)], [(10, "firing")]),
    "firing: exactly at the threshold": (SUSTAINED, [(11, 0.95)], [(10, "firing")]),
    "pending: a dip starts anew": (SUSTAINED, [(10, 1.0), (1, 0.5), (11, 1.0)], [(21, "firing")]),
    "pending: a dip into the band, too": (
        SUSTAINED,
        [(10, 1.0), (1, 0.9), (11, 1.0)],
        [(21, "firing")],
    ),
    "pending: alternating 96/94 never fires": (SUSTAINED, [(1, 0.96), (1, 0.94)] * 60, []),
    "pending: two missing samples": (
        SUSTAINED,
        [(4, 1.0), (2, None), (5, 1.0)],
        [(10, "firing")],
    ),
    "pending: five missing samples": (
        SUSTAINED,
        [(4, 1.0), (5, None), (11, 1.0)],
        [(19, "firing")],
    ),
    "pending: three missing samples are a hole": (
        SUSTAINED,
        [(4, 1.0), (3, None), (11, 1.0)],
        [(17, "firing")],
    ),
    "pending: a longer gap allowed": (LENIENT, [(4, 1.0), (4, None), (3, 1.0)], [(10, "firing")]),
    "pending: coverage too low": (
        SUSTAINED,
        [*[(2, 1.0), (1, None)] * 3, (12, 1.0)],
        [(20, "firing")],
    ),
    "pending: full coverage asked for": (
        STRICT,
        [(4, 1.0), (1, None), (16, 1.0)],
        [(20, "firing")],
    ),
    "pending: every other sample never suffices": (SUSTAINED, [(1, 1.0), (1, None)] * 60, []),
    "pending: a fault starts anew": (
        SUSTAINED,
        [(9, 1.0), (1, Fault.HUNG), (11, 1.0)],
        [(20, "firing")],
    ),
    "firing: clear for 30 s": (
        SUSTAINED,
        [(11, 1.0), (31, 0.84)],
        [(10, "firing"), (41, "resolved")],
    ),
    "firing: clear for 29 s": (SUSTAINED, [(11, 1.0), (30, 0.84)], [(10, "firing")]),
    "firing: the band stops the clearing": (
        SUSTAINED,
        [(11, 1.0), (30, 0.84), (1, 0.85), (31, 0.84)],
        [(10, "firing"), (72, "resolved")],
    ),
    "firing: two missing samples do not stop the clearing": (
        SUSTAINED,
        [(11, 1.0), (5, 0.1), (2, None), (24, 0.1)],
        [(10, "firing"), (41, "resolved")],
    ),
    "firing: a hole starts the clearing anew": (
        SUSTAINED,
        [(11, 1.0), (5, 0.1), (3, None), (31, 0.1)],
        [(10, "firing"), (49, "resolved")],
    ),
    "firing: clears only when covered": (
        SUSTAINED,
        [(11, 1.0), *[(2, 0.1), (1, None)] * 11, (40, 0.1)],
        [(10, "firing"), (71, "resolved")],
    ),
    "firing: no band, no wait": (
        NO_BAND,
        [(11, 1.0), (1, 0.94)],
        [(10, "firing"), (11, "resolved")],
    ),
    "firing: the band lasts": (SUSTAINED, [(11, 1.0), (100, 0.9)], [(10, "firing")]),
    "firing: repeats": (
        SUSTAINED,
        [(35, 1.0)],
        [(10, "firing"), (20, "repeat"), (30, "repeat")],
    ),
    "firing: repeats after a fresh wait": (
        SUSTAINED,
        [(16, 1.0), (1, 0.9), (11, 1.0)],
        [(10, "firing"), (27, "repeat")],
    ),
    "firing: a hole starts the repeat's wait anew": (
        SUSTAINED,
        [(16, 1.0), (3, None), (11, 1.0)],
        [(10, "firing"), (29, "repeat")],
    ),
    "firing: repeats only when covered": (
        SUSTAINED,
        [(11, 1.0), *[(1, None), (2, 1.0)] * 3, (11, 1.0)],
        [(10, "firing"), (30, "repeat")],
    ),
    "firing: repeats no more often than `for`": (
        MINUTE,
        [(121, 1.0)],
        [(60, "firing"), (120, "repeat")],
    ),
    "firing: repeats no more often than 10 s": (
        AT_ONCE,
        [(25, 1.0)],
        [(0, "firing"), (10, "repeat"), (20, "repeat")],
    ),
    "firing: absent for 30 s": (SUSTAINED, [(11, 1.0), (29, None), (5, 0.9)], [(10, "firing")]),
    "firing: absent for 31 s": (
        SUSTAINED,
        [(11, 1.0), (31, None)],
        [(10, "firing"), (41, "resolved")],
    ),
    "firing: lost": (
        SUSTAINED,
        [(11, 1.0), (60, Fault.LOST)],
        [(10, "firing"), (41, "resolved")],
    ),
    "firing: lost for a while": (
        SUSTAINED,
        [(16, 1.0), (20, Fault.LOST), (11, 1.0)],
        [(10, "firing"), (46, "repeat")],
    ),
    "firing: a fault starts the clearing anew": (
        SUSTAINED,
        [(11, 1.0), (5, 0.1), (1, Fault.ERROR), (31, 0.1)],
        [(10, "firing"), (47, "resolved")],
    ),
    "below: at the threshold": (IDLE, [(11, 0.05)], [(10, "firing")]),
    "below: over it": (IDLE, [(60, 0.06)], []),
    "below: clear over clear_above": (
        IDLE,
        [(11, 0.0), (31, 0.16)],
        [(10, "firing"), (41, "resolved")],
    ),
    "below: the band": (IDLE, [(11, 0.0), (60, 0.15)], [(10, "firing")]),
}


@pytest.mark.parametrize("name", TABLE)
def test_state_table(name: str) -> None:
    """One row of the state machine: these samples, these events at these seconds, no other."""
    rule, stretches, expected = TABLE[name]
    assert told(play(engine(rule), seconds(*stretches))) == expected


@pytest.mark.parametrize(("last", "fires"), [(9.9, False), (9.999, False), (10.0, True)])
@pytest.mark.parametrize("since", [0.0, 0.1, 1234567.3, 8.4])  # 18.4 - 8.4 is 9.999...
def test_boundary(last: float, since: float, *, fires: bool) -> None:
    """The time from the first sample to the last decides, whatever the clock started at."""
    series: list[tuple[float, Load]] = [(float(at), 1.0) for at in range(10)]
    series += [(last, 1.0), (last + 0.01, 0.0)]
    assert bool(play(engine(), series, since)) == fires


def test_ten_hertz_boundary() -> None:
    """At 10 Hz, 100 samples (9.9 s) do not fire, and the 101st does."""
    series: list[tuple[float, Load]] = [(at / 10, 1.0) for at in range(101)]
    assert told(play(engine(interval=0.1), series)) == [(10.0, "firing")]
    dipped = [*series[:100], (10.0, 0.94)]
    assert play(engine(interval=0.1), dipped) == []


def test_stalled_sampler_starts_the_wait_anew() -> None:
    """A process that was stopped for 8 s fires neither on waking nor before a full `for`."""
    series: list[tuple[float, Load]] = [(float(at), 1.0) for at in (*range(6), *range(13, 24))]
    assert told(play(engine(), series)) == [(23, "firing")]


def test_a_long_stall_ends_what_fired() -> None:
    """After more than 30 s without any tick, the firing of before is over, and the wait is new."""
    series: list[tuple[float, Load]] = [(float(at), 1.0) for at in (*range(11), *range(60, 71))]
    events = play(engine(), series)
    assert told(events) == [(10, "firing"), (60, "resolved"), (70, "firing")]
    assert events[1][1].reason == "absent"


def test_ticks_far_apart_never_fire() -> None:
    """Samples 4 s apart say nothing of the time between them."""
    series: list[tuple[float, Load]] = [(4.0 * at, 1.0) for at in range(30)]
    assert play(engine(), series) == []


def test_doubled_ticks_count_once() -> None:
    """The same snapshot, seen twice, adds neither samples nor time."""
    twice = [sample for sample in seconds((11, 1.0)) for _ in range(2)]
    events = play(engine(), twice)
    assert told(events) == [(10, "firing")]
    assert (events[0][1].series[0].samples, events[0][1].series[0].expected) == (11, 11)


def test_readings_are_later_than_their_snapshot() -> None:
    """A poll reads its GPUs after it began: each GPU's own time counts, a late one's too."""
    watcher = engine()
    came = []
    for at in range(12):
        snapshot = node(float(at), [1.0])
        late = 0.0 if at == 0 else -0.3 if at == 10 else 0.4
        gpu = replace(snapshot.gpus[0], sampled_at=at + 0.4 + late)
        came += [at for _ in watcher.observe(replace(snapshot, gpus=(gpu,)), EPOCH)]
    assert came == [11]
    assert watcher.view.windows[0].minimum_ratio == 1.0


def test_coverage_ends_with_the_last_reading() -> None:
    """The minute of the coverage ends with the readings, not when their poll began."""
    watcher = engine()
    for at in range(80):
        snapshot = node(float(at), [None if at == 70 else 1.0])
        gpu = replace(snapshot.gpus[0], sampled_at=at + 0.4)
        watcher.observe(replace(snapshot, gpus=(gpu,)), EPOCH)
    assert watcher.view.windows[0].coverage_ratio == pytest.approx(59 / 60)


def test_a_clock_that_goes_back_adds_nothing() -> None:
    """Samples of times that were there before are none."""
    series: list[tuple[float, Load]] = [(float(at), 1.0) for at in (*range(10), *range(3, 11))]
    ((at, event),) = play(engine(), series)
    assert (at, event.series[0].samples, event.series[0].expected) == (10, 11, 11)


def test_a_fault_outweighs_readings() -> None:
    """A GPU with a fault never fires, even with fresh readings beside the fault."""
    watcher = engine(AT_ONCE)
    snapshot = node(0.0, [1.0])
    sick = replace(snapshot.gpus[0], fault=Fault.RESET_REQUIRED)
    assert watcher.observe(replace(snapshot, gpus=(sick,)), EPOCH) == ()


def test_a_reading_that_is_not_new_is_no_sample() -> None:
    """A GPU whose last reading stays old under new snapshots does not get on with its wait."""
    watcher = engine()
    for at in range(60):
        snapshot = node(float(at), [1.0])
        stuck = replace(snapshot.gpus[0], sampled_at=min(at, 5.0))
        assert watcher.observe(replace(snapshot, gpus=(stuck,)), EPOCH) == ()


@pytest.mark.parametrize("absurd", [math.nan, -0.01, 1.01, math.inf, -math.inf, None])
def test_absurd_samples_are_no_samples(absurd: float | None) -> None:
    """NaN, negative, infinite and ratios over 1 neither hold nor clear, just as missing ones."""
    assert play(engine(AT_ONCE), seconds((60, absurd))) == []
    inside = seconds((4, 1.0), (2, absurd), (5, 1.0))
    assert told(play(engine(), inside)) == [(10, "firing")]
    after = seconds((11, 1.0), (31, absurd))
    assert [event.reason for _, event in play(engine(), after)][1:] == ["absent"]


def test_wall_clock_jumps_change_nothing() -> None:
    """Only the monotonic clock decides: walls an hour or ten years off give the same events."""
    jumps = (0.0, 3600.0, -3600.0, 3.2e8, -3.2e8)
    watcher = engine()
    came = [
        (at, event.kind.value)
        for at in range(25)
        for event in watcher.observe(node(float(at), [1.0]), EPOCH + at + jumps[at % 5])
    ]
    assert came == [(10, "firing"), (20, "repeat")]


def test_event_says_all_there_is() -> None:
    """An event carries the rule, its condition in words, wall times, actions, and the evidence."""
    loads = [0.95, 0.96, 0.97, None, 0.99, 1.0, 0.95, 0.95, 0.95, 0.95, 0.98]
    mean = sum(load for load in loads if load is not None) / 10
    ((_, event),) = play(engine(), [(float(at), load) for at, load in enumerate(loads)])
    assert event == RuleEvent(
        rule="GpuSustainedLoad",
        kind=EventKind.FIRING,
        reason="gpu_utilization_ratio >= 0.95 for 10s",
        scale_group="llm",
        started_at=EPOCH,
        fired_at=EPOCH + 10,
        series=(SeriesSummary("0", "GPU-0", 0.98, 0.95, mean, 10, 11),),
        actions=("record", "scale-out"),
    )


def test_repeat_and_end_say_since_when() -> None:
    """A repeat starts with its own fresh wait and keeps the firing's time; so does the end."""
    events = [event for _, event in play(engine(), seconds((21, 1.0), (31, 0.25)))]
    assert [event.kind.value for event in events] == ["firing", "repeat", "resolved"]
    assert [event.started_at - EPOCH for event in events] == [0, 10, 0]
    assert [event.fired_at - EPOCH for event in events] == [10, 10, 10]
    assert [event.reason for event in events][2] == "cleared"
    assert events[2].series[0].mean == 0.25
    assert [event.series[0].samples for event in events] == [11, 11, 31]


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_is_set_amid_a_wait_leaves_the_beginning_before_the_end(jump: float) -> None:
    """Both times of an event are of the clock as it is when the rule fires; so is a wait's."""
    watcher = engine()
    events: list[RuleEvent] = []
    for at in range(11):
        wall = EPOCH + at + (jump if at > 4 else 0.0)
        events += watcher.observe(node(float(at), [1.0]), wall)
        (series,) = watcher.view.rules[0].series
        assert series.since == wall - at
    (event,) = events
    assert (event.started_at, event.fired_at) == (EPOCH + jump, EPOCH + jump + 10)


def test_constant_load_repeats_after_each_cooldown() -> None:
    """22 min at 100 %: of the repeats, one begins its wait just as a cooldown of 5 min ends."""
    accepted: list[float] = []
    for at, event in play(engine(), seconds((1321, 1.0))):
        if not accepted or event.started_at - EPOCH >= accepted[-1] + 300:
            accepted.append(at)
    assert accepted == [10, 320, 630, 940, 1250]


def test_view_counts_what_happened() -> None:
    """State, firings from 0 on, seconds of the condition, and threshold follow the samples."""
    watcher = engine()
    assert [row.values(watcher.view) for row in METRICS if isinstance(row, MetricVec)] == [
        {"GpuSustainedLoad": value} for value in (0, 0, 0.0, 0.95)
    ]
    states = []
    for at, load in seconds((11, 1.0), (31, 0.1), (1, None), (2, 1.0), (1, None), (1, 1.0)):
        watcher.observe(node(at, [load]), EPOCH + at)
        states.append(watcher.view.rules[0].state)
    assert states == [1] * 10 + [2] * 31 + [0] * 2 + [1] * 4
    assert watcher.view.rules[0].firings == 1
    assert watcher.view.rules[0].condition_seconds == pytest.approx(10 + 1 + 2)


def test_view_of_a_rule_with_below() -> None:
    """gpu_rule_threshold is the one threshold that the rule has."""
    assert engine(IDLE).view.rules[0].threshold == 0.05


def test_condition_seconds_bridge_no_hole() -> None:
    """Time that no sample speaks for is not counted, nor is the time of a single sample."""
    watcher = engine()
    play(watcher, seconds((3, 1.0), (3, None), (4, 1.0), (1, 0.1), (1, 1.0), (5, 0.1)))
    assert watcher.view.rules[0].condition_seconds == pytest.approx(2 + 3)


def test_state_before_is_not_changed() -> None:
    """A step can be taken again from the same state and tick, and gives the same."""
    rules = (SUSTAINED, replace(IDLE, smooth_seconds=3.0), replace(AT_ONCE, alert="AtOnce"))
    wanted, groups = columns(rules), grouping((), {})
    state = State()
    for at, load in seconds((14, 1.0), (1, None), (5, 0.0), (1, Fault.LOST), (3, 1.0)):
        tick = take(node(at, [load, 0.5]), EPOCH + at, wanted, groups)
        kept = copy.deepcopy(state)
        once, again = step(rules, state, tick, 1.0), step(rules, state, tick, 1.0)
        assert once == again
        assert state == kept
        state = once[0]


def test_rules_know_no_clock_and_no_world() -> None:
    """The package imports nothing that reads clocks, files or sockets, and no log."""
    allowed = (
        "__future__ bisect collections dataclasses enum exporter math operator sys types typing"
    )
    for path in Path(exporter.rules.__file__).parent.glob("*.py"):
        for statement in ast.walk(ast.parse(path.read_text())):
            if isinstance(statement, ast.ImportFrom):
                assert (statement.module or "").split(".")[0] in allowed.split()
            elif isinstance(statement, ast.Import):
                assert {name.name for name in statement.names} <= set(allowed.split())


def test_what_a_rule_may_watch() -> None:
    """Single numbers of GPUs and of the node can be watched; what rules make themselves cannot."""
    assert {"gpu_utilization_ratio", "gpu_memory_used_ratio", "host_memory_used_ratio"} <= set(
        RULE_METRICS
    )
    assert not {"gpu_up", "gpu_info", "gpu_fault", "gpu_sampler_coverage_ratio"} & set(RULE_METRICS)
    with pytest.raises(KeyError, match="gpu_upp"):
        engine(replace(SUSTAINED, metric="gpu_upp"))


def test_reading_without_the_value_is_no_sample() -> None:
    """A GPU that has no such reading at all stays without any state."""
    watcher = engine(AT_ONCE)
    snapshot = node(0.0, [0.5])
    for part in (None, Utilization(0.0)):
        bare = replace(snapshot.gpus[0], utilization=part)
        assert watcher.observe(replace(snapshot, gpus=(bare,)), EPOCH) == ()
    assert watcher.view.rules[0].state == 0
