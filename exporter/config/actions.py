"""Actions: what a rule that fires sets off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

from exporter.frozen import dataclass
from exporter.schema import Place, boolean, count, duration, identifier, key, label_name, size


@dataclass(frozen=True, slots=True)
class FlightRecorder:
    """A detailed recording of the node.

    Attributes:
        interval_seconds: Between two records; taken up to whole polls.
        duration_seconds: How long it goes on after the rule fired.
        max_bytes: What all recordings may take on disk; the oldest go.
        max_recordings: How many are kept; the oldest go.
        before_seconds: How much of the time before the rule fired is in it.
    """

    interval_seconds: float = field(
        default=1.0, metadata=key("interval", duration, at_least="50ms", at_most="1m")
    )
    duration_seconds: float = field(
        default=600.0, metadata=key("duration", duration, at_least="1s", at_most="1d")
    )
    max_bytes: int = field(
        default=256 << 20, metadata=key("max_bytes", size, at_least="1MiB", at_most="1TiB")
    )
    max_recordings: int = field(
        default=100, metadata=key("max_recordings", count, at_least="1", at_most="10000")
    )
    before_seconds: float = field(default=120.0, metadata=key("before", duration, at_most="10m"))


@dataclass(frozen=True, slots=True)
class Action:
    """A recording, or requests to a receiver; the fields from `group_by` on are the requests'.

    Attributes:
        name: What rules and routes call it.
        flight_recorder: The recording. Exactly one of it and `receiver` is given in a file.
        receiver: Name of the receiver.
        group_by: Labels; firings that agree in them share cooldown and limit.
        cooldown_seconds: Between two requests of a group.
        max_per_hour: Requests of a group within any hour.
        send_resolved: Whether the end of a firing is told too.
        dry_run: Whether requests are made up and logged, but not sent.
        step: By how many replicas a request asks to grow.
    """

    name: str = field(metadata=key("name", identifier))
    flight_recorder: FlightRecorder | None = None
    receiver: str | None = field(default=None, metadata=key("receiver", identifier))
    group_by: tuple[str, ...] = field(
        default=("cluster", "scale_group"), metadata=key("group_by", label_name)
    )
    cooldown_seconds: float = field(
        default=300.0, metadata=key("cooldown", duration, at_least="1s", at_most="7d")
    )
    max_per_hour: int = field(
        default=6, metadata=key("max_per_hour", count, at_least="1", at_most="3600")
    )
    send_resolved: bool = field(default=False, metadata=key("send_resolved", boolean))
    dry_run: bool = field(default=False, metadata=key("dry_run", boolean))
    step: int = field(default=1, metadata=key("step", count, at_least="1", at_most="1000"))

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield that it does nothing, or two things."""
        if self.flight_recorder is not None and self.receiver is not None:
            yield ("receiver",), "stands beside flight_recorder; write an action for each"
        if self.flight_recorder is None and self.receiver is None:
            yield (), "does nothing; add flight_recorder or receiver"


DEFAULT_ACTIONS = (
    Action("record", FlightRecorder()),
    Action("scale-out"),  # without a receiver nothing is sent
)
