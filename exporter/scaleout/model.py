"""What passes between rules, policy, outbox and receivers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Protocol

from exporter.frozen import dataclass


class EventKind(Enum):
    """What a rule tells of itself."""

    FIRING = "firing"
    REPEAT = "repeat"  # still true for a fresh `for` after the cooldown
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class SeriesSummary:
    """One GPU's samples over the time that made the rule fire."""

    gpu: str
    uuid: str
    value: float
    minimum: float
    mean: float
    samples: int
    expected: int


@dataclass(frozen=True, slots=True)
class RuleEvent:
    """A rule fired, fires on, or ended. Times are seconds since the epoch."""

    rule: str
    kind: EventKind
    reason: str  # e.g. "gpu_utilization_ratio >= 0.95 for 10s"; of RESOLVED: "cleared" or "absent"
    scale_group: str
    started_at: float
    fired_at: float
    series: tuple[SeriesSummary, ...]
    actions: tuple[str, ...]


class Outcome(Enum):
    """How an attempt, or a request as a whole, ended: the label `result`."""

    DELIVERED = "delivered"
    DEDUPLICATED = "deduplicated"  # somebody else has done it already
    SUPPRESSED = "suppressed"  # the target is at its limit
    DRY_RUN = "dry_run"
    RETRY = "retry"
    DEAD = "dead"  # never again
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt went."""

    outcome: Outcome
    status: int | None = None  # of HTTP, where there was an answer
    error: str = ""  # one line for people; never a secret
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request on its way to one receiver.

    `event` is the JSON object that generic webhooks get as `data`. `plan` is what an adapter that
    computes a target has decided at its first attempt; `remember_plan` commits it.
    """

    event_id: str
    dedupe_key: str
    kind: str  # "scale_out.requested" or "scale_out.resolved"
    event: Mapping[str, Any]
    created: float
    deadline: float
    attempt: int  # from 1
    plan: str | None
    remember_plan: Callable[[str], None]


class Receiver(Protocol):
    """Where requests go. `deliver` blocks, in a thread of its own, never past its timeout + 1 s."""

    target: str  # "<receiver>/<webhook|alertmanager|kubernetes>/<position>", in logs and rows

    def deliver(self, delivery: Delivery) -> Attempt:
        """Try once. Must not raise for anything that the other side does."""
