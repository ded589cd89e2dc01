"""What is kept of requests, and of what limits them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from exporter.frozen import dataclass

PENDING = "pending"
STATES = (
    PENDING,
    "delivered",
    "deduplicated",
    "suppressed",
    "dry_run",
    "superseded",
    "dead",
    "expired",
)

RESOLVED = "scale_out.resolved"
REQUESTED = "scale_out.requested"


@dataclass(frozen=True, slots=True)
class Row:
    """A request to one target. `event_id` and `target` name it.

    `created` is in seconds since the epoch, other times in seconds since boot.
    """

    event_id: str
    target: str
    kind: str
    action: str
    group_key: str
    dedupe_key: str
    body: bytes
    created: float
    deadline: float
    next_at: float
    plan: str | None = None
    attempts: int = 0
    state: str = PENDING
    last_status: int | None = None
    last_error: str = ""
    done_at: float | None = None


Key = tuple[str, str]
"""Action and group: what has a cooldown."""

Episode = tuple[str, str]
"""Rule and scale group: what fires and is resolved."""

Firing = Mapping[tuple[str, str], tuple[str, float, float]]
"""By rule and series: scale group, when the condition began, when it fired (since the epoch)."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one decision to send, or to take back, writes. Of one action and group.

    Attributes:
        rows: Requests to send.
        fired: The id of the request, and when it was decided; None for RESOLVED.
        cooldown_until: When the next one may follow; None for RESOLVED.
        announced: What `fired` was sent for, and is to be resolved some day.
        withdrawn: What ends here.
    """

    action: str
    group_key: str
    rows: tuple[Row, ...]
    fired: tuple[str, float] | None = None
    cooldown_until: float | None = None
    announced: Episode | None = None
    withdrawn: Episode | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """While it lasts, nothing new is sent."""

    reason: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What limits further requests."""

    cooldown_until: dict[Key, float] = field(default_factory=dict)
    fired_at: dict[Key, list[float]] = field(default_factory=dict)
    announced: dict[tuple[Key, Episode], str] = field(default_factory=dict)  # to the event's id
