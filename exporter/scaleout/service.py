"""Scale-out as the daemon holds it.

SQLite, and all that needs it (2 MiB), is loaded once there is a receiver, a file, or an event.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from exporter.config import Config
from exporter.scaleout.clock import Clock
from exporter.scaleout.model import RuleEvent
from exporter.scaleout.receivers import Place, Target, Watcher, targets
from exporter.scaleout.records import Firing
from exporter.scaleout.verdict import RESULTS
from exporter.scaleout_view import ScaleoutView

if TYPE_CHECKING:
    from exporter.scaleout.core import Core  # loaded late, see above
    from exporter.scaleout.decision import Decision

OUTBOX = "outbox.db"
NOTHING: Firing = MappingProxyType({})
NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Scaleout:
    """Takes what rules and Alertmanager tell, and has it delivered.

    In each tick of the poller: `tick` first, `decide` for each event, then `view`. `enqueue` may
    come from another thread, `reload` too.
    """

    def __init__(
        self, config: Config, storage: Path | None, node: str, page_url: str, clock: Clock
    ) -> None:
        """Take up what the folder `storage` holds; without one, nothing outlives the process.

        Args:
            config: The whole config.
            storage: The exporter's folder.
            node: This machine's name.
            page_url: The absolute URL of its page, for people.
            clock: This machine's clocks.
        """
        self._config = config
        self._storage = storage
        self._place = Place(config.external_labels, node, page_url)
        self._clock = clock
        self._lock = threading.Lock()
        self._firing = NOTHING
        self._targets = targets(config.receivers, self._place, clock)
        self._watchers = _watchers(self._targets)
        self._idle = idle_view(config)
        self._core: Core | None = None
        if config.receivers or (storage is not None and (storage / OUTBOX).exists()):
            self._ensure()

    @property
    def restored(self) -> Firing:
        """What fired when the exporter last stopped, as far as that was written."""
        return NOTHING if self._core is None else self._core.restored

    def tick(self, firing: Firing) -> None:
        """Notice what happened outside: a pause, a retry, a disk that is back.

        Args:
            firing: All that fires now.
        """
        self._firing = firing
        episodes = {(rule, group) for (rule, _), (group, *_) in firing.items()}
        for watcher in self._watchers:
            watcher.update(episodes)
        if self._core is not None:
            self._core.tick()

    def decide(self, event: RuleEvent, now: float, *, sick: Collection[str] = ()) -> Decision:
        """Decide on an event of a rule; what is to be sent is committed on return.

        Args:
            event: What happened.
            now: Seconds since the epoch.
            sick: UUIDs of GPUs that have a fault.
        """
        core = self._ensure()
        return core.policy.decide(event, now, sick=sick, firing=self._firing)

    def enqueue(
        self,
        action: str,
        event: RuleEvent,
        labels: Mapping[str, str] = NO_LABELS,
        source: str = "alertmanager",
    ) -> str:
        """Decide on one action of what came from elsewhere; return the result.

        Raises:
            OutboxUnavailableError: It is not on disk; who sent it must come again.
        """
        return self._ensure().policy.enqueue(action, event, labels, source)

    def view(self) -> ScaleoutView:
        """Return how things stand; the same object while nothing has changed."""
        return self._idle if self._core is None else self._core.view()

    def reload(self, config: Config) -> None:
        """Go on by another config: limits and pending requests stay, targets that are gone end."""
        place = replace(self._place, labels=config.external_labels)
        old = self._targets
        kept = old if place == self._place else ()
        self._config, self._place, self._idle = config, place, idle_view(config)
        self._targets = targets(config.receivers, place, self._clock, kept)
        self._watchers = _watchers(self._targets)
        if self._core is not None:
            self._core.use(config, self._targets, place)
        elif config.receivers:
            self._ensure()
        _close([target for target in old if target not in self._targets])

    def stop(self) -> None:
        """End within seconds; what is not delivered by then stays in the outbox."""
        _close(self._targets)
        if self._core is not None:
            self._core.stop()

    def _ensure(self) -> Core:
        with self._lock:
            if self._core is None:
                from exporter.scaleout.core import Core  # noqa: PLC0415  see the module

                self._core = Core(
                    self._config, self._targets, self._storage, self._place, self._clock
                )
            return self._core


def idle_view(config: Config) -> ScaleoutView:
    """Return the view before anything was asked for."""
    actions = [action.name for action in config.actions if action.flight_recorder is None]
    return ScaleoutView(
        events={(action, result): 0 for action in actions for result in RESULTS},
        cooldown_remaining_seconds=dict.fromkeys(actions, 0.0),
    )


def _watchers(targets: Sequence[Target]) -> list[Watcher]:
    # To ask whether something is a Protocol costs as much as half a tick: not in each.
    return [target.receiver for target in targets if isinstance(target.receiver, Watcher)]


def _close(targets: Sequence[Target]) -> None:
    for watcher in _watchers(targets):
        watcher.close()
