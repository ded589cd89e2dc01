"""The way in for Alertmanager: its webhook drives the same actions as our own rules."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from exporter.config import Action, Config
from exporter.httpd import Request, Response, Route
from exporter.recorder.flight import Recorder
from exporter.scaleout.clock import Clock
from exporter.scaleout.model import EventKind, RuleEvent
from exporter.scaleout.service import Scaleout
from exporter.web import FOR_WHOM, may_act

if TYPE_CHECKING:
    from exporter.scaleout.intake import Intake  # with SQLite: only a receiver needs it

log = logging.getLogger(__name__)


class Doors:
    """Holds the receiver of the present config. Runs in the event loop's thread alone."""

    def __init__(self, recorder: Recorder, scaleout: Scaleout, clock: Clock) -> None:
        self._recorder = recorder
        self._scaleout = scaleout
        self._clock = clock
        self._path: str | None = None
        self._intake: Intake | None = None
        self._has_own_guard = False
        self._actions: Mapping[str, Action] = {}

    def open(self, config: Config) -> list[Route]:
        """Return the receiver's route, if the config has one."""
        receiver = config.alertmanager_receiver
        if receiver is None:
            return []
        from exporter.scaleout.payload import MAX_BODY_BYTES  # noqa: PLC0415  only a receiver needs it

        self._path = receiver.path
        self.reload(config)
        return [
            Route(
                receiver.path, ("POST",), self._handle, MAX_BODY_BYTES, lambda: self._has_own_guard
            )
        ]

    def reload(self, config: Config) -> None:
        """Take another config; a receiver that comes, or moves, needs a new process."""
        receiver = config.alertmanager_receiver
        if receiver is None:
            self._intake = None
            self._has_own_guard = False
            return
        if receiver.path != self._path:
            log.warning("alertmanager_receiver at %s: takes effect at a restart", receiver.path)
            return
        from exporter.scaleout.intake import Intake  # noqa: PLC0415  see above

        self._actions = {action.name: action for action in config.actions}
        self._has_own_guard = receiver.authorization is not None
        self._intake = Intake(receiver, self._actions, self._take, self._clock)

    def _handle(self, request: Request) -> Response:
        if self._intake is None:
            return Response(HTTPStatus.NOT_FOUND, b"the receiver is not configured any more\n")
        if not (self._has_own_guard or may_act(request)):
            text = f"without authorization, the receiver is {FOR_WHOM}\n"
            return Response(HTTPStatus.FORBIDDEN, text.encode())
        return self._intake.handle(request)

    def _take(self, action: str, event: RuleEvent, labels: Mapping[str, str], source: str) -> str:
        if self._actions[action].flight_recorder is None:
            return self._scaleout.enqueue(action, event, labels, source)
        if event.kind is EventKind.RESOLVED:
            self._recorder.stop(event.rule)
        else:
            self._recorder.start(event.rule, action, event.reason)
        return "queued"
