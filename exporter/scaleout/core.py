"""The parts of scale-out, wired: what is decided is kept, and what is kept is delivered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exporter.config import Config
from exporter.scaleout import rows
from exporter.scaleout.audit import Audit
from exporter.scaleout.clock import Clock, rfc3339
from exporter.scaleout.decision import Setup
from exporter.scaleout.delivery import Deliveries
from exporter.scaleout.model import Outcome
from exporter.scaleout.outbox import Outbox
from exporter.scaleout.pausing import PauseFile
from exporter.scaleout.policy import Policy
from exporter.scaleout.receivers import Place, Target
from exporter.scaleout.records import STATES, Firing, Pause
from exporter.scaleout_view import ScaleoutView


class Core:
    """Owns the outbox and the senders' threads.

    Attributes:
        policy: Decides.
        restored: What fired when the exporter last stopped.
    """

    def __init__(
        self,
        config: Config,
        targets: Sequence[Target],
        storage: Path | None,
        place: Place,
        clock: Clock,
    ) -> None:
        """Open the outbox in the folder `storage`, and go on with what is pending there."""
        self._clock = clock
        self._audit = Audit(storage, clock)
        self._outbox = Outbox(storage, clock)
        self._pause_file = PauseFile(storage, clock)
        self._ordered: Pause | None = None
        self._paused_by: Pause | None = None
        self._revision = -1
        self._view = ScaleoutView()
        self._receivers = tuple(dict.fromkeys(target.receiver_name for target in targets))
        self._deliveries = Deliveries(self._outbox, self._audit, clock)
        self.policy = Policy(
            setup(config, targets, place), self._outbox, self._audit, self._deliveries.wake, clock
        )
        self.restored: Firing = self._outbox.ask(rows.firing, {})
        self._delivered = self._last_delivered()
        self._deliveries.use(targets)
        self.tick()

    def use(self, config: Config, targets: Sequence[Target], place: Place) -> None:
        """Go on by another config."""
        self._receivers = tuple(dict.fromkeys(target.receiver_name for target in targets))
        self.policy.setup = setup(config, targets, place)
        self._deliveries.use(targets)

    def tick(self) -> None:
        """Notice what happened outside."""
        opened = self._outbox.tend()
        if opened:
            self.policy.take_limits()
        if self._outbox.changed() or opened:
            self._ordered = self._outbox.ask(rows.paused, self._ordered)
            self._deliveries.wake_waiting()
        self._notice_pause()

    def view(self) -> ScaleoutView:
        """Return how things stand; the same object while nothing has changed."""
        view = self._look()
        if view != self._view:
            self._view = view
        return self._view

    def stop(self) -> None:
        """Let attempts under way end, for seconds at most, and close the outbox."""
        self._deliveries.stop()
        self._outbox.close()

    def _notice_pause(self) -> None:
        now = self._clock.since_boot()
        orders = (self._ordered, self._pause_file.look())
        pause = max(
            (order for order in orders if order is not None and order.until > now),
            key=lambda order: order.until,
            default=None,
        )
        self.policy.pause = pause
        if pause == self._paused_by:
            return
        self._paused_by = pause
        if pause is None:
            self._audit.write("resumed")
        else:
            until = rfc3339(self._clock.wall() + pause.until - now)
            self._audit.write("paused", reason=pause.reason, until=until)

    def _look(self) -> ScaleoutView:
        results = {(name, one.value): 0 for name in self._receivers for one in Outcome}
        revision, outbox = self._outbox.revision, self._view.outbox
        if revision != self._revision:
            counts = self._outbox.counts()
            if counts is not None:
                outbox = {**dict.fromkeys(STATES, 0), **counts}
                self._revision = revision
        return ScaleoutView(
            events=self.policy.counts(),
            deliveries={**results, **self._deliveries.tally.results()},
            outbox=outbox,
            # Without receivers nothing is sent, so nothing can be lost.
            durable=not self._outbox.problem if self._receivers else None,
            cooldown_remaining_seconds=self.policy.cooldowns(),
            paused=self.policy.pause is not None,
            last_delivery_timestamp_seconds={
                **self._delivered,
                **self._deliveries.tally.delivered(),
            },
            newest=self._audit.newest,
        )

    def _last_delivered(self) -> dict[str, float]:
        """Return when each receiver took a request before this start, since the epoch."""
        shift = self._clock.wall() - self._clock.since_boot()
        times: dict[str, float] = {}
        for target, at in self._outbox.ask(rows.last_delivered, dict[str, float]()).items():
            name = target.rsplit("/", 2)[0]
            times[name] = max(times.get(name, 0.0), at + shift)
        return times


def setup(config: Config, targets: Sequence[Target], place: Place) -> Setup:
    """Return what the policy needs to know of the config."""
    of_receiver: dict[str, dict[str, float]] = {}
    for target in targets:
        deadlines = of_receiver.setdefault(target.receiver_name, {})
        deadlines[target.receiver.target] = target.config.retry.deadline_seconds
    return Setup(
        actions={a.name: a for a in config.actions if a.flight_recorder is None},
        targets=of_receiver,
        labels=place.labels,
        node=place.node,
    )
