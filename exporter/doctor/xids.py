"""Step 2: XID errors of this boot, from the kernel log and from what the daemon has kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from exporter.doctor.facts import Facts, Xids
from exporter.doctor.finding import Finding, Kind, Severity, Step, fine, names
from exporter.doctor.words import counted
from exporter.xid.kernel_log import KernelLog, Opener
from exporter.xid.ledger import Count, Ledger
from exporter.xid.store import Store
from exporter.xid.table import Severity as Class
from exporter.xid.table import xid

STEP = Step.HEALTH
DEADLINE_SECONDS = 10.0  # for all that the log holds; a journal may hold much
POLL_SECONDS = 0.05
END_SECONDS = 3.0  # for the thread to let go of the log
SHOWN = 8  # lines of a finding

CRITICAL = Kind(
    "xid-critical",
    STEP,
    Severity.WARNING,
    "The driver has reported an error of the GPU, its memory or a link since this node booted.",
    "docs/xid.md tells what each XID asks for. If the GPU was reset after it and step 2 names "
    "nothing else, it is over; else drain the GPU and do what the action says.",
)
APPLICATION = Kind(
    "xid-application",
    STEP,
    Severity.NOTE,
    "A program on the GPU has failed since this node booted; the GPU is fine.",
    "Look into the log of what ran there at that time.",
)
UNSEEN = Kind(
    "xids-unseen",
    STEP,
    Severity.NOTE,
    "This user may not read the kernel log, where XID errors of before stand.",
    "Run the doctor as root, or let the user into the group systemd-journal.",
)
KINDS = (CRITICAL, APPLICATION, UNSEEN)


def read(openers: Sequence[Opener], store: Store | None) -> Xids:
    """Read what the kernel log holds, on top of what the daemon has kept of this boot."""
    ledger = Ledger(store.load() if store else None)
    log = KernelLog(tuple(openers), ledger, lambda: None)
    log.start()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not log.is_settled and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    is_seen = log.is_up
    log.stop()
    log.join(END_SECONDS)
    return Xids(ledger.state().counts, is_seen)


def check(facts: Facts) -> Iterator[Finding]:
    """Look at XID errors of this boot."""
    if facts.xids is None or (facts.snapshot.driver is None and not facts.snapshot.pci_gpus):
        return
    counts = facts.xids.counts
    if facts.xids.is_seen and not counts:
        yield fine(STEP, "xids", "no XID errors since boot")
    if not facts.xids.is_seen:
        yield UNSEEN.found("the kernel log cannot be read")
    yield from _told(CRITICAL, facts, _of_class(counts, Class.CRITICAL))
    yield from _told(APPLICATION, facts, _of_class(counts, Class.APPLICATION))


def _of_class(
    counts: Mapping[tuple[str, int], Count], wanted: Class
) -> dict[tuple[str, int], Count]:
    return {
        pair: count for pair, count in sorted(counts.items()) if xid(pair[1]).severity is wanted
    }


def _told(kind: Kind, facts: Facts, counts: Mapping[tuple[str, int], Count]) -> Iterator[Finding]:
    if not counts:
        return
    index_of = {gpu.identity.pci_bus_id: gpu.index for gpu in facts.gpus if gpu.identity}
    lines = [
        f"{names([index_of[address]]) if address in index_of else address}: XID {number} "
        f"{xid(number).mnemonic}, {counted(count.total, 'time')}, last {_when(count)}; "
        f"action {xid(number).action}"
        for (address, number), count in counts.items()
    ]
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    gpus = sorted({index_of[address] for address, _ in counts if address in index_of})
    yield kind.found("\n".join([*lines[:SHOWN], *more]), gpus)


def _when(count: Count) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(count.last_seconds))
