"""The recordings on disk, for those who read them. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from exporter.frozen import dataclass
from exporter.recorder import store
from exporter.recorder.decode import Decoder, read
from exporter.recorder.model import Item, RecordingError
from exporter.recorder.summary import Summary, from_json, summarise
from exporter.recorder_view import Stored

LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording. `summary` is None where there is no sample; `problem` says why, if known."""

    path: Path
    stored: Stored
    summary: Summary | None
    problem: str = ""

    @property
    def state(self) -> str:
        """One word for how much of it there is."""
        if self.stored.active:
            return "recording"
        if self.summary is None:
            return "unreadable" if self.problem else "empty"
        if self.summary.damaged:
            return "damaged"
        return "complete" if self.summary.ended else "truncated"

    def items(self) -> Iterator[Item]:
        """Yield all that is in it, in order; raises RecordingError as `decode.read` does."""
        return read(self.path / store.DATA, Decoder())


def list_recordings(storage: Path) -> list[Recording]:
    """Return all recordings below a storage path, oldest first.

    Raises:
        RecordingError: the directory cannot be read.
    """
    directory = storage / store.DIRECTORY
    try:
        found = store.stored(directory)
    except OSError as error:
        raise RecordingError(f"cannot read {directory}: {error.strerror}") from error
    return [_look_at(directory / one.name, one) for one in found]


def load(storage: Path, name: str) -> Recording:
    """Return a recording by its name, or the one that began last by the name `latest`.

    Raises:
        RecordingError: there is no such recording, or it cannot be read.
    """
    directory = storage / store.DIRECTORY
    try:
        found = {one.name: one for one in store.stored(directory)}
    except OSError as error:
        raise RecordingError(f"cannot read {directory}: {error.strerror}") from error
    if name == LATEST and found:
        name = max(found)
    if name not in found:
        has = f"{len(found)} others" if found else "none"
        raise RecordingError(f"no recording {name!r:.100} in {directory} ({has}); see the list")
    recording = _look_at(directory / name, found[name])
    if recording.summary is None:
        raise RecordingError(recording.problem or f"there is no sample in recording {name}")
    return recording


def _look_at(path: Path, stored: Stored) -> Recording:
    summary = None if stored.active else from_json(path / store.SUMMARY)
    if summary is not None:
        return Recording(path, stored, summary)
    try:
        return Recording(path, stored, summarise(path / store.DATA))
    except RecordingError as error:
        return Recording(path, stored, None, str(error))
