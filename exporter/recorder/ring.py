"""The last minutes in memory, so that a recording begins before its event."""

from __future__ import annotations

from collections import deque

from exporter.frozen import dataclass
from exporter.snapshot import Snapshot

MOST_SNAPSHOTS = 600  # about 17 MiB with eight H100; the default, 120 s at 1 Hz, takes 3.5


@dataclass(frozen=True, slots=True)
class Seen:
    """A snapshot and the wall clock (seconds since the epoch) when it was taken."""

    at: float
    snapshot: Snapshot


class Ring:
    """The newest snapshots, bounded by age (monotonic seconds) and by count.

    Snapshots are kept as they are: they are never changed, and share what is read seldom.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: deque[Seen] = deque(maxlen=MOST_SNAPSHOTS)

    def resize(self, seconds: float) -> None:
        """Keep another length of time from now on."""
        self._seconds = seconds

    def add(self, seen: Seen) -> None:
        """Take the newest, and let go of what is too old."""
        kept = self._seen
        kept.append(seen)
        oldest = seen.snapshot.taken_at - self._seconds
        while kept[0].snapshot.taken_at < oldest:
            kept.popleft()

    def all(self) -> tuple[Seen, ...]:
        """Return all there is, oldest first; the newest is always there."""
        return tuple(self._seen)
