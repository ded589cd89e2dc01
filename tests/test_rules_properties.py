"""What must hold of rules and windows whatever is sampled, and whenever."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rules_feed import EPOCH, SUSTAINED, Load, engine, node, play, told

from exporter.config import Aggregate
from exporter.sampling import Fault
from exporter.scaleout.model import EventKind, RuleEvent

# A busy machine decides no test.
UNTIMED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ROUNDING = 1e-6
MAX_GAP = 3.0
HIGH, LOW = (0.95, 0.97, 1.0), (0.0, 0.5, 0.85, 0.9, 0.949)
INVALID = (None, math.nan, -1.0, -0.01, 1.01, 101.0, math.inf)

Stream = list[tuple[float, Load]]

steps = st.one_of(
    st.just(1.0),
    st.floats(0.9, 1.1),
    st.sampled_from([0.001, 0.25, 0.5, 2.0, 3.0, 3.001, 4.0, 8.0, 31.0]),
)
usual = st.one_of(st.just(1.0), st.floats(0.95, 1.05))


def laid_out(stretches: Sequence[tuple[list[float], Load]]) -> Stream:
    """Return (time, load) of stretches, each given by its steps in time and its load."""
    pairs = [(step, load) for steps_of, load in stretches for step in steps_of]
    times = accumulate(step for step, _ in pairs)
    return list(zip(times, (load for _, load in pairs), strict=True))


# Long stretches of load, or hardly a rule would fire, with anything between them.
stretch = st.one_of(
    st.tuples(st.lists(usual, min_size=4, max_size=25), st.sampled_from(HIGH)),
    st.tuples(st.lists(usual, min_size=1, max_size=35), st.sampled_from(LOW)),
    st.tuples(st.lists(steps, min_size=1, max_size=3), st.sampled_from([*HIGH, *LOW, *INVALID])),
    st.tuples(st.lists(steps, min_size=1, max_size=3), st.sampled_from([*HIGH, *INVALID])),
)
lone = st.lists(stretch, max_size=8).map(laid_out)
ANY_COVERAGE = replace(SUSTAINED, min_coverage=0.0)


def valid(stream: Stream) -> list[tuple[float, float]]:
    """Return the valid samples of a stream."""
    return [
        (at, load)
        for at, load in stream
        if isinstance(load, float) and load not in INVALID and not math.isnan(load)
    ]


@UNTIMED
@given(lone)
def test_fires_only_on_samples_that_all_hold(stream: Stream) -> None:
    """Whenever it fires or repeats, 10 s of samples held without a hole, and enough of them."""
    samples = valid(stream)
    for at, event in play(engine(), stream):
        if event.kind is EventKind.RESOLVED:
            continue
        first = max(t for t, _ in samples if t <= at - 10 + ROUNDING)
        within = [(t, load) for t, load in samples if first <= t <= at]
        assert within[-1][0] == at
        assert all(load >= 0.95 for _, load in within)
        assert all(b - a <= MAX_GAP + ROUNDING for (a, _), (b, _) in pairwise(within))
        assert event.started_at - EPOCH <= at - 10 + ROUNDING
        assert len(within) >= math.floor(0.9 * (round(at - first) + 1))


@UNTIMED
@given(lone)
def test_fires_as_soon_as_samples_hold(stream: Stream) -> None:
    """Where no coverage is asked for, it is pending or fires exactly by the last unbroken run."""
    watcher = engine(ANY_COVERAGE)
    first: float | None = None
    last = -math.inf
    for at, load in stream:
        watcher.observe(node(at, [load]), EPOCH + at)
        if valid([(at, load)]):
            if at - last > MAX_GAP + ROUNDING:
                first = None
            last = at
            first = (at if first is None else first) if valid([(at, load)])[0][1] >= 0.95 else None
            held = first is not None and at - first >= 10 - ROUNDING
            assert watcher.view.rules[0].state == 2 or not held
            if first is not None:
                assert watcher.view.rules[0].state >= 1


@UNTIMED
@given(lone, st.lists(st.tuples(st.floats(0, 80), st.sampled_from(INVALID)), max_size=40))
def test_invalid_samples_never_hasten(stream: Stream, extra: Stream) -> None:
    """Ticks without a valid sample, put in anywhere, change neither firings nor repeats."""
    mixed = sorted((dict(extra) | dict(stream)).items())
    plain, noisy = (
        [pair for pair in told(play(engine(), each)) if pair[1] != "resolved"]
        for each in (stream, mixed)
    )
    assert plain == noisy


@UNTIMED
@given(lone)
def test_doubled_ticks_change_nothing(stream: Stream) -> None:
    """Every snapshot seen twice gives the same events, counters and windows."""
    once, twice = engine(), engine()
    assert play(once, stream) == play(twice, [pair for pair in stream for _ in range(2)])
    assert once.view == twice.view


@UNTIMED
@given(st.lists(st.floats(-0.05, 0.05), min_size=13, max_size=13))
def test_jitter_of_five_percent(jitter: list[float]) -> None:
    """Ticks that are up to 5 % of their interval off fire after 10 s, and before 11.5 s."""
    stream: Stream = [(100 + at + off, 1.0) for at, off in enumerate(jitter)]
    (at, kind), *_ = told(play(engine(), stream))
    assert kind == "firing"
    assert 10 - ROUNDING <= at - stream[0][0] <= 11.5


node_loads = st.sampled_from([*HIGH * 8, *LOW, None, Fault.LOST, Fault.HUNG])


rows_of = st.lists(
    st.tuples(st.integers(1, 14), st.tuples(node_loads, node_loads, node_loads)), max_size=10
).map(lambda stretches: [row for count, row in stretches for _ in range(count)])


@UNTIMED
@given(
    rows_of,
    st.permutations([0, 1, 2]),
    st.sampled_from([*map(Aggregate, ("any", "all", "mean", "max")), Aggregate(quorum=2)]),
)
def test_order_of_gpus_does_not_matter(
    rows: list[tuple[Load, Load, Load]], order: list[int], aggregate: Aggregate
) -> None:
    """A snapshot that lists its GPUs in another order gives the same events and view."""
    rule = replace(SUSTAINED, aggregate=aggregate)
    straight, mixed = engine(rule), engine(rule)
    for at, row in enumerate(rows):
        snapshot = node(float(at), row)
        gpus = tuple(snapshot.gpus[index] for index in order)
        events = straight.observe(snapshot, EPOCH)
        assert mixed.observe(replace(snapshot, gpus=gpus), EPOCH) == events
        assert mixed.view == straight.view


@UNTIMED
@given(rows_of)
def test_gpus_alone_are_as_if_alone(rows: list[tuple[Load, Load, Load]]) -> None:
    """With `any`, a GPU fires when it would have fired alone; the others do not matter."""
    together = engine()
    events: list[tuple[float, RuleEvent]] = [
        (float(at), event)
        for at, row in enumerate(rows)
        for event in together.observe(node(float(at), row), EPOCH + at)
    ]
    for index in range(3):
        alone = play(engine(), [(float(at), row[index]) for at, row in enumerate(rows)])
        mine = [
            (at, event.kind.value)
            for at, event in events
            if str(index) in {series.gpu for series in event.series}
        ]
        assert [pair for pair in mine if pair[1] != "resolved"] == [
            pair for pair in told(alone) if pair[1] != "resolved"
        ]


@UNTIMED
@given(lone)
def test_windows_are_those_of_brute_force(stream: Stream) -> None:
    """Minimum, peak and coverage equal what a search through all samples gives, at every tick."""
    watcher = engine()
    seen: list[tuple[float, float]] = []
    peaks: list[tuple[float, float]] = []
    for at, load in stream:
        watcher.observe(node(at, [load]), EPOCH + at)
        fresh = valid([(at, load)])
        seen += fresh
        if not seen:
            assert watcher.view.windows == {}
            continue
        if fresh and (low := lowest(seen)) is not None:
            peaks.append((at, low))
        window = watcher.view.windows[0]
        is_hole = at - seen[-1][0] > MAX_GAP + ROUNDING
        assert window.minimum_ratio == (None if is_hole else lowest(seen))
        recent = [low for when, low in peaks if when >= at - 60]
        assert window.peak_minimum_ratio == max(recent, default=None)
        expected = max(1, round(min(60.0, at - seen[0][0] + 1)))
        assert window.coverage_ratio == min(1.0, sum(t > at - 60 for t, _ in seen) / expected)


def lowest(seen: list[tuple[float, float]]) -> float | None:
    """Return the lowest of the last samples that span 10 s, or None if these do not say."""
    end = seen[-1][0]
    starts = [index for index, (at, _) in enumerate(seen) if at <= end - 10 + ROUNDING]
    if not starts:
        return None
    within = seen[starts[-1] :]
    if any(b - a > MAX_GAP + ROUNDING for (a, _), (b, _) in pairwise(within)):
        return None
    if len(within) < math.floor(0.9 * (round(end - within[0][0]) + 1)):
        return None
    return min(load for _, load in within)


@UNTIMED
@given(lone)
def test_rule_and_window_agree(stream: Stream) -> None:
    """When `for: 10s` fires, the minimum of the last 10 s is at or over the threshold."""
    watcher = engine()
    for at, load in stream:
        for event in watcher.observe(node(at, [load]), EPOCH + at):
            minimum = watcher.view.windows[0].minimum_ratio if watcher.view.windows else None
            if event.kind is EventKind.FIRING and event.series[0].expected == 11:
                assert minimum is not None
                assert minimum >= 0.95


@UNTIMED
@given(lone)
def test_condition_seconds_are_those_of_brute_force(stream: Stream) -> None:
    """The counter is the time between neighbouring samples that both hold, holes left out."""
    watcher = engine(ANY_COVERAGE)
    play(watcher, stream)
    total = sum(
        b - a
        for (a, one), (b, other) in pairwise(valid(stream))
        if one >= 0.95 and other >= 0.95 and b - a <= MAX_GAP + ROUNDING
    )
    assert math.isclose(watcher.view.rules[0].condition_seconds, total, abs_tol=1e-6)


@UNTIMED
@given(lone, st.integers(0, 80))
def test_reload_of_the_same_rules_changes_nothing(stream: Stream, moment: int) -> None:
    """An engine that is given its own rules again at any moment goes on as if it were not."""
    plain, reloaded = engine(), engine()
    head = play(reloaded, stream[:moment])
    assert reloaded.replace((SUSTAINED,), (), {"scale_group": "llm"}, 1.0) == ()
    assert head + play(reloaded, stream[moment:]) == play(plain, stream)
    assert reloaded.view == plain.view


@UNTIMED
@given(lone)
def test_states_stay_small(stream: Stream) -> None:
    """However long it runs, an engine keeps no more than a minute of times."""
    watcher = engine()
    play(watcher, stream)
    for track in watcher._state.tracks.values():
        assert track.times[-1] - track.times[0] <= 60
        assert len(track.lows) <= len(track.times)
        assert not track.peaks or track.peaks[-1][0] - track.peaks[0][0] <= 60
