"""What the page shows of requests to scale out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from exporter.frozen import dataclass
from exporter.metric import Kind, Metric, MetricVec, Row


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A line of the audit, as far as it is shown; "" for what it does not say.

    Attributes:
        at: Seconds since the epoch.
        what: decision, attempt, end, paused or resumed.
        result: What was decided, or how the attempt or the request ended.
        action: Of a decision.
        rule: Of a decision: the rule or alert that asked.
        kind: Of a decision: firing, repeat or resolved.
        target: Of an attempt or end: receiver, kind and position.
        event_id: The request's.
        detail: Why, in words.
    """

    at: float
    what: str
    result: str = ""
    action: str = ""
    rule: str = ""
    kind: str = ""
    target: str = ""
    event_id: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ScaleoutView:
    """All of it at one instant; counts are since the start.

    Attributes:
        events: By action and result.
        deliveries: By receiver and result, attempts and ends without one.
        outbox: Requests by state; empty without an outbox.
        durable: Whether requests survive the exporter's end; None if nothing is ever sent.
        cooldown_remaining_seconds: By action, the longest of its groups; 0 without a cooldown.
        paused: Whether nothing new is sent now.
        last_delivery_timestamp_seconds: By receiver, since the epoch.
        newest: The newest lines of the audit, newest first.
    """

    events: Mapping[tuple[str, str], int] = field(default_factory=dict)
    deliveries: Mapping[tuple[str, str], int] = field(default_factory=dict)
    outbox: Mapping[str, int] = field(default_factory=dict)
    durable: bool | None = None
    cooldown_remaining_seconds: Mapping[str, float] = field(default_factory=dict)
    paused: bool = False
    last_delivery_timestamp_seconds: Mapping[str, float] = field(default_factory=dict)
    newest: tuple[AuditEntry, ...] = ()


METRICS: tuple[Row[ScaleoutView], ...] = (
    MetricVec(
        "scaleout_events_total",
        "Events that an action was asked for, by what was decided.",
        ("action", "result"),
        lambda v: v.events,
        Kind.COUNTER,
    ),
    MetricVec(
        "scaleout_deliveries_total",
        "Attempts to deliver a request, by how they ended; expired: given up without another.",
        ("receiver", "result"),
        lambda v: v.deliveries,
        Kind.COUNTER,
    ),
    MetricVec(
        "scaleout_outbox_events",
        "Requests in the outbox. Those that have ended are kept for a day, dead ones for a week.",
        ("state",),
        lambda v: v.outbox,
    ),
    Metric(
        "scaleout_outbox_durable",
        "1 while every request is on disk; 0 while some would be lost if the exporter ended.",
        lambda v: None if v.durable is None else int(v.durable),
    ),
    MetricVec(
        "scaleout_cooldown_remaining_seconds",
        "Time until the action may fire again, the longest of its groups.",
        ("action",),
        lambda v: v.cooldown_remaining_seconds,
    ),
    Metric(
        "scaleout_paused",
        "1 while requests are held back by `scale-out pause` or by the file `pause`.",
        lambda v: int(v.paused),
    ),
    MetricVec(
        "scaleout_last_delivery_timestamp_seconds",
        "When the receiver last took a request, in seconds since the epoch.",
        ("receiver",),
        lambda v: v.last_delivery_timestamp_seconds,
    ),
)
