"""File -> frames -> what a recording is made of. Whatever the bytes are, nothing is made up.

A frame that is damaged is left out, and so are the samples after it up to the next header, because
each builds on the one before.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from exporter.gzips import GZIP
from exporter.recorder.checks import count_from, mark_from, number_from, text_from
from exporter.recorder.encode import Frame
from exporter.recorder.model import (
    FORMAT,
    VERSION,
    End,
    GpuName,
    Header,
    Item,
    MetricInfo,
    RecordingError,
    Sample,
    Series,
)

MAGIC = bytes.fromhex("1f8b0800000000")  # a gzip member as zlib begins it
CHUNK_BYTES = 1 << 15
MOST_FRAME_BYTES = 1 << 22  # a header and first sample of eight B200 are 0.3 MiB
MOST_SERIES = 200_000
MOST_DAMAGE = 1000  # then the rest of the file is not looked at


class Decoder:
    """Follows the frames of one recording.

    Attributes:
        damaged: How many places were unreadable.
        metrics: What the metrics are that were seen since the last header.
    """

    def __init__(self) -> None:
        self.damaged = 0
        self.metrics: dict[str, MetricInfo] = {}
        self._columns: list[Series] = []
        self._values: dict[Series, float] = {}
        self._block: int | None = None  # the header's; None: samples are of no use
        self._next: int | None = None  # number of the next sample; None: any

    def item(self, frame: Frame) -> Item | None:
        """Return what a frame says; None if it is of no use to this version, or damaged.

        Raises:
            RecordingError: a version that this reader does not know.
        """
        try:
            return self._item(frame)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError):
            self.lose()
            return None

    def lose(self) -> None:
        """Count a frame that is gone; what follows does not fit on any more."""
        self.damaged += 1
        self._block = None

    def _item(self, frame: Frame) -> Item | None:
        kind = frame["frame"]
        if kind == "sample":
            return self._sample(frame)
        if kind == "header":
            return self._header(frame)
        if kind == "mark":
            return mark_from(frame)
        return End(text_from(frame["why"]), count_from(frame["dropped"])) if kind == "end" else None

    def _header(self, frame: Frame) -> Header:
        if frame["format"] != FORMAT:
            raise ValueError
        if frame["version"] != VERSION:
            raise RecordingError(
                f"format version {frame['version']!r:.20} is not known here (only {VERSION}); "
                "read it with the exporter that wrote it"
            )
        block = count_from(frame["block"])
        header = Header(
            node=text_from(frame["node"]),
            exporter=text_from(frame["exporter"]),
            driver=text_from(frame["driver"]),
            simulated=frame["simulated"] is True,
            interval_seconds=number_from(frame["interval_seconds"]),
            gpus=tuple(
                GpuName(text_from(gpu["gpu"]), text_from(gpu["uuid"]), text_from(gpu["name"]))
                for gpu in frame["gpus"]
            ),
        )
        self.metrics, self._columns, self._values = {}, [], {}
        self._block, self._next = block, None
        return header

    def _sample(self, frame: Frame) -> Sample | None:
        number, block = count_from(frame["n"]), count_from(frame["block"])
        if self._block is None:
            return None
        if block != self._block or self._next not in (None, number):
            raise ValueError
        for name, about in frame.get("metrics", {}).items():
            labels = tuple(text_from(label) for label in about["labels"])
            self.metrics[name] = MetricInfo(
                text_from(about["kind"]), text_from(about["unit"]), labels
            )
        for metric, *values in frame.get("series", ()):
            labels = self.metrics[metric].labels
            pairs = zip(labels, map(text_from, values), strict=True)
            self._columns.append(Series(metric, tuple(pairs)))
        if len(self._columns) > MOST_SERIES:
            raise ValueError
        for column, value in zip(frame.get("columns", ()), frame.get("values", ()), strict=True):
            series = self._columns[count_from(column)]
            if value is None:
                self._values.pop(series, None)
            else:
                self._values[series] = number_from(value)
        sample = Sample(
            number=number,
            at=number_from(frame["at"]),
            elapsed_seconds=number_from(frame["elapsed_seconds"]),
            dropped=count_from(frame["dropped"]),
            values=dict(self._values),
        )
        self._next = number + 1
        return sample


def read(path: Path, decoder: Decoder) -> Iterator[Item]:
    """Yield what a data file holds, up to its end or to where it was torn off.

    Raises:
        RecordingError: the file cannot be read, or is of an unknown version.
    """
    try:
        with path.open("rb") as file:
            for frame in _frames(file, decoder):
                item = decoder.item(frame)
                if item is not None:
                    yield item
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from error


def _frames(file: BinaryIO, decoder: Decoder) -> Iterator[Frame]:
    buffer, ended = b"", False
    while True:
        member = zlib.decompressobj(GZIP)
        try:
            line, hopeless = member.decompress(buffer, MOST_FRAME_BYTES), False
        except zlib.error:
            line, hopeless = b"", True
        if member.eof:
            buffer = member.unused_data
            frame = _parse(line)
            if frame is None:
                decoder.lose()
            else:
                yield frame
        elif not (hopeless or ended or member.unconsumed_tail or len(buffer) > MOST_FRAME_BYTES):
            more = file.read(max(CHUNK_BYTES, len(buffer)))
            buffer, ended = buffer + more, not more
        else:
            torn_off = ended and not hopeless and buffer.find(MAGIC, 1) < 0
            if torn_off:
                return
            decoder.lose()
            buffer = _skip(buffer, file)
            if not buffer or decoder.damaged >= MOST_DAMAGE:
                return


def _skip(buffer: bytes, file: BinaryIO) -> bytes:
    """Return the rest of the file from the next place on where a frame may begin."""
    begin = buffer.find(MAGIC, 1)
    while begin < 0:
        more = file.read(CHUNK_BYTES)
        if not more:
            return b""
        buffer = buffer[1 - len(MAGIC) :] + more
        begin = buffer.find(MAGIC)
    return buffer[begin:]


def _parse(line: bytes) -> Frame | None:
    try:
        frame = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return frame if isinstance(frame, dict) else None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
