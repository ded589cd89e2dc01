"""What `recordings list|show|export` give: the table, the picture, CSV and JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_node import TakeOff, flights, of_gpu, samples_of

from exporter.recorder import axis, commands, store
from exporter.recorder.clock import iso, stamp, utc
from exporter.recorder.library import load
from exporter.recorder.model import RecordingError
from exporter.recorder.traces import Trace
from exporter.sampling import Fault

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def take_off(tmp_path: Path) -> Iterator[TakeOff]:
    """Give what makes a Flight below tmp_path."""
    with flights(tmp_path) as begin:
        yield begin


def picture(storage: Path) -> ET.Element:
    """Return the picture of the latest recording, parsed."""
    text = "\n".join(commands.show(storage, "latest", None))
    return ET.fromstring(text)  # noqa: S314  our own text


def texts(svg: ET.Element) -> list[str]:
    """Return everything that is written in a picture."""
    return [element.text or "" for element in svg.iter(f"{SVG}text")]


def drawn(svg: ET.Element) -> list[str]:
    """Return the paths of all traces that have more than the legend's dash."""
    paths = (
        element.get("d", "")
        for element in svg.iter(f"{SVG}path")
        if element.get("class") == "trace"
    )
    return [path for path in paths if "h20" not in path]


def test_list_tells_of_every_recording(take_off: TakeOff, tmp_path: Path) -> None:
    """One line each: complete, torn off, under way, empty, and of a newer version."""
    node = take_off()
    node.tick(node.firing(), node.resolved())
    node.tick(node.firing())
    node.tick(node.resolved())
    torn = load(tmp_path, "latest").path
    (torn / store.SUMMARY).unlink()
    data = (torn / store.DATA).read_bytes()
    (torn / store.DATA).write_bytes(data[:-20])
    empty = torn.with_name("20250101T000000Z-Empty")
    empty.mkdir()
    (empty / store.DATA).write_bytes(b"")
    node.tick(node.firing("GpuSustainedLoad"))
    header, *lines = commands.list_text(tmp_path).splitlines()
    assert header.split() == [
        "NAME", "START", "(UTC)", "LENGTH", "SAMPLES", "DROPPED", "SIZE", "STATE", "REASONS"
    ]  # fmt: skip
    assert [line.split()[0] for line in lines] == [
        "20250101T000000Z-Empty",
        "20251121T090001Z-GpuMemoryHigh",
        "20251121T090002Z-GpuMemoryHigh",
        "20251121T090004Z-GpuSustainedLoad",
    ]
    for line, state in zip(lines, ["empty", "complete", "truncated", "recording"], strict=True):
        assert f" {state}" in line
    assert "2025-11-21 09:00:01" in lines[1]
    assert lines[1].endswith("GpuMemoryHigh")


def test_list_without_recordings(tmp_path: Path) -> None:
    """Where there are none, it says so and where it looked."""
    assert commands.list_text(tmp_path) == f"no recordings in {tmp_path}/recordings"
    (tmp_path / "recordings").write_text("")
    with pytest.raises(RecordingError, match=r"cannot read .*/recordings: Not a directory"):
        commands.list_text(tmp_path)


@pytest.mark.parametrize("name", ["none", "..", "../recordings", "/etc", "latest", ""])
def test_name_that_is_no_recording(name: str, tmp_path: Path) -> None:
    """Whatever else is asked for is an error in one line; no path leads out of the directory."""
    for lines in (
        commands.show(tmp_path, name, None),
        commands.export(tmp_path, name, "csv", None),
    ):
        with pytest.raises(RecordingError) as error:
            list(lines)
        assert "\n" not in str(error.value)


def test_picture_shows_the_event(take_off: TakeOff, tmp_path: Path) -> None:
    """Caption, legend, four panels with a line per GPU, thresholds, event and times are there."""
    node = take_off("h100x8")
    node.fly(140)
    svg = picture(tmp_path)
    written = texts(svg)
    assert written[0] == "GpuMemoryHigh, GpuSustainedLoad on node-7"
    assert written[1].startswith("gpu_memory_used_ratio >= 0.8; fired 2025-11-21 09:01:")
    assert "8 NVIDIA H100 80GB HBM3" in written[2]
    assert "These GPUs are simulated. Nothing here was measured." in written
    for text in (
        *(f"GPU {number}" for number in range(8)),
        "GPU utilization, %", "GPU memory used, %", "Temperature, °C", "Power, W",
        "80 % GpuMemoryHigh", "95 % GpuSustainedLoad", "UTC", "09:01:00",
    ):  # fmt: skip
        assert text in written
    assert any(text.startswith("GpuMemoryHigh fired 09:01:") for text in written)
    assert len(drawn(svg)) == 4 * 8
    assert len([p for p in svg.iter(f"{SVG}path") if p.get("class") == "fired"]) == 1
    assert svg.get("width") == "1200"


def test_picture_leaves_holes_where_nothing_was_read(take_off: TakeOff, tmp_path: Path) -> None:
    """A lost GPU has a hole of its own; a stopped poll is a hole for all; none is a 0."""
    node = take_off("l40s")
    node.tick(node.firing())
    for second in range(30):
        if second == 5:
            node.node.faults[2] = Fault.LOST
        if second == 10:
            node.node.clock.seconds += 20
        node.tick()
    runs = [path.count("M") for path in drawn(picture(tmp_path))]
    assert runs == [2, 2, 1, 2] * 4


def test_picture_of_a_node_without_gpu_memory(take_off: TakeOff, tmp_path: Path) -> None:
    """A panel without readings says so; the others are drawn."""
    node = take_off("gb10")
    node.tick(node.firing())
    node.tick()
    svg = picture(tmp_path)
    assert texts(svg).count("no readings") == 1
    assert len(drawn(svg)) == 3


def test_picture_of_a_node_without_gpus_and_of_one_sample(
    take_off: TakeOff, tmp_path: Path
) -> None:
    """The least there can be is still a picture."""
    node = take_off("none")
    node.tick(node.firing())
    assert texts(picture(tmp_path)).count("no readings") == 4


def test_text_cannot_break_the_picture(take_off: TakeOff, tmp_path: Path) -> None:
    """Names come from configs and other programs: they stay text, in one line, not too long."""
    node = take_off()
    evil = '</text><script>alert("x")</script>\x00\n&' + "x" * 500
    node.tick(replace(node.firing(evil), reason=evil))
    svg = picture(tmp_path)
    assert not list(svg.iter(f"{SVG}script"))
    assert texts(svg)[0].startswith('</text><script>alert("x")</script>  &xxx')
    assert all(len(text) <= 170 for text in texts(svg))


def test_long_recording_has_no_more_points_than_pixels() -> None:
    """A pixel holds the lowest and the highest of its samples, however many they are."""
    trace = Trace()
    for number in range(1_000):
        trace.add(number / 100, 5.0 if number == 555 else number % 2)
    trace.flush()
    (run,) = trace.runs
    assert len(run) == 20
    assert max(run, key=lambda point: point[1]) == (5.0, 5.0)
    assert min(value for _, value in run) == 0


def test_csv_is_a_table_by_gpu(take_off: TakeOff, tmp_path: Path) -> None:
    """A line per GPU and one for the node; numbers as recorded; absent is empty."""
    node = take_off("l40s")
    node.tick(node.firing())
    node.node.faults[1] = Fault.LOST
    snapshot = node.tick()
    rows = list(csv.DictReader(commands.export(tmp_path, "latest", "csv", None)))
    assert [row["gpu"] for row in rows] == ["0", "1", "2", "3", ""] * 2
    assert [row["time"] for row in rows[::5]] == [
        "2025-11-21T09:00:01.000Z",
        "2025-11-21T09:00:02.000Z",
    ]
    last = samples_of(node.only())[1]
    for row in rows[5:9]:
        series = of_gpu(snapshot, int(row["gpu"]), "gpu_power_watts")
        watts = last.values.get(series)
        assert row["gpu_power_watts"] == ("" if row["gpu"] == "1" else repr(watts))
        assert row["uuid"] == snapshot.gpus[int(row["gpu"])].uuid
    assert rows[0]['gpu_clock_hertz{domain="sm"}'] != ""
    assert rows[4]['gpu_devices{source="nvml"}'] == "4"


def test_json_lines_tell_samples_and_events(take_off: TakeOff, tmp_path: Path) -> None:
    """An object per sample with the GPUs' and the node's values, and one per event, in order."""
    node = take_off("l40s")
    node.tick(node.firing())
    node.tick(node.resolved())
    lines = [json.loads(line) for line in commands.export(tmp_path, "latest", "jsonl", None)]
    assert [line.get("event", {}).get("kind", "sample") for line in lines] == [
        "sample",
        "firing",
        "sample",
        "resolved",
    ]
    assert [gpu["gpu"] for gpu in lines[2]["gpus"]] == ["0", "1", "2", "3"]
    assert 0 <= lines[2]["gpus"][3]["gpu_utilization_ratio"] <= 1
    assert lines[2]["node"]['gpu_devices{source="pci"}'] == 4


@pytest.mark.parametrize("form", ["svg", "csv", "jsonl"])
def test_output_goes_to_a_file(form: str, take_off: TakeOff, tmp_path: Path) -> None:
    """With `out` the file holds what would be printed; one that cannot be written is an error."""
    node = take_off()
    node.tick(node.firing())
    out = tmp_path / "out"

    def write(to: Path | None) -> list[str]:
        if form == "svg":
            return list(commands.show(tmp_path, "latest", to))
        return list(commands.export(tmp_path, "latest", form, to))

    assert write(out) == [f"wrote {out}"]
    assert out.read_text().splitlines() == [
        line for text in write(None) for line in text.split("\n")
    ]
    with pytest.raises(RecordingError, match=r"cannot write .*/no/such: No such file or directory"):
        write(tmp_path / "no" / "such")


@given(st.floats(allow_nan=False))
def test_no_time_is_an_error(at: float) -> None:
    """Whatever a clock says has a text: before 1970 and after 9999 are the ends."""
    assert len(stamp(at)) == len("20251121T090001Z")
    assert len(utc(at)) == len("2025-11-21 09:00:01")
    assert len(iso(at)) == len("2025-11-21T09:00:01.000Z")


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9), st.floats(0.01, 1e3))
def test_axis_holds_its_values(low: float, span: float, least: float) -> None:
    """An axis reaches around what is on it, is as long as asked for, and has a few ticks."""
    bottom, top = axis.around(low, low + span, least)
    slack = 1e-6 * max(abs(bottom), abs(top), 1)
    assert bottom <= low + slack
    assert top >= low + span - slack
    assert top - bottom >= least - slack
    assert 1 <= len(axis.ticks(bottom, top, 5)) <= 6


@given(st.integers(0, 2_000_000_000), st.floats(0.1, 1e8))
def test_time_axis_has_a_few_round_ticks(start: int, span: float) -> None:
    """Between 0 and 12 of them, all within the recording."""
    ticks = list(axis.times(start, start + span))
    assert len(ticks) <= axis.MOST_TIME_TICKS + 1
    assert all(start <= at <= start + span for at, _ in ticks)
