"""What limits a request: the rules that the policy goes by, without any state of their own."""

from __future__ import annotations

from collections.abc import Collection

from exporter.config import Action
from exporter.frozen import dataclass
from exporter.scaleout.model import EventKind, RuleEvent
from exporter.scaleout.records import Episode, Key, Limits, Pause
from exporter.schema import as_duration

HOUR_SECONDS = 3600.0
MAX_GROUPS = 10_000  # that have a cooldown at the same time
ABSENT = "absent"  # the reason of an end that means no more than that nothing is known

SENT = ("fired", "dry_run", "resolved")
RESULTS = (
    *SENT,
    "cooldown",
    "rate_limited",
    "paused",
    "no_receiver",
    "outbox_full",
    "ignored",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One action of an event, at `now` seconds since boot."""

    action: Action
    event: RuleEvent
    group_key: str
    has_targets: bool
    is_sick: bool
    now: float

    @property
    def key(self) -> Key:
        """What has the cooldown."""
        return self.action.name, self.group_key

    @property
    def episode(self) -> Episode:
        """What is resolved some day."""
        return self.event.rule, self.event.scale_group


def judge(case: Case, limits: Limits, pause: Pause | None) -> tuple[str, str]:
    """Return one of RESULTS, and why, in words."""
    if not case.has_targets:
        return "no_receiver", "the action has no receiver"
    if case.event.kind is EventKind.RESOLVED:
        why = _why_unsaid(case, limits)
    else:
        why = "every GPU of it has a fault, or had a critical XID" if case.is_sick else ""
    if why:
        return "ignored", why
    if pause is not None and pause.until > case.now:
        return "paused", f"for {_seconds(pause.until - case.now)} more: {pause.reason}"
    if case.event.kind is EventKind.RESOLVED:
        return "resolved", ""
    return _limited(case, limits) or ("dry_run" if case.action.dry_run else "fired", "")


def _why_unsaid(case: Case, limits: Limits) -> str:
    if not case.action.send_resolved:
        return "send_resolved is off"
    if case.event.reason == ABSENT:
        return "its readings ended, which says nothing of the load"
    if (case.key, case.episode) not in limits.announced:
        return "nothing was sent of its beginning"
    return ""


def _limited(case: Case, limits: Limits) -> tuple[str, str] | None:
    key, action = case.key, case.action
    if key in limits.cooldown_until:
        # A cooldown that is shortened by a reload counts at once.
        until = min(limits.cooldown_until[key], case.now + action.cooldown_seconds)
        limits.cooldown_until[key] = until
        if until > case.now:
            return "cooldown", f"for {_seconds(until - case.now)} more"
    elif len(limits.cooldown_until) >= MAX_GROUPS and not _forget(limits, case.now):
        return "rate_limited", f"{MAX_GROUPS} groups have a cooldown; group_by makes too many"
    times = recent(limits, key, case.now)
    if len(times) >= action.max_per_hour:
        wait = min(times) + HOUR_SECONDS - case.now
        return "rate_limited", f"{len(times)} in the last hour; for {_seconds(wait)} more"
    return None


def recent(limits: Limits, key: Key, now: float) -> list[float]:
    """Return when requests of a group were fired in the last hour."""
    return [at for at in limits.fired_at.get(key, ()) if at > now - HOUR_SECONDS]


def _forget(limits: Limits, now: float) -> bool:
    """Drop what no longer limits anything; return whether there was some."""
    over = [key for key, until in limits.cooldown_until.items() if until <= now]
    for key in over:
        del limits.cooldown_until[key]
    for key in list(limits.fired_at):
        if not recent(limits, key, now):
            del limits.fired_at[key]
    return bool(over)


def is_any_healthy(event: RuleEvent, sick: Collection[str]) -> bool:
    """Return whether an event is about a GPU that has no fault, or about none in particular."""
    return not event.series or any(series.uuid not in sick for series in event.series)


def _seconds(seconds: float) -> str:
    return as_duration(float(round(seconds)) or 1.0)
