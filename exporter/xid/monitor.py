"""XID errors of the node, from NVML and the kernel log together."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from exporter.frozen import dataclass
from exporter.sampling import Driver, Fault, FoundGpu
from exporter.threads import start
from exporter.xid.kernel_log import KernelLog, Opener
from exporter.xid.ledger import Count, Event, Ledger, Pair, Result, Source
from exporter.xid.store import Store
from exporter.xid.table import ANNOUNCED
from exporter.xid.view import GpuXids, XidView
from exporter.xid.watcher import Watcher

log = logging.getLogger(__name__)

SETTLE_SECONDS = 10.0  # after which we do not wait for the past of the kernel log any more
HUNG_SECONDS = 10.0
MAX_STUCK = 2  # threads that may be left to calls which do not return
GONE = {Fault.LOST, Fault.RESET_REQUIRED, Fault.NO_PERMISSION}  # their handles are dead
UNKNOWN_XID = 999  # NVML's word for: look into the kernel log


@dataclass(frozen=True, slots=True)
class SeenGpu:
    """A GPU of the driver's list; what is not known of it is ""."""

    index: int
    uuid: str
    pci_bus_id: str
    fault: Fault | None


class Monitor:
    """Counts from `start` on. All but the two threads it runs belongs to the poller's thread."""

    def __init__(self, driver: Driver, openers: tuple[Opener, ...], store: Store | None) -> None:
        """Take the driver, the ways to the kernel log (if there is one), and a place on disk."""
        self._driver = driver
        self._openers = openers
        self._store = store
        self._ledger = Ledger(store.load() if store else None)
        self._log: KernelLog | None = None
        self._watcher: Watcher | None = None
        self._stuck: list[Watcher] = []
        self._addresses: dict[str, str] = {}  # UUID -> PCI address, also of GPUs that are gone
        self._started_at: float | None = None
        self._view = XidView()
        self._shown: object = None

    @property
    def is_watching(self) -> bool:
        """Whether a thread of ours is in the driver."""
        watchers = [*self._stuck, *([self._watcher] if self._watcher else [])]
        return any(watcher.is_alive() for watcher in watchers)

    def switch(self, *, on: bool) -> None:
        """Start, or stop; what is so already stays."""
        if on and self._started_at is None:
            self._started_at = time.monotonic()
            if self._openers:
                self._log = KernelLog(self._openers, self._ledger, self._save)
                start(self._log)
        elif not on and self._started_at is not None:
            self.stop()

    def stop(self) -> None:
        """Let the threads end; wait for none."""
        self._started_at = None
        if self._log is not None:
            self._log.stop()
        if self._watcher is not None:
            self._watcher.stop()
        self._log = self._watcher = None

    def observe(self, gpus: Sequence[SeenGpu]) -> XidView | None:
        """Watch these GPUs from now on; return what is known, or None: not yet.

        Counters begin only when the past of the kernel log is counted: a page that shows 0 before,
        and then 3, would make old errors look new.
        """
        if self._started_at is None:
            return None
        self._addresses.update({g.uuid: g.pci_bus_id for g in gpus if g.uuid and g.pci_bus_id})
        self._watch(gpus)
        # What the kernel log tells of a GPU may be older than our acquaintance with it.
        is_settled = self._log is None or self._log.is_settled
        is_settled &= bool(gpus) and all(gpu.uuid in self._addresses for gpu in gpus)
        if not is_settled and time.monotonic() - self._started_at < SETTLE_SECONDS:
            return None
        return self._look(tuple(gpu.uuid for gpu in gpus))

    def _watch(self, seen: Sequence[SeenGpu]) -> None:
        """Have the GPUs watched, by another thread where the one that did does not come back."""
        self._stuck = [watcher for watcher in self._stuck if watcher.is_alive()]
        watcher = self._watcher
        if watcher is not None and _is_hung(watcher) and len(self._stuck) < MAX_STUCK:
            log.error("NVML does not return from waiting for XID errors")
            watcher.stop()
            self._stuck.append(watcher)
            self._watcher = watcher = None
        if watcher is not None and not seen:  # the driver is about to be let go of
            watcher.stop()
            self._stuck.append(watcher)
            self._watcher = watcher = None
        avoided = {stuck.registering for stuck in self._stuck}
        watched = watcher.gpus if watcher is not None else ()
        gpus = tuple(
            gpu
            for gpu, fault in ((FoundGpu(g.index, g.uuid), g.fault) for g in seen)
            if gpu.uuid in self._addresses
            and gpu.uuid not in avoided
            and (fault is None or (gpu in watched and fault not in GONE))
        )
        if watcher is not None:
            watcher.gpus = gpus
        elif gpus:
            self._watcher = Watcher(self._driver, gpus, self._on_event)
            start(self._watcher)

    def _on_event(self, uuid: str, xid: int) -> None:
        """Count what NVML tells. Called by the watcher's thread."""
        kernel_log = self._log
        if xid == UNKNOWN_XID and kernel_log is not None and kernel_log.is_up:
            self._ledger.note(Source.NVML, Result.DUPLICATE)  # the log tells which it was
            return
        address = self._addresses[uuid]
        self._ledger.add(Event(Source.NVML, address, xid, time.time(), time.monotonic()))

    def _look(self, uuids: tuple[str, ...]) -> XidView:
        """Return the view, the very same one as long as nothing has changed."""
        watcher = self._watcher
        sources = {Source.NVML: watcher is not None and watcher.is_up and not _is_hung(watcher)}
        if self._log is not None:
            sources[Source.KERNEL_LOG] = self._log.is_up
        shown = self._ledger.version, uuids, len(self._addresses), tuple(sources.values())
        if shown == self._shown:
            return self._view
        counts = self._ledger.state().counts
        listed = {self._addresses[uuid]: uuid for uuid in uuids if uuid in self._addresses}
        is_known = any(sources.values()) or bool(self._view.gpus) or bool(counts)
        gpus = {}
        for address, uuid in listed.items():
            fresh = _of_gpu(address, counts)
            before = self._view.gpus.get(uuid)
            if is_known:
                gpus[uuid] = before if before == fresh else fresh
        self._shown = shown
        self._view = XidView(
            gpus,
            {pair: count for pair, count in counts.items() if pair[0] not in listed},
            sources,
            {(s, r): n for (s, r), n in self._ledger.results().items() if s in sources},
        )
        return self._view

    def _save(self) -> None:
        if self._store is not None:
            self._store.save(self._ledger)


def _is_hung(watcher: Watcher) -> bool:
    return time.monotonic() - watcher.beat > HUNG_SECONDS


def _of_gpu(address: str, counts: Mapping[Pair, Count]) -> GpuXids:
    own = {xid: count for (where, xid), count in sorted(counts.items()) if where == address}
    totals = {**dict.fromkeys(ANNOUNCED, 0), **{xid: count.total for xid, count in own.items()}}
    return GpuXids(totals, {xid: count.last_seconds for xid, count in own.items()})
