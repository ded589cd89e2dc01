"""One recording while it is written: what is on disk is whole at every moment."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic

from exporter.recorder import store
from exporter.recorder.decode import Decoder
from exporter.recorder.encode import Encoder, Frame, end_frame, mark_frame, pack
from exporter.recorder.model import End, Mark
from exporter.recorder.ring import Seen
from exporter.recorder.summary import Tally, to_json

SYNC_SECONDS = 5.0


class Tape:
    """Writes a recording. Each frame goes to the kernel in one write; used from one thread.

    Attributes:
        size_bytes: How long the data file is.
    """

    def __init__(self, recording: Path, encoder: Encoder) -> None:
        """Create the data file; raises OSError."""
        self.size_bytes = 0
        self._recording = recording
        self._encoder = encoder
        self._decoder = Decoder()
        self._tally = Tally()
        self._synced_at = monotonic()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            self._descriptor = os.open(recording / store.DATA, flags, store.FILE_MODE)
        except OSError:
            with suppress(OSError):
                recording.rmdir()
            raise
        store.lock(self._descriptor)

    def add(self, seen: Seen, dropped: int) -> None:
        """Write a snapshot; raises OSError, also when somebody has removed the file."""
        if os.fstat(self._descriptor).st_nlink == 0:
            raise FileNotFoundError(None, "it was removed")
        for frame in self._encoder.sample(seen, dropped):
            self._write(frame)
        if monotonic() - self._synced_at >= SYNC_SECONDS:
            os.fsync(self._descriptor)
            self._synced_at = monotonic()

    def mark(self, mark: Mark, taken_at: float) -> None:
        """Write a mark that belongs to a monotonic time; raises OSError."""
        elapsed_seconds = self._encoder.elapsed_seconds(taken_at)
        self._write(mark_frame(replace(mark, elapsed_seconds=elapsed_seconds)))

    def finish(self, why: str, dropped: int) -> None:
        """Write the end and the summary, and have all of it on disk; raises OSError."""
        self._write(end_frame(End(why, dropped)))
        os.fsync(self._descriptor)
        summary = self._tally.summary()
        if summary is not None:
            final, new = (self._recording / name for name in (store.SUMMARY, store.NEW_SUMMARY))
            store.replace_file(final, new, to_json(summary))
        self.close()

    def close(self) -> None:
        """Let go of the file as it is; a recording without a sample leaves nothing behind."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        with suppress(OSError):
            os.close(descriptor)
        if self._tally.summary() is None:
            with suppress(OSError):
                store.remove(self._recording)

    def _write(self, frame: Frame) -> None:
        """Append a frame whole or not at all, unless the process dies halfway."""
        rest = memoryview(pack(frame))
        size = len(rest)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self.size_bytes)
            raise
        self.size_bytes += size
        item = self._decoder.item(frame)
        if item is not None:
            self._tally.add(item)
