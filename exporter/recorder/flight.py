"""The flight recorder: decides when to record. Everything here runs in the poller's thread.

It has no clock of its own: durations count on the monotonic clock of the snapshots.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from exporter.config import Config, FlightRecorder
from exporter.frozen import dataclass
from exporter.recorder.archive import Archive, Begin, Finish, Note, Survey, Take
from exporter.recorder.model import REQUESTED, WITHDRAWN, Mark, mark_of
from exporter.recorder.ring import Ring, Seen
from exporter.recorder.store import DIRECTORY, Bounds
from exporter.recorder.writer import Writer
from exporter.recorder_view import RecorderView
from exporter.scaleout.model import EventKind, RuleEvent
from exporter.snapshot import Snapshot

log = logging.getLogger(__name__)

REQUEST = "request"  # the label `reason` of a recording that no rule began
MOST_WAITING = 60  # samples that wait for the disk; the next ones are dropped
MOST_WAITING_AT_BEGIN = 5  # with more, the disk hangs: a ring more would only fill the memory
MOST_MARKS = 200  # of one recording
MOST_REQUESTS = 1000  # that wait for the next tick, or keep a recording open
LONGEST_NAME = 200
SURVEY_SECONDS = 60.0  # recordings may be removed by hand

Key = tuple[str, str]  # rule and scale group, or a request's name and REQUEST


@dataclass(frozen=True, slots=True)
class Settings:
    """What of the config concerns the recorder."""

    rules: tuple[str, ...]  # that may begin a recording
    actions: Mapping[str, FlightRecorder]
    tick_seconds: float

    @property
    def before_seconds(self) -> float:
        """How far back the ring goes: the longest of all actions."""
        return max((a.before_seconds for a in self.actions.values()), default=0.0)

    @property
    def bounds(self) -> Bounds:
        """What all recordings together may take: the most that any action allows."""
        actions = tuple(self.actions.values()) or (FlightRecorder(),)
        return Bounds(max(a.max_bytes for a in actions), max(a.max_recordings for a in actions))

    def every(self, interval_seconds: float) -> int:
        """Return how many ticks an interval takes, rounded up."""
        return max(math.ceil(interval_seconds / self.tick_seconds - 1e-9), 1)


@dataclasses.dataclass(slots=True)
class _Recording:
    """The one under way."""

    number: int
    open: set[Key]
    labels: set[str]  # each prolongs it once
    ends_at: float  # monotonic
    every: int  # ticks
    began: int  # tick
    marks: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class _Request:
    """Somebody outside wants a recording to begin or to end."""

    name: str
    action: str
    why: str
    begins: bool


def settings(config: Config) -> Settings:
    """Return what of the config concerns the recorder."""
    actions = {a.name: a.flight_recorder for a in config.actions if a.flight_recorder}
    return Settings(
        rules=tuple(
            rule.alert for rule in config.rules if not actions.keys().isdisjoint(rule.actions)
        ),
        actions=actions,
        tick_seconds=config.poll.fast_seconds,
    )


class Recorder:
    """Keeps the last minutes, and has recordings written around events."""

    def __init__(self, storage: Path, settings: Settings, node: str) -> None:
        """Record below `storage`; `node` is the host's name. Nothing is touched yet."""
        self._writer = Writer(Archive(storage / DIRECTORY, node))
        self._ring = Ring(settings.before_seconds)
        self._requests: deque[RuleEvent | _Request] = deque()
        self._latest: Seen | None = None
        self._recording: _Recording | None = None
        self._number = 0
        self._ticks = 0
        self._dropped = 0
        self._survey_at = -math.inf
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Go on with other settings; a recording under way ends as it would have."""
        self._settings = settings
        self._ring.resize(settings.before_seconds)
        self._ring_every = min(
            (settings.every(a.interval_seconds) for a in settings.actions.values()), default=1
        )
        self._survey_at = -math.inf

    def add(self, snapshot: Snapshot, wall: float) -> None:
        """Take what a tick has read, at this wall clock (seconds since the epoch)."""
        self._ticks += 1
        self._latest = seen = Seen(wall, snapshot)
        if self._ticks % self._ring_every == 0:
            self._ring.add(seen)
        if self._recording is not None:
            self._go_on(self._recording, seen)
        self._answer(seen)
        now = snapshot.taken_at
        if self._settings.actions and now >= self._survey_at and not self._writer.backlog:
            self._survey_at = now + SURVEY_SECONDS
            self._writer.put(Survey(self._settings.bounds))

    def on_event(self, event: RuleEvent) -> None:
        """Take what a rule tells: after `add` of the tick in which it happened."""
        self._requests.append(event)
        if self._latest is not None:
            self._answer(self._latest)

    def start(self, name: str, action: str = "", why: str = REQUESTED) -> None:
        """Have a recording begin at the next tick, or join the one under way.

        May be called from any thread, as `stop` may. However many ask, they prolong a recording
        only once.

        Args:
            name: What it is for, e.g. the name of an alert.
            action: The action of the config that says how to record; "": the first that does.
            why: In words, for the one who looks at it.
        """
        self._ask(_Request(name[:LONGEST_NAME], action, why[:LONGEST_NAME], begins=True))

    def stop(self, name: str) -> None:
        """Take `start(name)` back: the recording ends at the next tick unless others need it."""
        self._ask(_Request(name[:LONGEST_NAME], "", WITHDRAWN, begins=False))

    def view(self) -> RecorderView:
        """Return what the page shows."""
        status = self._writer.status
        known = dict.fromkeys((*self._settings.rules, REQUEST), 0)
        return RecorderView(
            active=self._recording is not None and status.ended < self._recording.number,
            recordings={**known, **status.begun},
            dropped=self._dropped,
            stored_bytes=status.stored_bytes,
            newest=status.newest,
        )

    def close(self, timeout_seconds: float = 2.0) -> None:
        """End the recording under way and see it on disk, if that takes no longer than this."""
        if self._recording is not None:
            self._finish(self._recording, "shutdown")
        self._writer.close(timeout_seconds)

    def _ask(self, request: _Request) -> None:
        if len(self._requests) < MOST_REQUESTS:
            self._requests.append(request)

    def _go_on(self, recording: _Recording, seen: Seen) -> None:
        if self._writer.status.ended >= recording.number:
            self._recording = None
            return
        if (self._ticks - recording.began) % recording.every == 0:
            if self._writer.backlog < MOST_WAITING:
                self._writer.put(Take(seen, recording.dropped))
            else:
                if not recording.dropped:
                    log.warning("the disk does not keep up: the recording lacks samples")
                recording.dropped += 1
                self._dropped += 1
        if seen.snapshot.taken_at >= recording.ends_at:
            self._finish(recording, "duration")

    def _answer(self, seen: Seen) -> None:
        while self._requests:
            request = self._requests.popleft()
            if isinstance(request, RuleEvent):
                self._on_event(request, seen)
            else:
                self._on_request(request, seen)

    def _on_event(self, event: RuleEvent, seen: Seen) -> None:
        key, mark = (event.rule, event.scale_group), mark_of(event, seen.at)
        if event.kind is EventKind.FIRING:
            actions = self._settings.actions
            hows = [actions[name] for name in event.actions if name in actions]
            if hows:
                self._begin(key, event.rule, hows, seen)
                self._note(mark, seen)
        elif event.kind is EventKind.RESOLVED:
            self._let_go(key, mark, seen)

    def _on_request(self, request: _Request, seen: Seen) -> None:
        key = (request.name, REQUEST)
        kind = REQUESTED if request.begins else WITHDRAWN
        mark = Mark(kind, request.name, request.why, "", seen.at, seen.at, seen.at)
        if request.begins:
            actions = self._settings.actions
            usual = next(iter(actions.values()), FlightRecorder())
            how = actions.get(request.action, usual)
            self._begin(key, REQUEST, [how], seen)
            self._note(mark, seen)
        else:
            self._let_go(key, mark, seen)

    def _begin(self, key: Key, label: str, hows: list[FlightRecorder], seen: Seen) -> None:
        """Begin a recording, or join the one under way and prolong it."""
        every = min(self._settings.every(how.interval_seconds) for how in hows)
        ends_at = seen.snapshot.taken_at + max(how.duration_seconds for how in hows)
        recording = self._recording
        if recording is not None and self._writer.status.ended < recording.number:
            if len(recording.open) < MOST_REQUESTS:
                recording.open.add(key)
            recording.every = min(recording.every, every)
            if label not in recording.labels:
                recording.labels.add(label)
                recording.ends_at = max(recording.ends_at, ends_at)
            return
        self._recording = None
        if self._writer.backlog > MOST_WAITING_AT_BEGIN:
            log.error("no recording for %s: the disk has not taken what came before", key[0])
            return
        self._number += 1
        self._recording = _Recording(
            self._number, {key}, {label}, ends_at, every, began=self._ticks
        )
        ring = self._ring.all()
        self._writer.put(
            Begin(
                number=self._number,
                name=key[0],
                label=label,
                at=seen.at,
                interval_seconds=every * self._settings.tick_seconds,
                ring=ring if ring and ring[-1] is seen else (*ring, seen),
                bounds=self._settings.bounds,
            )
        )

    def _note(self, mark: Mark, seen: Seen) -> None:
        recording = self._recording
        if recording is not None and recording.marks < MOST_MARKS:
            recording.marks += 1
            self._writer.put(Note(mark, seen.snapshot.taken_at))

    def _let_go(self, key: Key, mark: Mark, seen: Seen) -> None:
        recording = self._recording
        if recording is not None and key in recording.open:
            self._note(mark, seen)
            recording.open.discard(key)
            if not recording.open:
                self._finish(recording, mark.kind)

    def _finish(self, recording: _Recording, why: str) -> None:
        self._writer.put(Finish(why, recording.dropped))
        self._recording = None
