"""What each workload has had of the GPUs: their time and energy, shared out. No clock, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TypeVar

from exporter.frozen import dataclass
from exporter.processes_view import Account
from exporter.procs import OTHER, UNKNOWN

N = TypeVar("N", int, float)

LINGER_SECONDS = 300.0  # that a last scrape, and one that failed, still find what has ended


@dataclass(frozen=True, slots=True)
class Share:
    """What a workload has of one GPU now. None: not known."""

    sm_ratio: float | None = None
    used_bytes: int | None = None

    def __add__(self, other: Share) -> Share:
        """Return what both have together."""
        return Share(
            _sum(self.sm_ratio, other.sm_ratio),
            _sum(self.used_bytes, other.used_bytes),
        )


@dataclass(frozen=True, slots=True)
class Meter:
    """A GPU's counters at a time (monotonic seconds). None: it has none, or not now."""

    at: float
    busy_seconds: float | None
    energy_joules: float | None


class Accounts:
    """The accounts of all workloads, at most `most`; the rest is booked on OTHER."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._accounts: dict[str, Account] = {}
        self._seen_at: dict[str, float] = {}
        self._running: frozenset[str] = frozenset()

    @property
    def all(self) -> Mapping[str, Account]:
        """All accounts there are, of workloads that ended lately too."""
        return dict(self._accounts)

    def open(self, workloads: Collection[str], now: float, meter: Meter) -> dict[str, str]:
        """Have an account for each workload that runs on a GPU; return the one it is booked on.

        A new one begins at 0. Where there is no room, the workload that ended first goes.
        """
        booked = {}
        for workload in workloads:
            booked[workload] = on = workload if self._has_room(workload, workloads) else OTHER
            account = self._accounts.get(on, Account())
            if account.busy_seconds is None and meter.busy_seconds is not None:
                account = replace(account, busy_seconds=0.0)
            if account.energy_joules is None and meter.energy_joules is not None:
                account = replace(account, energy_joules=0.0)
            self._accounts[on] = account
            self._seen_at[on] = now
        return booked

    def charge(
        self, before: Mapping[str, Share], now: Mapping[str, Share], since: Meter, until: Meter
    ) -> None:
        """Share out what a GPU did between two readings to those that were there at the first.

        In proportion to SM utilization over that time; if none was busy or it is not known, to
        memory; else alike. The sum is what the GPU did.
        """
        elapsed = until.at - since.at
        busy = _grown(since.busy_seconds, until.busy_seconds)
        energy = _grown(since.energy_joules, until.energy_joules)
        parts = _parts({name: now.get(name, share) for name, share in before.items()})
        for name, part in parts.items():
            account = self._accounts.get(name)
            if account is not None:
                self._accounts[name] = Account(
                    account.gpu_seconds + elapsed,
                    _sum(account.busy_seconds, None if busy is None else part * busy),
                    _sum(account.energy_joules, None if energy is None else part * energy),
                )

    def close(self, running: Collection[str], now: float) -> None:
        """Note which workloads run; let those go that ended LINGER_SECONDS ago."""
        self._running = frozenset(running)
        self._seen_at.update(dict.fromkeys(running, now))
        for name, seen_at in list(self._seen_at.items()):
            if now - seen_at > LINGER_SECONDS:
                self._drop(name)

    def _has_room(self, workload: str, wanted: Collection[str]) -> bool:
        if workload in self._accounts or workload in (OTHER, UNKNOWN):
            return True
        own = self._accounts.keys() - {OTHER, UNKNOWN}
        if len(own) < self.most:
            return True
        ended = own - self._running - set(wanted)
        if not ended:
            return False
        self._drop(min(ended, key=self._seen_at.__getitem__))
        return True

    def _drop(self, name: str) -> None:
        del self._accounts[name], self._seen_at[name]


def _parts(shares: Mapping[str, Share]) -> dict[str, float]:
    """Return the part (0 to 1) that each has of the whole."""
    for weights in (
        {name: share.sm_ratio or 0.0 for name, share in shares.items()},
        {name: float(share.used_bytes or 0) for name, share in shares.items()},
        dict.fromkeys(shares, 1.0),
    ):
        whole = sum(weights.values())
        if whole > 0:
            return {name: weight / whole for name, weight in weights.items()}
    return {}


def _grown(before: float | None, after: float | None) -> float | None:
    """Return by how much a counter grew; None where it began anew."""
    if before is None or after is None or after < before:
        return None
    return after - before


def _sum(one: N | None, other: N | None) -> N | None:
    if one is None:
        return other
    return one if other is None else one + other
