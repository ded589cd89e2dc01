"""A pause that a file orders: for systemd, Ansible, and whoever cannot run the command."""

from __future__ import annotations

import logging
from pathlib import Path

from exporter.scaleout.clock import Clock
from exporter.scaleout.records import Pause
from exporter.schema import duration

log = logging.getLogger(__name__)

FILE = "pause"
DEFAULT_SECONDS = 4 * 3600.0  # of a file that does not say for how long
MAX_SECONDS = 30 * 24 * 3600.0
MAX_REASON = 200


class PauseFile:
    """Looks at a file in a folder. It pauses from when it was written, and never for ever.

    Its first word may be a duration as in the config, such as 2h; the rest is the reason.
    """

    def __init__(self, folder: Path | None, clock: Clock, name: str = FILE) -> None:
        self._path = None if folder is None else folder / name
        self._clock = clock
        self._seen: tuple[int, int] | None = None  # inode, time of writing
        self._pause: Pause | None = None

    def look(self) -> Pause | None:
        """Return the pause that the file orders, also if it is over; None without a file."""
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except OSError:
            self._seen = self._pause = None
            return None
        seen = (status.st_ino, status.st_mtime_ns)
        if seen != self._seen:  # so that setting the clock afterwards changes nothing
            self._seen, self._pause = seen, self._read(self._path, status.st_mtime)
        return self._pause

    def _read(self, path: Path, written: float) -> Pause:
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                text = file.read(MAX_REASON).strip()
        except OSError:
            text = ""  # who made it unreadable still wanted a pause
        word, _, rest = text.partition(" ")
        try:
            seconds = min(duration(word), MAX_SECONDS)
        except ValueError:
            seconds, rest = DEFAULT_SECONDS, text
            log.warning("%s does not begin with a duration such as 2h: pausing for 4h", path)
        age = min(max(self._clock.wall() - written, 0.0), seconds)
        since = self._clock.since_boot() - age
        return Pause(rest or "a file orders it", since, since + seconds)
