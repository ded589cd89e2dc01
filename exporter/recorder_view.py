"""What the page shows of the flight recorder."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.frozen import dataclass
from exporter.metric import Kind, Metric, MetricVec, Row


@dataclass(frozen=True, slots=True)
class Stored:
    """A recording on disk; its name begins with when and for what it was begun."""

    name: str
    size_bytes: int
    active: bool


@dataclass(frozen=True, slots=True)
class RecorderView:
    """The recorder at one instant.

    Attributes:
        active: Whether a recording is under way.
        recordings: Recordings begun since the start of the daemon, by the rule that began them.
        dropped: Samples that recordings lack because the disk did not keep up.
        stored_bytes: Size of all recordings; None while their directory has not been read.
        newest: Recordings on disk when that was last looked at, the newest first; some of many.
    """

    active: bool
    recordings: Mapping[str, int]
    dropped: int
    stored_bytes: int | None
    newest: tuple[Stored, ...] = ()


METRICS: tuple[Row[RecorderView], ...] = (
    Metric(
        "gpu_recorder_active",
        "1 while a flight recording is under way.",
        lambda r: int(r.active),
    ),
    MetricVec(
        "gpu_recorder_recordings_total",
        "Flight recordings begun, by the rule that began them, or request: asked for from outside.",
        ("reason",),
        lambda r: r.recordings,
        Kind.COUNTER,
    ),
    Metric(
        "gpu_recorder_dropped_total",
        "Samples that flight recordings lack because the disk did not keep up.",
        lambda r: r.dropped,
        Kind.COUNTER,
    ),
    Metric(
        "gpu_recorder_stored_bytes",
        "Size of all flight recordings on disk; absent while their directory cannot be read.",
        lambda r: r.stored_bytes,
    ),
)
