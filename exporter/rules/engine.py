"""Holds the rules' latest state for the daemon; all that decides is in `step`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from exporter.config import Rule, ScaleGroup
from exporter.rules import windows
from exporter.rules.samples import Tick, columns, grouping, take
from exporter.rules.series import Fired, Series, epoch
from exporter.rules.step import RuleState, State, condition, ending, retire, step
from exporter.rules_view import FIRING, INACTIVE, PENDING, RuleSeries, RuleStatus, RulesView
from exporter.scaleout.model import RuleEvent
from exporter.snapshot import Snapshot

Firing = Mapping[tuple[str, str], tuple[str, float, float]]
"""What fires, by rule and series: the values of Fired. Kept by the daemon across a restart."""


class Engine:
    """Takes every snapshot, in the poller's thread only. `view` is replaced whole, never changed.

    Attributes:
        view: What the page shows.
    """

    def __init__(
        self,
        rules: tuple[Rule, ...],
        groups: tuple[ScaleGroup, ...],
        labels: Mapping[str, str],
        fast_seconds: float,
        restored: Firing = MappingProxyType({}),
    ) -> None:
        """Take the rules and what fired when the daemon last stopped.

        Series that are restored fire on: they are told again after a fresh `for`, and end as all
        others do. Those of rules that there are no more are dropped.

        Args:
            rules: Their names differ.
            groups: Scale groups; a GPU of none belongs to that of the node.
            labels: The node's labels; `scale_group` names the node's scale group.
            fast_seconds: Time between two snapshots.
            restored: `firing` as it was then.

        Raises:
            KeyError: a rule names a metric that is not one of RULE_METRICS.
        """
        self._set(rules, groups, labels, fast_seconds)
        self._tick: Tick | None = None
        states = {}
        for rule in rules:
            series = {
                key: Series(fired=Fired(*fired))
                for (alert, key), fired in restored.items()
                if alert == rule.alert
            }
            states[rule.alert] = RuleState(series)
        self._state = State(rules=states)
        self.view = RulesView(self._statuses(None))

    @property
    def firing(self) -> dict[tuple[str, str], Fired]:
        """What fires now, by rule and series."""
        return {
            (alert, key): series.fired
            for alert, state in self._state.rules.items()
            for key, series in state.series.items()
            if series.fired is not None
        }

    @property
    def episodes(self) -> frozenset[tuple[str, str]]:
        """What fires now, by rule and scale group: the grain of events."""
        return frozenset((alert, fired.scale_group) for (alert, _), fired in self.firing.items())

    def observe(self, snapshot: Snapshot, wall: float) -> tuple[RuleEvent, ...]:
        """Take a snapshot, at `wall` seconds since the epoch; return what there is to tell."""
        tick = take(snapshot, wall, self._columns, self._groups)
        self._state, events = step(self._rules, self._state, tick, self._fast_seconds)
        self._tick = tick
        self.view = self._look(tick)
        return events

    def replace(
        self,
        rules: tuple[Rule, ...],
        groups: tuple[ScaleGroup, ...],
        labels: Mapping[str, str],
        fast_seconds: float,
    ) -> tuple[RuleEvent, ...]:
        """Take other rules after a reload; return the ends of those that fired and are no more.

        A rule that still watches for the same goes on where it was, also with other actions; one
        with the same name keeps its counters.

        Raises:
            KeyError: a rule names a metric that is not one of RULE_METRICS; nothing has changed.
        """
        old = {rule.alert: rule for rule in self._rules}
        self._set(rules, groups, labels, fast_seconds)
        kept = {rule.alert for rule in rules if _same(rule, old.get(rule.alert))}
        states = self._state.rules
        events = [
            event
            for alert, rule in old.items()
            if alert not in kept
            for event in retire(rule, states[alert])
        ]
        after = {}
        for rule in rules:
            state = states.get(rule.alert, RuleState())
            after[rule.alert] = (
                state if rule.alert in kept else replace(state, series={}, smoothed={})
            )
        self._state = replace(self._state, rules=after)
        self.view = replace(self.view, rules=self._statuses(self._tick))
        return tuple(events)

    def _set(
        self,
        rules: tuple[Rule, ...],
        groups: tuple[ScaleGroup, ...],
        labels: Mapping[str, str],
        fast_seconds: float,
    ) -> None:
        self._columns = columns(rules)
        self._groups = grouping(groups, labels)
        self._rules = rules
        self._words = {rule.alert: (condition(rule), ending(rule)) for rule in rules}
        self._fast_seconds = fast_seconds

    def _look(self, tick: Tick) -> RulesView:
        tracks = self._state.tracks
        seen = {
            gpu.index: windows.window(tracks[gpu.key], tick.at, self._fast_seconds)
            for gpu in tick.gpus
            if gpu.is_healthy and gpu.key in tracks
        }
        return RulesView(self._statuses(tick), seen)

    def _statuses(self, tick: Tick | None) -> tuple[RuleStatus, ...]:
        gpus = {} if tick is None else {gpu.key: gpu.index for gpu in tick.gpus}
        return tuple(
            _status(rule, self._words[rule.alert], self._state.rules[rule.alert], tick, gpus)
            for rule in self._rules
        )


def _same(rule: Rule, old: Rule | None) -> bool:
    return old is not None and replace(rule, actions=()) == replace(old, actions=())


def _status(
    rule: Rule,
    words: tuple[str, str],
    state: RuleState,
    tick: Tick | None,
    gpus: Mapping[str, int],
) -> RuleStatus:
    begins, ends = words
    series = tuple(_series(gpus.get(key), one, tick) for key, one in state.series.items())
    return RuleStatus(
        alert=rule.alert,
        condition=begins,
        ending=ends,
        metric=rule.metric,
        state=max((one.state for one in series), default=INACTIVE),
        firings=state.firings,
        condition_seconds=state.condition_seconds,
        threshold=rule.below if rule.above is None else rule.above,
        value=None if tick is None else _value(rule, tick),
        series=series,
    )


def _series(gpu: int | None, series: Series, tick: Tick | None) -> RuleSeries:
    if series.fired is not None:
        group, started_at, fired_at = series.fired
        return RuleSeries(gpu, group, FIRING, started_at, fired_at)
    # Whatever is pending has a run, and a tick that began it.
    began = epoch(series.run.at, tick) if series.run and tick else 0.0
    return RuleSeries(gpu, "", PENDING, began, None)


def _value(rule: Rule, tick: Tick) -> float | None:
    values = [gpu.values[rule.metric] for gpu in tick.gpus if rule.metric in gpu.values]
    if rule.metric in tick.node:
        values.append(tick.node[rule.metric])
    if not values:
        return None
    return min(values) if rule.above is None else max(values)
