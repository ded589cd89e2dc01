"""Carries out what the recorder wants on disk; a fault ends the recording, never more."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.facts import facts
from exporter.frozen import dataclass
from exporter.recorder import store
from exporter.recorder.model import Mark
from exporter.recorder.ring import Seen
from exporter.recorder.store import Bounds
from exporter.recorder_view import Stored

if TYPE_CHECKING:
    from exporter.recorder.tape import Tape  # with all that writes: only a recording needs it

log = logging.getLogger(__name__)

BREATH_SECONDS = 0.001  # after each sample: the poll must not wait for us to let go of Python
RESERVE_BYTES = 1 << 15  # for the end of the recording under way, and its summary
FULL = "max_bytes"
SHOWN = 8  # recordings of which the status page tells


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin recording `number`, first with what the ring holds."""

    number: int
    name: str  # of the rule or request: part of the directory's name
    label: str  # what it is counted under
    at: float
    interval_seconds: float
    ring: tuple[Seen, ...]
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Take:
    """Add a sample; so many were dropped until now."""

    seen: Seen
    dropped: int


@dataclass(frozen=True, slots=True)
class Note:
    """Add a mark that belongs to a monotonic time."""

    mark: Mark
    taken_at: float


@dataclass(frozen=True, slots=True)
class Finish:
    """End the recording."""

    why: str
    dropped: int


@dataclass(frozen=True, slots=True)
class Survey:
    """See what is stored, and keep it within bounds."""

    bounds: Bounds


Command = Begin | Take | Note | Finish | Survey


@dataclass(frozen=True, slots=True)
class Status:
    """What has been done on disk.

    Attributes:
        begun: Recordings begun, by reason.
        ended: Number of the last recording that is closed, by command or by a fault.
        stored_bytes: Size of all recordings; None while that cannot be told.
        newest: The newest of them, newest first.
    """

    begun: Mapping[str, int] = field(default_factory=dict)
    ended: int = 0
    stored_bytes: int | None = None
    newest: tuple[Stored, ...] = ()


class Archive:
    """The directory of recordings, as one daemon writes it. Used from one thread.

    Attributes:
        status: What has been done; replaced whole, so that any thread may look at it.
    """

    def __init__(self, directory: Path, node: str) -> None:
        """Write below this directory; `node` is the host's name."""
        self.status = Status()
        self._directory = directory
        self._node = node
        self._bounds = Bounds(0, 0)
        self._number = 0
        self._name = ""
        self._tape: Tape | None = None
        self._others_bytes = 0  # all recordings but the one under way
        self._problem = ""  # with the directory, while no recording is under way

    def do(self, command: Command) -> None:
        """Carry out one command. What goes wrong is logged, once, and ends the recording."""
        try:
            if isinstance(command, Begin):
                self._begin(command)
            elif isinstance(command, Survey):
                self._bounds = command.bounds
                self._survey()
            elif self._tape is not None:
                self._go_on(self._tape, command)
        except OSError as error:
            self.fail(error.strerror or str(error))

    def fail(self, problem: str) -> None:
        """Give up the recording under way; what is on disk stays."""
        if self.status.ended != self._number:
            log.error(
                "recording %s stopped: %s", self._name, problem, extra=facts(recording=self._name)
            )
            self._close()
        elif problem != self._problem:
            log.error("cannot look after the recordings in %s: %s", self._directory, problem)
            self._problem = problem
        self.status = replace(self.status, stored_bytes=None)

    def _begin(self, command: Begin) -> None:
        from exporter.recorder.encode import Encoder  # noqa: PLC0415  see above
        from exporter.recorder.tape import Tape  # noqa: PLC0415

        self._number, self._bounds = command.number, command.bounds
        self._name = f"for {command.name} in {self._directory}"
        most, room = command.bounds.max_recordings - 1, command.bounds.max_bytes - RESERVE_BYTES
        others = store.make_room(self._directory, Bounds(room, most))
        self._others_bytes = store.size_of(others)
        recording = store.create(self._directory, command.at, command.name)
        self._tape = Tape(recording, Encoder(self._node, command.interval_seconds))
        self._name = recording.name
        begun = {**self.status.begun}
        begun[command.label] = begun.get(command.label, 0) + 1
        newest = _newest([*others, Stored(self._name, 0, active=True)])
        self.status = replace(self.status, begun=begun, newest=newest)
        log.info("recording %s began", self._name, extra=facts(recording=self._name))
        for seen in command.ring:
            self._add(seen, 0)

    def _go_on(self, tape: Tape, command: Take | Note | Finish) -> None:
        if isinstance(command, Take):
            self._add(command.seen, command.dropped)
        elif isinstance(command, Note):
            tape.mark(command.mark, command.taken_at)
        else:
            self._finish(tape, command.why, command.dropped)

    def _add(self, seen: Seen, dropped: int) -> None:
        tape = self._tape
        if tape is None:  # full, while the ring was being written
            return
        tape.add(seen, dropped)
        self.status = replace(self.status, stored_bytes=self._others_bytes + tape.size_bytes)
        if self._is_full(tape):
            self._survey()
            if self._is_full(tape):
                self._finish(tape, FULL, dropped)
        time.sleep(BREATH_SECONDS)

    def _is_full(self, tape: Tape) -> bool:
        size = self._others_bytes + tape.size_bytes
        return size > self._bounds.max_bytes - RESERVE_BYTES

    def _finish(self, tape: Tape, why: str, dropped: int) -> None:
        tape.finish(why, dropped)
        log.info("recording %s ended: %s", self._name, why, extra=facts(recording=self._name))
        self._close()
        self._survey()

    def _close(self) -> None:
        if self._tape is not None:
            self._tape.close()
            self._tape = None
        self.status = replace(self.status, ended=self._number)

    def _survey(self) -> None:
        tape_bytes, bounds = 0, self._bounds
        if self._tape is not None:
            tape_bytes = self._tape.size_bytes
            bounds = replace(bounds, max_bytes=bounds.max_bytes - RESERVE_BYTES)
        left = store.make_room(self._directory, bounds, keep=self._name)
        size = store.size_of(left)
        self._others_bytes = size - tape_bytes
        self.status = replace(self.status, stored_bytes=size, newest=_newest(left))
        self._problem = ""


def _newest(recordings: list[Stored]) -> tuple[Stored, ...]:
    return tuple(reversed(recordings[-SHOWN:]))
