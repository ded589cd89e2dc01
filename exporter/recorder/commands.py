"""What `gpu-node-exporter recordings` does; the command line only prints it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from exporter.recorder.clock import utc
from exporter.recorder.export import csv_lines, json_lines
from exporter.recorder.library import Recording, list_recordings, load
from exporter.recorder.model import RecordingError
from exporter.recorder.picture import draw
from exporter.recorder.store import DIRECTORY

FORMATS: Mapping[str, Callable[[Recording], Iterator[str]]] = MappingProxyType(
    {"csv": csv_lines, "jsonl": json_lines}
)
MIB = 1 << 20
HEADINGS = ("NAME", "START (UTC)", "LENGTH", "SAMPLES", "DROPPED", "SIZE", "STATE", "REASONS")


def list_text(storage: Path) -> str:
    """Return a table of all recordings, oldest first.

    Raises:
        RecordingError: they cannot be read; one line.
    """
    recordings = list_recordings(storage)
    if not recordings:
        return f"no recordings in {storage / DIRECTORY}"
    rows = [HEADINGS, *(_row(recording) for recording in recordings)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def show(storage: Path, name: str, out: Path | None) -> Iterator[str]:
    """Draw a recording as SVG: yield its lines, or write it to `out` and yield a line about that.

    Args:
        storage: The storage path of the daemon.
        name: As in the list, or `latest`.
        out: The file to write; None: none.

    Raises:
        RecordingError: there is no such recording, or a file cannot be read or written; one line.
    """
    recording = load(storage, name)
    if recording.summary is None:  # `load` has seen to it
        return
    yield from _deliver(draw(recording.summary, recording.items()), out)


def export(storage: Path, name: str, form: str, out: Path | None) -> Iterator[str]:
    """Write a recording in one of FORMATS; arguments, lines and errors as those of `show`."""
    yield from _deliver(FORMATS[form](load(storage, name)), out)


def _deliver(lines: Iterable[str], out: Path | None) -> Iterator[str]:
    if out is None:
        yield from lines
        return
    try:
        with out.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    except OSError as error:
        raise RecordingError(f"cannot write {out}: {error.strerror}") from error
    yield f"wrote {out}"


def _row(recording: Recording) -> tuple[str, ...]:
    summary, size = recording.summary, f"{recording.stored.size_bytes / MIB:.2f}MiB"
    if summary is None:
        why = recording.problem
        return (recording.path.name, "", "", "0", "", size, recording.state, _printable(why))
    return (
        recording.path.name,
        utc(summary.start),
        f"{summary.seconds:.0f}s",
        str(summary.samples),
        str(summary.dropped),
        size,
        recording.state,
        _printable(", ".join(summary.reasons)),
    )


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
