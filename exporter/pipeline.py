"""One tick of the daemon: read, judge, record, request, publish."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from exporter.facts import facts
from exporter.inference_view import InferenceView
from exporter.poll import Poller
from exporter.recorder.flight import Recorder
from exporter.rules import Engine
from exporter.sampling import DriverGoneError
from exporter.scaleout.model import EventKind, RuleEvent
from exporter.scaleout.service import Scaleout
from exporter.snapshot import Snapshot
from exporter.statuspage import Past
from exporter.threads import NoThreadError
from exporter.xid import Monitor, SeenGpu

log = logging.getLogger(__name__)

SICK_SECONDS = 900.0  # after a critical XID


class Pipeline:
    """Takes each snapshot through rules, recorder and scale-out to the page.

    Runs in the poller's thread; `latest` is replaced whole, never changed.
    """

    def __init__(
        self,
        poller: Poller,
        engine: Engine,
        recorder: Recorder,
        scaleout: Scaleout,
        xids: Monitor,
        past: Past,
        inference: Callable[[float], InferenceView | None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.latest: Snapshot | None = None
        self._poller = poller
        self._engine = engine
        self._recorder = recorder
        self._scaleout = scaleout
        self._xids = xids
        self._past = past
        self._inference = inference
        self._wall = wall

    def tick(self) -> None:
        """Do what is due, and publish what came of it.

        Raises:
            DriverGoneError: the driver was unloaded or replaced under us.
            MemoryError: there is not enough for this process to be trusted any more.
            NoThreadError: likewise.
        """
        try:
            snapshot = self._poller.tick(watched=self._xids.is_watching)
        except DriverGoneError:
            self.latest = self._poller.latest
            raise
        wall = self._wall()
        with contained("XID errors"):
            snapshot = replace(snapshot, xids=self._xids.observe(_seen(snapshot)))
        with contained("inference servers"):
            snapshot = _with_inference(snapshot, self._inference(snapshot.taken_at))
        events: tuple[RuleEvent, ...] = ()
        with contained("rules"):
            events = self._engine.observe(snapshot, wall)
        with contained("recorder"):
            self._recorder.add(snapshot, wall)
        self.tell(events, _sick(snapshot, wall))
        latest = replace(
            snapshot,
            rules=self._engine.view,
            recorder=self._recorder.view(),
            scaleout=self._scaleout.view(),
        )
        with contained("the status page"):
            self._past.add(latest, wall)
        self.latest = latest

    def tell(self, events: Iterable[RuleEvent], sick: Collection[str] = ()) -> None:
        """Hand on what rules tell; `sick` are UUIDs of GPUs that are. Between ticks only."""
        with contained("scale-out"):
            self._scaleout.tick(self._engine.firing)
        for event in events:
            _log(event)
            with contained("recorder"):
                self._recorder.on_event(event)
            with contained("scale-out"):
                self._scaleout.decide(event, self._wall(), sick=sick)


def _with_inference(snapshot: Snapshot, view: InferenceView | None) -> Snapshot:
    """Return a snapshot with the inference servers, and what reading them took."""
    if view is None:
        return snapshot
    errors = {("inference", error): count for error, count in view.errors.items()}
    seconds = {} if view.read_seconds is None else {"inference": view.read_seconds}
    return replace(
        snapshot,
        inference=view,
        read_errors={**snapshot.read_errors, **errors},
        read_seconds={**snapshot.read_seconds, **seconds},
    )


def _seen(snapshot: Snapshot) -> list[SeenGpu]:
    return [
        SeenGpu(g.index, g.uuid, g.identity.pci_bus_id if g.identity else "", g.fault)
        for g in snapshot.gpus
    ]


def _sick(snapshot: Snapshot, wall: float) -> set[str]:
    """Return UUIDs of GPUs whose load says nothing: they have a fault, or had one just now."""
    sick = {gpu.uuid for gpu in snapshot.gpus if gpu.fault}
    return sick | (snapshot.xids.critical_since(wall - SICK_SECONDS) if snapshot.xids else set())


def _log(event: RuleEvent) -> None:
    """Say what began or ended; that it goes on is seen in the metrics."""
    level = logging.DEBUG if event.kind is EventKind.REPEAT else logging.INFO
    gpus = ", ".join(series.gpu for series in event.series if series.gpu)
    where = f" on GPU {gpus}" if gpus else ""
    about = facts(rule=event.rule, state=event.kind.value, gpu=gpus)
    text = "rule %s %s%s: %s"
    log.log(level, text, event.rule, event.kind.value, where, event.reason, extra=about)


@contextmanager
def contained(part: str) -> Iterator[None]:
    """Keep a fault of ours in one part from stopping the others; log it with its traceback.

    Raises:
        MemoryError: there is not enough for this process to be trusted any more.
        NoThreadError: likewise.
    """
    try:
        yield
    except (MemoryError, NoThreadError):
        raise
    except Exception:
        log.exception("a fault in %s", part)
