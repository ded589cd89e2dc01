"""What the page shows of the rules, and of sustained load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from exporter.frozen import dataclass
from exporter.metric import Kind, Metric, MetricVec, Row

WINDOW = "10s"  # the label `window`


@dataclass(frozen=True, slots=True)
class Window:
    """One GPU's sustained load.

    Attributes:
        minimum_ratio: Lowest gpu_utilization_ratio of the last 10 s; None until these are
            covered without a hole.
        peak_minimum_ratio: Highest `minimum_ratio` of the last 60 s.
        coverage_ratio: Valid samples over expected ones in the last 60 s, 0 to 1.
    """

    minimum_ratio: float | None
    peak_minimum_ratio: float | None
    coverage_ratio: float


INACTIVE, PENDING, FIRING = 0, 1, 2


@dataclass(frozen=True, slots=True)
class RuleSeries:
    """What a rule is pending or firing for.

    Attributes:
        gpu: NVML index; None for a scale group or the node.
        scale_group: Its scale group, "" for none.
        state: PENDING or FIRING.
        since: When its condition began to hold, in seconds since the epoch.
        fired_at: When it began to fire, likewise; None while pending.
    """

    gpu: int | None
    scale_group: str
    state: int
    since: float
    fired_at: float | None


@dataclass(frozen=True, slots=True)
class RuleStatus:
    """One rule: what it is doing, and what it has counted since the exporter started.

    Attributes:
        alert: The rule's name.
        condition: What it watches for, in words.
        metric: The metric that it compares.
        state: INACTIVE, PENDING or FIRING: the highest over its series.
        firings: How often a series of it has begun to fire.
        condition_seconds: Time for which the condition held in any series.
        threshold: What its metric is compared with.
        value: The metric now: of all GPUs the one nearest to firing. None without a sample.
        series: What it is pending or firing for.
        ending: What ends it while it fires, in words.
    """

    alert: str
    condition: str
    metric: str
    state: int
    firings: int
    condition_seconds: float
    threshold: float | None
    value: float | None = None
    series: tuple[RuleSeries, ...] = ()
    ending: str = ""


@dataclass(frozen=True, slots=True)
class RulesView:
    """All rules, and the windows of the GPUs that give readings, by NVML index."""

    rules: tuple[RuleStatus, ...] = ()
    windows: Mapping[int, Window] = field(default_factory=dict)


METRICS: tuple[Row[RulesView], ...] = (
    MetricVec(
        "gpu_rule_state",
        "0 inactive, 1 pending (the condition holds, not yet long enough), 2 firing.",
        ("rule",),
        lambda v: {rule.alert: rule.state for rule in v.rules},
    ),
    MetricVec(
        "gpu_rule_firings_total",
        "How often the rule has begun to fire, each GPU or scale group counted for itself.",
        ("rule",),
        lambda v: {rule.alert: rule.firings for rule in v.rules},
        Kind.COUNTER,
    ),
    MetricVec(
        "gpu_rule_condition_seconds_total",
        "Time for which the rule's condition held on any GPU, measured from sample to sample.",
        ("rule",),
        lambda v: {rule.alert: rule.condition_seconds for rule in v.rules},
        Kind.COUNTER,
    ),
    MetricVec(
        "gpu_rule_threshold",
        "The threshold that the rule's metric is compared with, in that metric's unit.",
        ("rule",),
        lambda v: {rule.alert: rule.threshold for rule in v.rules},
    ),
)

WINDOW_METRICS: tuple[Row[Window], ...] = (
    MetricVec(
        "gpu_utilization_window_min_ratio",
        "Lowest gpu_utilization_ratio of the last 10 s, once these were sampled without a hole.",
        ("window",),
        lambda w: {WINDOW: w.minimum_ratio},
    ),
    MetricVec(
        "gpu_utilization_window_min_peak_ratio",
        "Highest gpu_utilization_window_min_ratio of the last 60 s: no scrape interval up to that"
        " misses a sustained load.",
        ("window",),
        lambda w: {WINDOW: w.peak_minimum_ratio},
    ),
    Metric(
        "gpu_sampler_coverage_ratio",
        "Valid samples of gpu_utilization_ratio over expected ones in the last 60 s, 0 to 1.",
        lambda w: w.coverage_ratio,
    ),
)
