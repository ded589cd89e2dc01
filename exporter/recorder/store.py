"""The directory of all recordings: their names, their size, and who has to go."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from exporter.frozen import dataclass
from exporter.recorder.clock import stamp
from exporter.recorder_view import Stored

DIRECTORY = "recordings"  # below the storage path
DATA, SUMMARY, NEW_SUMMARY = "data.jsonl.gz", "summary.json", "summary.json.new"
DIRECTORY_MODE, FILE_MODE = 0o750, 0o640
LONGEST_RULE = 64
MOST_OF_A_SECOND = 1000  # recordings with one name
NAME = re.compile(rf"\d{{8}}T\d{{6}}Z-[A-Za-z0-9_-]{{1,{LONGEST_RULE}}}(\.\d{{1,3}})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What all recordings together may take."""

    max_bytes: int
    max_recordings: int


def create(directory: Path, at: float, rule: str) -> Path:
    """Make the directory of a new recording, named by wall clock and rule.

    Raises:
        OSError: it cannot be made.
    """
    directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", rule)[:LONGEST_RULE] or "recording"
    base = f"{stamp(at)}-{safe}"
    for name in (base, *(f"{base}.{n}" for n in range(2, MOST_OF_A_SECOND))):
        path = directory / name
        try:
            path.mkdir(mode=DIRECTORY_MODE)
        except FileExistsError:
            continue
        return path
    raise FileExistsError(None, "too many recordings of one second")


def stored(directory: Path) -> list[Stored]:
    """Return all recordings, oldest first; none where the directory is not there.

    Raises:
        OSError: the directory cannot be read.
    """
    try:
        return sorted(_stored(directory), key=lambda one: one.name)
    except FileNotFoundError:
        return []


def make_room(directory: Path, bounds: Bounds, keep: str = "") -> list[Stored]:
    """Remove the oldest recordings until the rest is within bounds.

    One that is active stays, and so do the one to keep and one that cannot be removed.

    Returns:
        What is left, oldest first.

    Raises:
        OSError: the directory cannot be read.
    """
    left = stored(directory)
    for oldest in [one for one in left if not (one.active or one.name == keep)]:
        if size_of(left) <= bounds.max_bytes and len(left) <= bounds.max_recordings:
            break
        try:
            remove(directory / oldest.name)
        except OSError:
            continue
        left.remove(oldest)
    return left


def size_of(recordings: Iterable[Stored]) -> int:
    """Return the size of all of them, in bytes."""
    return sum(one.size_bytes for one in recordings)


def remove(recording: Path) -> None:
    """Remove our files of a recording, and its directory unless others have put something there.

    Raises:
        OSError: something cannot be removed.
    """
    for name in (DATA, SUMMARY, NEW_SUMMARY):
        (recording / name).unlink(missing_ok=True)
    if not any(recording.iterdir()):
        recording.rmdir()


def replace_file(path: Path, new: Path, content: str) -> None:
    """Write a file so that it is there whole or as it was, even after a loss of power.

    Raises:
        OSError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with open(os.open(new, flags, FILE_MODE), "w", encoding="utf-8") as file:  # noqa: PTH123  Path.open takes no mode
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def lock(descriptor: int) -> None:
    """Mark an open data file as being written, until it is closed or the process ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # a file system without locks: `is_active` then answers False
        return


def is_active(data: Path) -> bool:
    """Return whether some process holds the lock of a data file."""
    try:
        descriptor = os.open(data, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _stored(directory: Path) -> Iterator[Stored]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if not NAME.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
                continue
            recording = directory / entry.name
            data = _size(recording / DATA)
            if data is None:
                continue
            rest = (_size(recording / name) or 0 for name in (SUMMARY, NEW_SUMMARY))
            yield Stored(entry.name, data + sum(rest), is_active(recording / DATA))


def _size(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except OSError:
        return None
