"""What is wrong on the node. Pure: a snapshot in, problems out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from exporter.frozen import dataclass
from exporter.rules_view import FIRING
from exporter.sampling import Fault
from exporter.snapshot import Snapshot
from exporter.statuspage.ailments import CRITICAL, WARNING, ailments
from exporter.xid.table import Severity, xid

STARTING = "the first readings are under way"

XID_SECONDS = 900.0  # for which one that happened is told, as by the alerts
FAULTS = {
    Fault.LOST: "is lost: it has fallen off the bus, or its driver gave it up",
    Fault.HUNG: "hangs: a driver call does not return",
    Fault.RESET_REQUIRED: "needs a reset",
    Fault.NO_PERMISSION: "may not be read by the exporter's user",
    Fault.ERROR: "answers with errors",
}


class Key(NamedTuple):
    """Which problem it is: what, and of whom ("" for the node)."""

    what: str
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a person should know of.

    Attributes:
        key: The same as long as it lasts.
        severity: CRITICAL (something does not work) or WARNING.
        text: What is wrong, in words.
        gpu: NVML index of the GPU that it is about, if it is one.
        since: Seconds since the epoch, where the one who tells of it knows.
    """

    key: Key
    severity: str
    text: str
    gpu: int | None = None
    since: float | None = None


def unready(snapshot: Snapshot | None) -> str | None:
    """Return why there are no fresh readings, or None if there are."""
    if snapshot is None:
        return STARTING
    if snapshot.is_stale:
        age = snapshot.now - snapshot.taken_at
        return f"the last readings are {age:.1f} s old, the poller is late or stuck"
    if snapshot.driver is None:
        return snapshot.driver_problem
    faults = [gpu.fault.value for gpu in snapshot.gpus if gpu.fault]
    if faults and len(faults) == len(snapshot.gpus):
        return f"no GPU gives readings: {', '.join(sorted(set(faults)))}"
    return None


def find(snapshot: Snapshot, wall: float) -> Iterator[Problem]:
    """Yield what is wrong at this wall clock."""
    if snapshot.is_stale:
        # Nothing in it may pass for the present.
        yield Problem(Key("stale"), CRITICAL, f"No fresh readings: {unready(snapshot)}")
        return
    if snapshot.driver is None:
        yield Problem(Key("driver"), CRITICAL, f"No GPU can be read: {snapshot.driver_problem}")
    elif snapshot.pci_gpus is not None and snapshot.pci_gpus > len(snapshot.gpus):
        text = (
            f"{snapshot.pci_gpus} NVIDIA GPUs are on the PCI bus, "
            f"but the driver lists {len(snapshot.gpus)}"
        )
        yield Problem(Key("gpus_missing"), CRITICAL, text)
    elif snapshot.gpus and all(gpu.fault for gpu in snapshot.gpus):
        text = str(unready(snapshot))
        yield Problem(Key("no_gpu"), CRITICAL, text[:1].upper() + text[1:])
    for gpu in snapshot.gpus:
        if gpu.fault is not None:
            key = Key("gpu_fault", f"{gpu.uuid} {gpu.fault.value}")
            yield Problem(key, CRITICAL, f"GPU {gpu.index} {FAULTS[gpu.fault]}", gpu.index)
    yield from _xids(snapshot, wall)
    yield from _rules(snapshot)
    for gpu in snapshot.gpus:
        for what, severity, text in ailments(gpu):
            key = Key(what, gpu.uuid)
            yield Problem(key, severity, f"GPU {gpu.index} {text}", gpu.index)
    yield from _servers(snapshot)
    yield from _scale_out(snapshot)
    if not snapshot.reload.successful:
        text = "The config file is bad; the daemon goes on with the config that it had"
        yield Problem(Key("config"), WARNING, text)


def _xids(snapshot: Snapshot, wall: float) -> Iterator[Problem]:
    """Yield what the GPUs have told of lately; what is only informational is no problem."""
    if snapshot.xids is None:
        return
    for gpu in snapshot.gpus:
        known = snapshot.xids_of(gpu)
        for number, at in known.last_seconds.items() if known else ():
            if wall - at < XID_SECONDS:
                yield from _xid(f"GPU {gpu.index}", gpu.uuid, number, at, gpu.index)
    for (address, number), count in snapshot.xids.unlisted.items():
        if wall - count.last_seconds < XID_SECONDS:
            who = f"The GPU at {address}, which the driver does not list,"
            yield from _xid(who, address, number, count.last_seconds)
    if snapshot.xids.sources and not any(snapshot.xids.sources.values()):
        text = "XID errors go unseen: neither NVML nor the kernel log can be read"
        yield Problem(Key("xid_unseen"), WARNING, text)


def _xid(
    who: str, subject: str, number: int, at: float, gpu: int | None = None
) -> Iterator[Problem]:
    meaning = xid(number)
    if meaning.severity is Severity.INFORMATIONAL:
        return
    severity = CRITICAL if meaning.severity is Severity.CRITICAL else WARNING
    text = f"{who} had XID {number}, {meaning.mnemonic}; NVIDIA's advice: {meaning.action}"
    yield Problem(Key("xid", f"{subject} {number}"), severity, text, gpu, at)


def _rules(snapshot: Snapshot) -> Iterator[Problem]:
    for rule in snapshot.rules.rules if snapshot.rules else ():
        firing = [one for one in rule.series if one.state == FIRING]
        if not firing:
            continue
        gpus = sorted({one.gpu for one in firing if one.gpu is not None})
        where = f" on GPU {', '.join(map(str, gpus))}" if gpus else ""
        yield Problem(
            Key("rule_firing", rule.alert),
            WARNING,
            f"{rule.alert} fires{where}: {rule.condition}",
            gpus[0] if len(gpus) == 1 else None,
            min(one.fired_at for one in firing if one.fired_at is not None),
        )


def _servers(snapshot: Snapshot) -> Iterator[Problem]:
    for server in snapshot.inference.servers if snapshot.inference else ():
        if server.load is None:
            text = f"Inference server {server.name} cannot be read: {server.problem}"
            yield Problem(Key("inference_server", server.name), WARNING, text)


def _scale_out(snapshot: Snapshot) -> Iterator[Problem]:
    view = snapshot.scaleout
    if view is None:
        return
    if view.durable is False:
        text = "Requests to scale out are in memory alone: the outbox cannot be written"
        yield Problem(Key("scale_out_not_durable"), WARNING, text)
    if view.paused:
        yield Problem(Key("scale_out_paused"), WARNING, "Scale-out is paused: nothing new is sent")
    lost = view.outbox.get("dead", 0) + view.outbox.get("expired", 0)
    if lost:
        text = f"{lost} requests to scale out were given up: gpu-node-exporter scale-out retry"
        yield Problem(Key("scale_out_lost"), WARNING, text)
