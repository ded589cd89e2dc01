"""Rules: what is watched on the node, in the words of a Prometheus alerting rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

from exporter.frozen import dataclass
from exporter.schema import Place, count, duration, identifier, key, number

KINDS = ("any", "all", "mean", "max")


def aggregate(text: str) -> Aggregate:
    """Read any, all, mean or max."""
    if text in KINDS:
        return Aggregate(text)
    raise ValueError("is not known here; write any, all, mean, max or {quorum: 4}")


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Whether each GPU has the rule for itself, or the GPUs of a scale group share it.

    Attributes:
        kind: any (each GPU for itself), all, mean, max, or quorum.
        quorum: Of kind quorum: how many GPUs must meet the condition at once.
    """

    kind: str = field(default="quorum", metadata=key(""))
    quorum: int | None = field(default=None, metadata=key("quorum", count, at_least="1"))

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield that nothing is said."""
        if self.quorum is None:
            yield (), "says nothing; write any, all, mean, max or {quorum: 4}"


@dataclass(frozen=True, slots=True)
class Condition:
    """A second condition that must hold too, of the same GPU. Bounds as in a rule."""

    metric: str = field(metadata=key("metric", str, among="metrics"))
    above: float | None = field(default=None, metadata=key("above", number))
    below: float | None = field(default=None, metadata=key("below", number))

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield what is wrong with the threshold."""
        yield from _threshold(self.above, self.below)
        yield from _ratios(self.metric, {"above": self.above, "below": self.below})


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on one metric of each GPU, and what happens when it lasts.

    Attributes:
        alert: The rule's name: in labels, in recordings, and as an alert.
        metric: A gauge of the catalogue with one value a GPU.
        above: It holds at this value and over it. Exactly one of `above` and `below` is given.
        below: It holds at this value and under it.
        for_seconds: How long it must hold without a break; 0 for a single sample.
        clear_below: Ends once under this; None for `above`.
        clear_above: Ends once over this; None for `below`.
        keep_firing_for_seconds: How long it must be cleared before it ends.
        max_gap_seconds: A longer hole in the samples starts `for_seconds` anew.
        min_coverage: Share of the expected samples, 0 to 1, that there must be.
        smooth_seconds: Over how long samples are averaged before they are compared; 0: not.
        aggregate: Whether GPUs are judged one by one or together.
        and_: What else must hold.
        actions: Names of what it sets off.
    """

    alert: str = field(metadata=key("alert", identifier))
    metric: str = field(metadata=key("metric", str, among="metrics"))
    above: float | None = field(default=None, metadata=key("above", number))
    below: float | None = field(default=None, metadata=key("below", number))
    for_seconds: float = field(default=0.0, metadata=key("for", duration, at_most="1d"))
    clear_below: float | None = field(default=None, metadata=key("clear_below", number))
    clear_above: float | None = field(default=None, metadata=key("clear_above", number))
    keep_firing_for_seconds: float = field(
        default=0.0, metadata=key("keep_firing_for", duration, at_most="1d")
    )
    max_gap_seconds: float = field(default=3.0, metadata=key("max_gap", duration, at_most="10m"))
    min_coverage: float = field(
        default=0.9, metadata=key("min_coverage", number, at_least="0", at_most="1")
    )
    smooth_seconds: float = field(default=0.0, metadata=key("smooth", duration, at_most="10m"))
    aggregate: Aggregate = field(default=Aggregate("any"), metadata=key("aggregate", aggregate))
    and_: Condition | None = field(default=None, metadata=key("and"))
    actions: tuple[str, ...] = field(default=(), metadata=key("actions", identifier))

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield what is wrong with the thresholds."""
        yield from _threshold(self.above, self.below)
        yield from _ratios(
            self.metric,
            {
                "above": self.above,
                "below": self.below,
                "clear_below": self.clear_below,
                "clear_above": self.clear_above,
            },
        )
        if self.clear_below is not None:
            if self.above is None:
                yield ("clear_below",), "goes with above; write clear_above"
            elif self.clear_below > self.above:
                yield ("clear_below",), f"is more than above; write {self.above:.15g} or less"
        if self.clear_above is not None:
            if self.below is None:
                yield ("clear_above",), "goes with below; write clear_below"
            elif self.clear_above < self.below:
                yield ("clear_above",), f"is less than below; write {self.below:.15g} or more"


def _threshold(above: float | None, below: float | None) -> Iterator[tuple[Place, str]]:
    if above is not None and below is not None:
        yield ("below",), "stands beside above; keep one of them"
    if above is None and below is None:
        yield (), "has no threshold; add above or below"


def _ratios(metric: str, bounds: dict[str, float | None]) -> Iterator[tuple[Place, str]]:
    for place, bound in bounds.items():
        if metric.endswith("_ratio") and bound is not None and not 0 <= bound <= 1:
            yield (place,), f"is no ratio, as {metric} is; write a number of 0 to 1"


DEFAULT_RULES = (
    Rule(
        "GpuMemoryHigh",
        "gpu_memory_used_ratio",
        above=0.80,
        clear_below=0.75,
        actions=("record",),
    ),
    Rule(
        "GpuSustainedLoad",
        "gpu_utilization_ratio",
        above=0.95,
        for_seconds=10.0,
        clear_below=0.85,
        keep_firing_for_seconds=30.0,
        actions=("record", "scale-out"),
    ),
)
