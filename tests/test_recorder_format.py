"""The file of a recording: what goes in comes out, and damage never makes anything up."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_node import Flight, items_of

from exporter.catalogue import CATALOGUE
from exporter.gpu.clocks import Clocks
from exporter.gpu.identity import Identity
from exporter.gpu.memory import Memory
from exporter.gpu.nvlinks import NvLinks
from exporter.gpu.power import Power
from exporter.host.memory import Memory as HostMemory
from exporter.metric import Metric
from exporter.recorder.decode import MOST_FRAME_BYTES, Decoder, read
from exporter.recorder.encode import HEADER_EVERY, Encoder, pack, recorded
from exporter.recorder.model import End, Header, Mark, RecordingError, Sample, Series
from exporter.recorder.ring import Seen
from exporter.sampling import Fault
from exporter.snapshot import Build, Gpu, Host, Reload, Snapshot

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
NUMBERS = st.none() | st.floats() | st.integers(-(2**70), 2**70)
VECTOR = st.dictionaries(TEXT, NUMBERS, max_size=3)
TWO_LABELS = st.dictionaries(st.tuples(TEXT, TEXT), NUMBERS, max_size=3)


@st.composite
def gpus(draw: st.DrawFn, index: int) -> Gpu:
    """Draw a GPU with any numbers, any labels, and any part missing."""
    return Gpu(
        index=index,
        uuid=draw(TEXT),
        fault=draw(st.none() | st.sampled_from(Fault)),
        identity=draw(st.none() | st.builds(Identity, *[TEXT] * 6)),
        memory=draw(st.none() | st.builds(Memory, *[st.none() | st.integers(1, 2**64)] * 4)),
        power=draw(st.none() | st.builds(Power, NUMBERS, NUMBERS)),
        clocks=draw(st.none() | st.builds(Clocks, VECTOR, VECTOR, VECTOR)),
        nvlinks=draw(st.none() | st.builds(NvLinks, *[VECTOR] * 4, *[TWO_LABELS] * 2, VECTOR)),
    )


@st.composite
def flights(draw: st.DrawFn) -> list[Snapshot]:
    """Draw snapshots that follow each other; GPUs come and go, and keep some of their parts."""
    snapshots: list[Snapshot] = []
    for second in range(draw(st.integers(1, 5))):
        before = snapshots[-1].gpus if snapshots else ()
        boards = [
            before[index] if index < len(before) and draw(st.booleans()) else draw(gpus(index))
            for index in range(draw(st.integers(0, 2)))
        ]
        host = draw(
            st.none()
            | st.builds(
                Host, memory=st.none() | st.builds(HostMemory, *[st.integers(1, 2**60)] * 4)
            )
        )
        snapshots.append(snapshot_of(second, *boards, host=host))
    return snapshots


def snapshot_of(second: float, *boards: Gpu, host: Host | None = None) -> Snapshot:
    """Return a snapshot with these GPUs."""
    return Snapshot(
        taken_at=second,
        now=second,
        stale_after_seconds=10.0,
        build=Build("1.0.0", "3.10", simulated=True),
        reload=Reload(successful=True, success_timestamp_seconds=1.5e9),
        gpus=boards,
        host=host,
    )


def meaning(snapshot: Snapshot) -> dict[Series, float]:
    """Return what is to be recorded of a snapshot, straight from the catalogue."""
    values: dict[Series, float] = {}
    for table in recorded(CATALOGUE):
        for labels, thing in table.rows(snapshot):
            owner = tuple(zip(table.labels, labels, strict=True))
            for row in table.metrics:
                names: tuple[str, ...] = ()
                numbers: Mapping[Any, float | None]
                if isinstance(row, Metric):
                    numbers = {(): row.value(thing)}
                else:
                    numbers, names = row.values(thing), row.labels
                for own, value in numbers.items():
                    if value is not None and math.isfinite(value):
                        texts = (own,) if isinstance(own, str) else own
                        pairs = zip(names, texts, strict=True)
                        values[Series(row.name, (*owner, *pairs))] = value
    return values


def written(snapshots: list[Snapshot]) -> bytes:
    """Return the file of these snapshots."""
    encoder = Encoder("node-7", 1.0)
    return b"".join(
        pack(frame)
        for number, snapshot in enumerate(snapshots)
        for frame in encoder.sample(Seen(1e9 + number, snapshot), dropped=number)
    )


def samples_in(data: bytes) -> list[Sample]:
    """Return the samples that reading gives."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        path.write_bytes(data)
        return [item for item in items_of(path) if isinstance(item, Sample)]


@settings(max_examples=60, deadline=None)
@given(flights())
def test_every_value_survives(snapshots: list[Snapshot]) -> None:
    """Names, labels and numbers are those of the catalogue; what was absent is absent."""
    samples = samples_in(written(snapshots))
    assert [dict(sample.values) for sample in samples] == [meaning(s) for s in snapshots]
    assert [sample.at for sample in samples] == [1e9 + n for n in range(len(snapshots))]
    assert [sample.dropped for sample in samples] == list(range(len(snapshots)))


@cache
def flight() -> tuple[bytes, tuple[Sample, ...]]:
    """Return a real file with three headers and two marks, and its samples."""
    with TemporaryDirectory() as folder:
        node = Flight(Path(folder))
        node.tick(node.firing())
        for _ in range(2 * HEADER_EVERY + 5):
            node.tick()
        node.tick(node.resolved())
        node.recorder.close()
        data = (node.only().path / "data.jsonl.gz").read_bytes()
    return data, tuple(samples_in(data))


def test_file_is_json_lines_in_gzip() -> None:
    """Any gzip and any JSON reader can read it; every frame says what it is."""
    data, samples = flight()
    frames = [json.loads(line) for line in gzip.decompress(data).splitlines()]
    kinds = [frame["frame"] for frame in frames]
    assert kinds[:3] == ["header", "sample", "mark"]
    assert kinds[-2:] == ["mark", "end"]
    assert kinds.count("sample") == len(samples) == 2 * HEADER_EVERY + 7
    assert kinds.count("header") == 3
    about = frames[1]["metrics"]["gpu_clock_hertz"]
    assert about == {"kind": "gauge", "unit": "hertz", "labels": ["gpu", "uuid", "domain"]}


def test_file_that_is_torn_off_gives_all_whole_frames() -> None:
    """Cut anywhere: exactly the samples before the cut are there, with their values."""
    data, samples = flight()
    ends, rest, position = [], data, 0
    while rest:
        member = zlib.decompressobj(31)
        frame = json.loads(member.decompress(rest))
        position, rest = len(data) - len(member.unused_data), member.unused_data
        if frame["frame"] == "sample":
            ends.append(position)
    assert len(ends) == len(samples)
    for cut in [*range(ends[-2], len(data), 3), *range(0, ends[2], 41)]:
        expected = samples[: sum(end <= cut for end in ends)]
        assert samples_in(data[:cut]) == list(expected)


PLACES = st.floats(0, 1, exclude_max=True)
DAMAGE = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), PLACES, st.integers(0, 7)),
        st.tuples(st.just("cut"), PLACES, st.integers(1, 3000)),
        st.tuples(st.just("zero"), PLACES, st.integers(1, 3000)),
        st.tuples(st.just("repeat"), PLACES, st.integers(1, 3000)),
        st.tuples(st.just("insert"), PLACES, st.binary(min_size=1, max_size=50)),
    ),
    min_size=1,
    max_size=4,
)


def damaged(data: bytes, damage: list[tuple[str, float, int | bytes]]) -> bytes:
    """Return a file after something has happened to it."""
    for kind, place, how in damage:
        at = int(place * len(data))
        if isinstance(how, bytes):
            data = data[:at] + how + data[at:]
        elif kind == "flip":
            data = data[:at] + bytes([data[at] ^ 1 << how]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at] + data[at + how :]
        elif kind == "zero":
            data = data[:at] + bytes(len(data[at : at + how])) + data[at + how :]
        else:
            data = data[: at + how] + data[at:]
        data = data or b"\0"
    return data


@settings(max_examples=150, deadline=None)
@given(DAMAGE)
def test_damage_makes_nothing_up(damage: list[tuple[str, float, int | bytes]]) -> None:
    """Whatever happens to the bytes, every sample that is read is one that was written."""
    data, samples = flight()
    for sample in samples_in(damaged(data, damage)):
        assert sample == samples[sample.number]


def test_damage_costs_no_more_than_up_to_the_next_header() -> None:
    """A flipped bit loses the frames from there to the next header, and is counted once."""
    data, samples = flight()
    decoder = Decoder()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        path.write_bytes(damaged(data, [("flip", 0.55, 3)]))
        left = [item.number for item in read(path, decoder) if isinstance(item, Sample)]
    lost = sorted(set(range(len(samples))) - set(left))
    assert lost == list(range(lost[0], 2 * HEADER_EVERY))
    assert lost[0] > HEADER_EVERY
    assert decoder.damaged == 1


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300) | st.binary(max_size=300).map(gzip.compress))
def test_any_bytes_can_be_read(data: bytes) -> None:
    """Bytes that never were a recording give no sample and no fault."""
    assert samples_in(data) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 4), st.data())
def test_frames_with_other_content_are_refused_or_read(position: int, data: st.DataObject) -> None:
    """Frames whose sums are right and whose content is absurd give finite numbers or nothing."""
    lines = gzip.decompress(flight()[0]).splitlines()
    frame = json.loads(lines[position])
    frame[data.draw(st.sampled_from(sorted(frame)))] = data.draw(JSON)
    lines[position] = json.dumps(frame).encode()
    body = b"".join(gzip.compress(line + b"\n", mtime=0) for line in lines[:8])
    try:
        samples = samples_in(body)
    except RecordingError:  # the version was what changed
        return
    for sample in samples:
        assert all(map(math.isfinite, (sample.at, sample.elapsed_seconds, *sample.values.values())))


def test_bomb_is_skipped(tmp_path: Path) -> None:
    """A frame that unpacks to more than any frame is damage; what stands around it is read."""
    data, samples = flight()
    bomb = gzip.compress(b" " * (2 * MOST_FRAME_BYTES), mtime=0)
    path = tmp_path / "data"
    path.write_bytes(data + bomb + data)
    decoder = Decoder()
    found = [item for item in read(path, decoder) if isinstance(item, Sample)]
    assert found == [*samples, *samples]
    assert decoder.damaged == 1


def test_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    """A version that this reader does not know is an error in one line, not a guess."""
    frame = json.loads(gzip.decompress(flight()[0]).splitlines()[0])
    (tmp_path / "data").write_bytes(pack({**frame, "version": 2}))
    with pytest.raises(RecordingError, match=r"version 2 is not known here \(only 1\)"):
        items_of(tmp_path / "data")


def test_reader_passes_over_what_it_does_not_know(tmp_path: Path) -> None:
    """Frames and keys of later exporters do not disturb: the format may grow."""
    lines = [json.loads(line) for line in gzip.decompress(flight()[0]).splitlines()]
    grown = [{**line, "later": [1]} for line in lines]
    grown.insert(2, {"frame": "processes", "pids": [1, 2]})
    (tmp_path / "data").write_bytes(b"".join(map(pack, grown)))
    items = items_of(tmp_path / "data")
    assert tuple(item for item in items if isinstance(item, Sample)) == flight()[1]


def test_new_series_and_gpus_find_their_columns() -> None:
    """A series that appears late, and GPUs that change places, are told apart by their labels."""
    first = Gpu(0, "GPU-a", power=Power(1.0, 2.0))
    late = replace(first, memory=Memory(4, 2, 2, 0))
    other = Gpu(0, "GPU-b", power=Power(9.0, None))
    snapshots = [
        snapshot_of(0, first),
        snapshot_of(1, late),
        snapshot_of(2, other, replace(late, index=1)),
        snapshot_of(3),
        snapshot_of(4, late),
    ]
    samples = samples_in(written(snapshots))
    assert [dict(sample.values) for sample in samples] == [meaning(s) for s in snapshots]


def test_items_come_in_order() -> None:
    """A recording begins with its header, and tells of events where they happened."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        path.write_bytes(flight()[0])
        header, sample, fired, *_, resolved, end = items_of(path)
    assert isinstance(header, Header)
    assert (header.node, header.simulated, header.gpus[0].name) == ("node-7", True, "Tesla T4")
    assert isinstance(sample, Sample)
    assert isinstance(fired, Mark)
    assert (fired.kind, fired.reason, fired.elapsed_seconds) == ("firing", "GpuMemoryHigh is", 0)
    assert isinstance(resolved, Mark)
    assert resolved.elapsed_seconds == 2 * HEADER_EVERY + 6
    assert end == End("resolved", 0)
