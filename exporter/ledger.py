"""What the exporter knows of its own readings: durations, errors, and a log line at each change."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

from exporter.facts import facts

log = logging.getLogger(__name__)

POLL_RESULTS = ("complete", "partial", "skipped")


class Ledger:
    """Counts since the start of the daemon. Changed by the poller's thread alone."""

    def __init__(self) -> None:
        self.errors: Counter[tuple[str, str]] = Counter()  # (group, error)
        self.polls: Counter[str] = Counter(dict.fromkeys(POLL_RESULTS, 0))
        self.seconds: dict[str, float] = {}  # group -> time of its last reading, over all GPUs
        self._failing: dict[tuple[str, str], str] = {}  # (who, group) -> error
        self._faults: dict[str, str] = {}  # who -> fault

    def durations(self, seconds: Mapping[str, float]) -> None:
        """Take the durations of the groups that this tick has read."""
        self.seconds.update(seconds)

    def readings(self, who: str, groups: Mapping[str, object], errors: Mapping[str, str]) -> None:
        """Count the errors of one GPU or of the host; log those that begin or end here."""
        for group, error in errors.items():
            self.errors[group, error] += 1
            if self._failing.get((who, group)) != error:
                log.warning(
                    "%s: cannot read %s: %s", who, group, error, extra=_about(who, group=group)
                )
                self._failing[who, group] = error
        for key in [k for k in self._failing if k[0] == who and k[1] not in errors]:
            if key[1] in groups:
                log.info("%s: %s is read again", who, key[1], extra=_about(who, group=key[1]))
                del self._failing[key]

    def fault(self, who: str, uuid: str, fault: str | None) -> None:
        """Log a GPU's fault when it begins, changes or ends."""
        before = self._faults.get(who)
        if fault == before:
            return
        if fault is None:
            extra = _about(who, uuid=uuid)
            log.info("%s (%s) answers again (was %s)", who, uuid, before, extra=extra)
            del self._faults[who]
        else:
            self.errors["device", fault] += 1
            extra, known = _about(who, uuid=uuid, fault=fault), uuid or "UUID unknown"
            log.error("%s (%s) gives no readings: %s", who, known, fault, extra=extra)
            self._faults[who] = fault

    def poll(self, result: str, times: int = 1) -> None:
        """Count polls by result."""
        self.polls[result] += times


def _about(who: str, **more: str) -> dict[str, dict[str, str]]:
    """Return the facts of a line about a GPU, or about the host."""
    return facts(gpu=who.removeprefix("GPU ") if who.startswith("GPU ") else None, **more)
