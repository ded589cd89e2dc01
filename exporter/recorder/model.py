"""What a recording is made of, as it is read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from exporter.frozen import dataclass
from exporter.scaleout.model import EventKind, RuleEvent, SeriesSummary

FORMAT = "gpu-node-exporter flight recording"
VERSION = 1  # goes up only when a reader of the version before would misread

REQUESTED, WITHDRAWN = "requested", "withdrawn"  # kinds of a mark, beside those of EventKind


class RecordingError(Exception):
    """A recording that cannot be shown; the text says why, in one line."""


class Series(NamedTuple):
    """Name and labels of one series: what one column of a recording holds."""

    metric: str
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What a metric of the recording is: Prometheus type, base unit ("" if none), label names."""

    kind: str
    unit: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GpuName:
    """A GPU as series are labelled with it, and its product name ("" if unknown)."""

    gpu: str
    uuid: str
    name: str


@dataclass(frozen=True, slots=True)
class Header:
    """Where the recording was made. Comes again and again; columns are numbered anew after it."""

    node: str
    exporter: str
    driver: str
    simulated: bool
    interval_seconds: float
    gpus: tuple[GpuName, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """All series that were there at one instant.

    `at` is the wall clock in seconds since the epoch, which may jump; `elapsed_seconds` is the
    monotonic time since the first sample. `dropped` samples were lost until then.
    """

    number: int
    at: float
    elapsed_seconds: float
    dropped: int
    values: Mapping[Series, float]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened to a rule, or a request from outside, while recording.

    `kind` is a value of EventKind, REQUESTED or WITHDRAWN. Times as in RuleEvent and Sample.
    """

    kind: str
    rule: str
    reason: str
    scale_group: str
    started_at: float
    fired_at: float
    at: float
    elapsed_seconds: float = 0.0
    series: tuple[SeriesSummary, ...] = ()

    @property
    def begins(self) -> bool:
        """Whether this is a reason to record."""
        return self.kind in (EventKind.FIRING.value, REQUESTED)


@dataclass(frozen=True, slots=True)
class End:
    """The last frame of a complete recording, why it ended there, and how many samples it lacks."""

    why: str
    dropped: int


Item = Header | Sample | Mark | End


def mark_of(event: RuleEvent, at: float) -> Mark:
    """Return a rule's event as a mark, at this wall clock."""
    return Mark(
        kind=event.kind.value,
        rule=event.rule,
        reason=event.reason,
        scale_group=event.scale_group,
        started_at=event.started_at,
        fired_at=event.fired_at,
        at=at,
        series=event.series,
    )
