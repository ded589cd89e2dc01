"""All rules through one tick: a pure function of the state before and the tick."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import field, replace

from exporter.config import Condition, Rule
from exporter.frozen import dataclass
from exporter.rules import windows
from exporter.rules.readings import Level, Reading, Smoothed, readings, smooth
from exporter.rules.samples import UTILIZATION, GpuTick, Tick
from exporter.rules.series import ABSENT, CLEARED, Change, Clock, Series, advance
from exporter.scaleout.model import EventKind, RuleEvent
from exporter.schema import as_duration


@dataclass(frozen=True, slots=True)
class RuleState:
    """One rule: its series that are not inactive, what it has counted, and samples for means.

    `counted_until` is the monotonic time up to which `condition_seconds` is settled.
    """

    series: Mapping[str, Series] = field(default_factory=dict)
    firings: int = 0
    condition_seconds: float = 0.0
    counted_until: float = -math.inf
    smoothed: Mapping[str, Smoothed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """Everything that outlives a tick: rules by name, GPUs by key; times are monotonic."""

    at: float = -math.inf
    sampled_at: Mapping[str, float] = field(default_factory=dict)
    rules: Mapping[str, RuleState] = field(default_factory=dict)
    tracks: Mapping[str, windows.Track] = field(default_factory=dict)


def step(
    rules: tuple[Rule, ...], state: State, tick: Tick, interval_seconds: float
) -> tuple[State, tuple[RuleEvent, ...]]:
    """Take all rules and windows through one tick."""
    tick = _fresh(state, tick)
    clock = Clock(tick.at, tick.wall, interval_seconds)
    states: dict[str, RuleState] = {}
    events: list[RuleEvent] = []
    for rule in rules:
        before = state.rules.get(rule.alert, RuleState())
        states[rule.alert], changes = _step_rule(rule, before, tick, clock)
        if changes:
            events += _events(rule, changes, states[rule.alert].series)
    sampled_at = {
        gpu.key: max(gpu.at, _last(state, gpu)) for gpu in tick.gpus if gpu.at is not None
    }
    tracks = _tracks(state.tracks, tick, interval_seconds)
    return State(max(tick.at, state.at), sampled_at, states, tracks), tuple(events)


def retire(rule: Rule, state: RuleState) -> tuple[RuleEvent, ...]:
    """Return the events of a rule that is watched no more."""
    changes = [
        Change(EventKind.RESOLVED, series.fired, series.told, ABSENT)
        for series in state.series.values()
        if series.fired is not None
    ]
    return tuple(_events(rule, changes, {}))


def _fresh(state: State, tick: Tick) -> Tick:
    """Return the tick without samples that were there before."""
    if tick.at <= state.at:
        tick = replace(tick, node={})
    old = {gpu.key for gpu in tick.gpus if gpu.at is not None and gpu.at <= _last(state, gpu)}
    if not old:
        return tick
    gpus = (gpu.with_values({}) if gpu.key in old else gpu for gpu in tick.gpus)
    return replace(tick, gpus=tuple(gpus))


def _last(state: State, gpu: GpuTick) -> float:
    return state.sampled_at.get(gpu.key, -math.inf)


def _step_rule(
    rule: Rule, before: RuleState, tick: Tick, clock: Clock
) -> tuple[RuleState, list[Change]]:
    smoothed = before.smoothed
    if rule.smooth_seconds:
        smoothed, tick = smooth(rule, smoothed, tick)
    series: dict[str, Series] = {}
    changes: list[Change] = []
    seconds, until = before.condition_seconds, before.counted_until
    for reading in _with_gone(before.series, readings(rule, tick)):
        old, sample = before.series.get(reading.key), reading.sample
        if old is None and (sample is None or sample.level is not Level.HOLDS):
            continue
        done = advance(old, reading, rule, clock)
        if done.series is not None:
            series[reading.key] = done.series
        changes += done.changes
        if done.held is not None:
            since, now = done.held
            seconds += max(0.0, now - max(since, until))
            until = max(until, now)
    firings = before.firings + sum(change.kind is EventKind.FIRING for change in changes)
    return RuleState(series, firings, seconds, until, smoothed), changes


def _with_gone(series: Mapping[str, Series], here: Iterator[Reading]) -> Iterator[Reading]:
    """Yield all readings, and an empty one for each series that no longer gives any."""
    seen = set()
    for reading in here:
        seen.add(reading.key)
        yield reading
    for key in series:
        if key not in seen:
            yield Reading(key, "", (), None)


def _events(rule: Rule, changes: list[Change], series: Mapping[str, Series]) -> Iterator[RuleEvent]:
    """Yield one event per kind and scale group; its end only once nothing of the group fires."""
    firing = {one.fired.scale_group for one in series.values() if one.fired is not None}
    bundles: dict[tuple[EventKind, str], list[Change]] = {}
    for change in changes:
        group = change.fired.scale_group
        if change.kind is not EventKind.RESOLVED or group not in firing:
            bundles.setdefault((change.kind, group), []).append(change)
    for (kind, group), bundle in bundles.items():
        ends = {change.reason for change in bundle}
        yield RuleEvent(
            rule=rule.alert,
            kind=kind,
            reason=(CLEARED if CLEARED in ends else ABSENT)
            if kind is EventKind.RESOLVED
            else condition(rule),
            scale_group=group,
            started_at=min(change.fired.started_at for change in bundle),
            fired_at=min(change.fired.fired_at for change in bundle),
            series=tuple(summary for change in bundle for summary in change.series),
            actions=rule.actions,
        )


def condition(rule: Rule) -> str:
    """Return what a rule watches for, in words: `gpu_utilization_ratio >= 0.95 for 10s`."""
    metric = rule.metric
    if rule.smooth_seconds:
        metric = f"{as_duration(rule.smooth_seconds)} mean of {metric}"
    if rule.aggregate.quorum is not None:
        metric = f"{rule.aggregate.quorum} GPUs: {metric}"
    elif rule.aggregate.kind != "any":
        metric = f"{rule.aggregate.kind} GPUs: {metric}"
    text = f"{metric} {_limits(rule)}"
    if rule.and_ is not None:
        text += f" and {rule.and_.metric} {_limits(rule.and_)}"
    return f"{text} for {as_duration(rule.for_seconds)}" if rule.for_seconds else text


def ending(rule: Rule) -> str:
    """Return what a rule that fires waits for to end, in words: `< 0.85 for 30s`."""
    below = rule.above if rule.clear_below is None else rule.clear_below
    above = rule.below if rule.clear_above is None else rule.clear_above
    text = f"> {above:.15g}" if below is None else f"< {below:.15g}"
    seconds = rule.keep_firing_for_seconds
    return f"{text} for {as_duration(seconds)}" if seconds else text


def _limits(limits: Rule | Condition) -> str:
    if limits.above is not None:
        return f">= {limits.above:.15g}"
    return "" if limits.below is None else f"<= {limits.below:.15g}"


def _tracks(
    before: Mapping[str, windows.Track], tick: Tick, interval: float
) -> dict[str, windows.Track]:
    tracks = {}
    for gpu in tick.gpus:
        track = _track(before.get(gpu.key), gpu, interval)
        if track is not None:
            tracks[gpu.key] = track
    return tracks


def _track(track: windows.Track | None, gpu: GpuTick, interval: float) -> windows.Track | None:
    value = gpu.values.get(UTILIZATION)
    if gpu.at is not None and value is not None:
        return windows.add(track, gpu.at, value, interval)
    return track if track is None or gpu.is_healthy else windows.broken(track)
