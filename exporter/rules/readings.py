"""A tick as one rule sees it: for each of its series, whether the condition holds."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum

from exporter.config import Condition, Rule
from exporter.frozen import dataclass
from exporter.rules.samples import GpuTick, Tick, is_per_gpu
from exporter.rules.sustained import is_hole

NODE = "node"  # the key of the series of a rule that is not about GPUs
MIN_VALID_SHARE = 0.5  # of a scale group's GPUs, for the group to have a sample

Owner = tuple[str, str]


class Level(Enum):
    """Where a sample stands. BETWEEN is the band of hysteresis."""

    HOLDS = "holds"
    BETWEEN = "between"
    CLEAR = "clear"


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a series: its monotonic time, its level, and the values behind it by owner."""

    at: float
    level: Level
    values: tuple[tuple[Owner, float], ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one tick says of one series.

    Attributes:
        key: The series: a GPU, a scale group, or the node.
        group: The scale group that it belongs to.
        members: Keys of the GPUs without a fault that it is made of.
        sample: None where the tick has no valid one.
    """

    key: str
    group: str
    members: tuple[str, ...]
    sample: Sample | None


def readings(rule: Rule, tick: Tick) -> Iterator[Reading]:
    """Yield what a tick says of every series of a rule."""
    about_gpus = is_per_gpu(rule.metric) or (rule.and_ is not None and is_per_gpu(rule.and_.metric))
    if not about_gpus:
        yield Reading(NODE, tick.node_group, (NODE,), _single(rule, tick.node, ("", ""), tick.at))
    elif rule.aggregate.kind == "any":
        for gpu in tick.gpus:
            values = gpu.values if rule.and_ is None else {**tick.node, **gpu.values}
            sample = None if gpu.at is None else _single(rule, values, gpu.owner, gpu.at)
            yield Reading(gpu.key, gpu.group, (gpu.key,) if gpu.is_healthy else (), sample)
    else:
        groups: dict[str, list[GpuTick]] = {}
        for gpu in tick.gpus:
            groups.setdefault(gpu.group, []).append(gpu)
        for name, gpus in sorted(groups.items()):
            members = tuple(gpu.key for gpu in gpus if gpu.is_healthy)
            yield Reading(f"group {name}", name, members, _joint(rule, tick, gpus, len(members)))


def _single(rule: Rule, values: Mapping[str, float], owner: Owner, at: float) -> Sample | None:
    value = values.get(rule.metric)
    other = None if rule.and_ is None else values.get(rule.and_.metric)
    if value is None or (rule.and_ is not None and other is None):
        return None
    return Sample(at, _level(rule, value, other), ((owner, value),))


def _joint(rule: Rule, tick: Tick, gpus: list[GpuTick], healthy: int) -> Sample | None:
    """Return the sample of a scale group, by its GPUs that have one."""
    valid = []
    for gpu in gpus:
        values = gpu.values if rule.and_ is None else {**tick.node, **gpu.values}
        sample = None if gpu.at is None else _single(rule, values, gpu.owner, gpu.at)
        if sample is not None:
            other = None if rule.and_ is None else values[rule.and_.metric]
            valid.append((sample, values[rule.metric], other))
    if not valid or len(valid) < MIN_VALID_SHARE * len(gpus):
        return None
    if rule.aggregate.kind == "mean":
        others = [other for _, _, other in valid if other is not None]
        other = mean(others) if others else None
        level: Level | None = _level(rule, mean([value for _, value, _ in valid]), other)
    else:
        level = _count(rule, [sample.level for sample, _, _ in valid], healthy)
    if level is None:
        return None
    at = max(sample.at for sample, _, _ in valid)
    return Sample(at, level, tuple(pair for sample, _, _ in valid for pair in sample.values))


def _count(rule: Rule, levels: list[Level], healthy: int) -> Level | None:
    """Return the level of all, max or a quorum; None where GPUs without a sample would decide."""
    needed, unseen = len(levels), 0  # all, and max of a rule with `below`
    if rule.aggregate.kind == "max" and rule.above is not None:
        needed = 1
    elif rule.aggregate.quorum is not None:
        needed, unseen = rule.aggregate.quorum, healthy - len(levels)
    holding, clear = levels.count(Level.HOLDS), levels.count(Level.CLEAR)
    if holding >= needed:
        return Level.HOLDS
    if holding + unseen >= needed or needed > healthy:
        return None
    return Level.CLEAR if len(levels) + unseen - clear < needed else Level.BETWEEN


def _level(rule: Rule, value: float, other: float | None) -> Level:
    """Compare: `above` and `below` are met at the threshold too, `clear_*` only beyond it."""
    if rule.and_ is not None and (other is None or not _meets(rule.and_, other)):
        return Level.CLEAR
    if _meets(rule, value):
        return Level.HOLDS
    if rule.clear_below is None and rule.clear_above is None:
        return Level.CLEAR
    is_clear = (rule.clear_below is not None and value < rule.clear_below) or (
        rule.clear_above is not None and value > rule.clear_above
    )
    return Level.CLEAR if is_clear else Level.BETWEEN


def _meets(limits: Rule | Condition, value: float) -> bool:
    return (limits.above is None or value >= limits.above) and (
        limits.below is None or value <= limits.below
    )


@dataclass(frozen=True, slots=True)
class Smoothed:
    """The samples that a mean is taken of: monotonic times, and values."""

    times: tuple[float, ...] = ()
    values: tuple[float, ...] = ()

    def and_then(self, at: float, value: float, rule: Rule) -> Smoothed:
        """Return what remains of them at the next sample, and that."""
        first = bisect_right(self.times, at - rule.smooth_seconds)
        if self.times and is_hole(at - self.times[-1], rule.max_gap_seconds):
            first = len(self.times)
        return Smoothed((*self.times[first:], at), (*self.values[first:], value))


def smooth(
    rule: Rule, before: Mapping[str, Smoothed], tick: Tick
) -> tuple[dict[str, Smoothed], Tick]:
    """Return the samples behind the means, and the tick with the means in their place."""
    after: dict[str, Smoothed] = {}
    gpus = []
    for gpu in tick.gpus:
        value, old = gpu.values.get(rule.metric), before.get(gpu.key, Smoothed())
        if gpu.at is not None and value is not None:
            after[gpu.key] = old.and_then(gpu.at, value, rule)
            values = {**gpu.values, rule.metric: mean(after[gpu.key].values)}
            gpus.append(gpu.with_values(values))
        else:
            gpus.append(gpu)
            if gpu.is_healthy:
                after[gpu.key] = old
    node, value = tick.node, tick.node.get(rule.metric)
    if value is not None:
        after[NODE] = before.get(NODE, Smoothed()).and_then(tick.at, value, rule)
        node = {**node, rule.metric: mean(after[NODE].values)}
    return after, replace(tick, gpus=tuple(gpus), node=node)


def mean(values: Sequence[float]) -> float:
    """Return the mean, rounded so that three times 0.95 is not a little less than 0.95."""
    return round(math.fsum(values) / len(values), 12)
