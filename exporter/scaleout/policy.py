"""Whether an event becomes a request; if so, it is committed before anything else happens."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from exporter.config import Action
from exporter.frozen import dataclass
from exporter.scaleout import message, rows, verdict
from exporter.scaleout.audit import Audit
from exporter.scaleout.clock import Clock
from exporter.scaleout.decision import Decision, Setup, Verdict
from exporter.scaleout.model import EventKind, RuleEvent
from exporter.scaleout.outbox import Outbox, OutboxUnavailableError, Recorded
from exporter.scaleout.records import Change, Firing, Limits, Pause

NO_LABELS: Mapping[str, str] = MappingProxyType({})
FULL = "too many requests are pending"


@dataclass(frozen=True, slots=True)
class _Plan:
    case: verdict.Case
    verdict: Verdict
    group: Mapping[str, str]
    change: Change | None = None


class Policy:
    """Decides. The poller's thread and that of the web server may both ask.

    Cooldowns run on the clock since boot, in memory and on disk: neither a restart nor a jump of
    the wall clock shortens one, or prolongs it.

    Attributes:
        setup: What the config says; replaced at a reload.
        pause: What was ordered last, also if it is over.
    """

    def __init__(
        self,
        setup: Setup,
        outbox: Outbox,
        audit: Audit,
        wake: Callable[[Collection[str]], None],
        clock: Clock,
    ) -> None:
        """Take up the limits where the outbox has them; `wake` gets targets that have work."""
        self.setup = setup
        self.pause: Pause | None = None
        self._outbox = outbox
        self._audit = audit
        self._wake = wake
        self._clock = clock
        self._lock = threading.Lock()
        self._limits = Limits()
        self._written: Firing | None = None
        self._counts: Counter[tuple[str, str]] = Counter()
        self._repeats: dict[tuple[str, ...], tuple[str, int]] = {}  # result, how often since
        self.take_limits()

    def decide(
        self,
        event: RuleEvent,
        now: float,
        *,
        labels: Mapping[str, str] = NO_LABELS,
        sick: Collection[str] = (),
        firing: Firing | None = None,
        source: str = "rule",
    ) -> Decision:
        """Decide on every action of an event, and commit all that follows in one transaction.

        Args:
            event: What happened.
            now: Seconds since the epoch.
            labels: What the event says of itself beside the node's labels, for `group_by`.
            sick: UUIDs of GPUs that have a fault; an event of such GPUs alone never scales.
            firing: All that fires, to be written with it; None: as it was.
            source: Who tells of the event, for the audit.
        """
        with self._lock:
            all_labels = {**self.setup.labels, **labels}
            plans = [
                self._plan(self.setup.actions[name], event, now, all_labels, sick)
                for name in event.actions
                if name in self.setup.actions
            ]
            changes = [plan.change for plan in plans if plan.change is not None]
            recorded = None
            if changes or firing not in (None, self._written):
                recorded = self._outbox.record(changes, firing)
            if recorded is Recorded.NOWHERE:
                plans, changes = [_refused(plan) for plan in plans], []
            elif recorded is not None:
                self._written = firing
            for change in changes:
                self._apply(change)
            for plan in plans:
                self._tell(plan, recorded, source)
        self._wake([row.target for change in changes for row in change.rows])
        return Decision(tuple(plan.verdict for plan in plans), recorded)

    def enqueue(self, action: str, event: RuleEvent, labels: Mapping[str, str], source: str) -> str:
        """Decide on one action of what came from elsewhere; return the result.

        Raises:
            OutboxUnavailableError: A request is not on disk; who sent it must come again.
        """
        decision = self.decide(
            replace(event, actions=(action,)), self._clock.wall(), labels=labels, source=source
        )
        if decision.recorded in (Recorded.MEMORY, Recorded.NOWHERE):
            raise OutboxUnavailableError(self._outbox.problem or FULL)
        return decision.verdicts[0].result if decision.verdicts else "ignored"

    def take_limits(self) -> None:
        """Add the limits that are on disk to those that are known."""
        found = self._outbox.ask(rows.limits, Limits())
        with self._lock:
            known = self._limits.cooldown_until
            for key, until in found.cooldown_until.items():
                known[key] = max(until, known.get(key, until))
            for key, times in found.fired_at.items():
                merged = {*times, *self._limits.fired_at.get(key, ())}
                self._limits.fired_at[key] = sorted(merged)
            self._limits.announced.update(found.announced)

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how often each action had each result: since the start, and born at 0."""
        born = {(name, result): 0 for name in self.setup.actions for result in verdict.RESULTS}
        with self._lock:
            return {**born, **self._counts}

    def cooldowns(self) -> dict[str, float]:
        """Return each action's longest remaining cooldown in seconds; 0 without one."""
        now = self._clock.since_boot()
        remaining = dict.fromkeys(self.setup.actions, 0.0)
        with self._lock:
            for (action, _), until in self._limits.cooldown_until.items():
                if action in remaining:
                    remaining[action] = max(remaining[action], until - now)
        return remaining

    def _plan(
        self,
        action: Action,
        event: RuleEvent,
        now: float,
        labels: Mapping[str, str],
        sick: Collection[str],
    ) -> _Plan:
        group = message.group_of(action, event, labels, self.setup.node)
        targets = self.setup.targets.get(action.receiver or "", {})
        case = verdict.Case(
            action=action,
            event=event,
            group_key=json.dumps(list(group.values())),
            has_targets=bool(targets),
            is_sick=not verdict.is_any_healthy(event, sick),
            now=self._clock.since_boot(),
        )
        result, detail = verdict.judge(case, self._limits, self.pause)
        if result in verdict.SENT:
            event_id = message.event_id(now)
            request = message.request(
                case,
                message.Identity(event_id, message.dedupe_key(action, group, now), now),
                message.describe(event, action, labels, self.setup.node),
                targets,
                self._limits.announced.get((case.key, case.episode)),
            )
            return _Plan(case, Verdict(action.name, result, detail, event_id), group, request)
        change: Change | None = None
        if event.kind is EventKind.RESOLVED and (case.key, case.episode) in self._limits.announced:
            change = Change(*case.key, rows=(), withdrawn=case.episode)
        return _Plan(case, Verdict(action.name, result, detail), group, change)

    def _apply(self, change: Change) -> None:
        limits, key = self._limits, (change.action, change.group_key)
        if change.fired is not None:
            event_id, fired_at = change.fired
            limits.fired_at[key] = [*verdict.recent(limits, key, fired_at), fired_at]
            if change.announced is not None:
                limits.announced[key, change.announced] = event_id
        if change.cooldown_until is not None:
            limits.cooldown_until[key] = change.cooldown_until
        if change.withdrawn is not None:
            limits.announced.pop((key, change.withdrawn), None)

    def _tell(self, plan: _Plan, recorded: Recorded | None, source: str) -> None:
        """Count a verdict and audit it; a repeat that is held back as the last one only counts."""
        case, said = plan.case, plan.verdict
        self._counts[said.action, said.result] += 1
        thread = (*case.key, *case.episode)
        before, times = self._repeats.get(thread, ("", 0))
        if case.event.kind is EventKind.REPEAT and said.result == before not in verdict.SENT:
            self._repeats[thread] = before, times + 1
            return
        if len(self._repeats) >= verdict.MAX_GROUPS:
            self._repeats.clear()
        self._repeats[thread] = said.result, 0
        self._audit.write(
            "decision",
            result=said.result,
            detail=said.detail,
            action=said.action,
            group=plan.group,
            rule=message.short(case.event.rule),
            kind=case.event.kind.value,
            reason=case.event.reason[: message.MAX_REASON],
            event_id=said.event_id,
            stored=None if plan.change is None or recorded is None else recorded.value,
            unwritten_repeats=times,
            source=source,
        )


def _refused(plan: _Plan) -> _Plan:
    """Return a plan that there was no room for."""
    if plan.change is None:
        return plan
    return replace(plan, verdict=Verdict(plan.verdict.action, "outbox_full", FULL), change=None)
