"""A recording as a table or as JSON, for programs; one sample at a time, whatever its length."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict

from exporter.recorder.clock import iso
from exporter.recorder.library import Recording
from exporter.recorder.model import Mark, Sample, Series

GPU_LABELS = ("gpu", "uuid")

Owner = tuple[str, str]
NODE: Owner = ("", "")


def csv_lines(recording: Recording) -> Iterator[str]:
    """Yield a header, and for each sample a line per GPU and one for the node (gpu is empty).

    A value that was not there is an empty field. Raises RecordingError as `decode.read` does.
    """
    names = _Names()
    columns: dict[str, None] = {}
    for item in recording.items():
        if isinstance(item, Sample):
            for values in names.by_owner(item).values():
                columns.update(dict.fromkeys(values))
    yield _csv(["time", "elapsed_seconds", *GPU_LABELS, *columns])
    for item in recording.items():
        if isinstance(item, Sample):
            at, elapsed = iso(item.at), str(item.elapsed_seconds)
            for owner, values in names.by_owner(item).items():
                numbers = (values.get(column) for column in columns)
                fields = ("" if number is None else repr(number) for number in numbers)
                yield _csv([at, elapsed, *owner, *fields])


def json_lines(recording: Recording) -> Iterator[str]:
    """Yield an object per sample, with `gpus` and `node`, and one per event.

    A value that was not there is left out. Raises RecordingError as `decode.read` does.
    """
    names = _Names()
    for item in recording.items():
        if isinstance(item, Mark):
            yield json.dumps({"time": iso(item.at), "event": asdict(item)})
        elif isinstance(item, Sample):
            owned = names.by_owner(item)
            node = owned.pop(NODE, {})
            gpus = [{"gpu": gpu, "uuid": uuid, **v} for (gpu, uuid), v in owned.items()]
            yield json.dumps(
                {
                    "time": iso(item.at),
                    "elapsed_seconds": item.elapsed_seconds,
                    "dropped": item.dropped,
                    "gpus": gpus,
                    "node": node,
                }
            )


def column_of(series: Series) -> str:
    """Return a series' name without the labels of its GPU: `gpu_clock_hertz{domain="sm"}`."""
    own = ",".join(
        f"{name}={json.dumps(value)}" for name, value in series.labels if name not in GPU_LABELS
    )
    return f"{series.metric}{{{own}}}" if own else series.metric


class _Names:
    """Remembers whose each series is, and which column: most come with every sample."""

    def __init__(self) -> None:
        self._names: dict[Series, tuple[Owner, str]] = {}

    def by_owner(self, sample: Sample) -> dict[Owner, dict[str, float]]:
        """Return the values of each GPU and of the node, by column."""
        owned: dict[Owner, dict[str, float]] = {}
        for series, value in sample.values.items():
            name = self._names.get(series)
            if name is None:
                name = self._names[series] = (_owner(series.labels), column_of(series))
            owner, column = name
            owned.setdefault(owner, {})[column] = value
        return owned


def _owner(labels: tuple[tuple[str, str], ...]) -> Owner:
    if len(labels) > 1 and (labels[0][0], labels[1][0]) == GPU_LABELS:
        return labels[0][1], labels[1][1]
    return NODE


def _csv(fields: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()
