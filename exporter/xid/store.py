"""XID counts on disk: a restart of the daemon neither forgets an error nor counts it anew."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from exporter.xid.ledger import MAX_PAIRS, Count, Ledger, State

log = logging.getLogger(__name__)

FILE_NAME = "xids.json"
LARGEST_BYTES = 1 << 20


class Store:
    """One small file, written anew when something has changed. Used by one thread."""

    def __init__(self, folder: Path, boot: str) -> None:
        """Take the folder, and which boot this is: what another boot has left is forgotten."""
        self._file = folder / FILE_NAME
        self._boot = boot
        self._version = 0
        self._problem = ""

    def load(self) -> State | None:
        """Return what was saved in this boot, or None: nothing, or nothing that can be read."""
        try:
            with self._file.open("rb") as file:
                return _decode(file.read(LARGEST_BYTES), self._boot)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
            log.warning("%s cannot be read, XID errors are counted anew: %s", self._file, error)
            return None

    def save(self, ledger: Ledger) -> None:
        """Write the counts if they have changed; if that fails, say so once, and try next time.

        No fsync: after a crash of the machine, nothing of this boot matters any more.
        """
        version = ledger.version
        if version == self._version or not self._boot:
            return
        scratch = self._file.with_suffix(".new")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(_encode(ledger.state(), self._boot), encoding="ascii")
            scratch.replace(self._file)
            self._version, self._problem = version, ""
        except OSError as error:
            if str(error) != self._problem:
                log.warning("XID counts will not outlive a restart of the daemon: %s", error)
                self._problem = str(error)


def _encode(state: State, boot: str) -> str:
    counts = [[who, xid, c.total, c.last_seconds] for (who, xid), c in state.counts.items()]
    return json.dumps(
        {"boot": boot, "kernel_microseconds": state.kernel_microseconds, "counts": counts}
    )


def _decode(text: bytes, boot: str) -> State | None:
    saved = json.loads(text)
    if not boot or saved["boot"] != boot:
        return None
    counts = {
        (str(who), int(xid)): Count(int(total), float(last))
        for who, xid, total, last in saved["counts"][:MAX_PAIRS]
    }
    return State(counts, int(saved["kernel_microseconds"]))
