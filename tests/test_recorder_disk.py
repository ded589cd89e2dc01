"""Recordings on disk: bounds, full and broken disks, and a daemon that is killed."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from recorded_node import Flight, TakeOff, flights, recording_config, samples_of

from exporter.recorder import store
from exporter.recorder.library import list_recordings, load
from exporter.recorder.store import Bounds
from exporter.recorder.summary import from_json


@pytest.fixture
def take_off(tmp_path: Path) -> Iterator[TakeOff]:
    """Give what makes a Flight below tmp_path."""
    with flights(tmp_path) as begin:
        yield begin


@contextmanager
def little_room(path: Path, kibibytes: int) -> Iterator[None]:
    """Let no file below path grow further than this: on a tmpfs, or by RLIMIT_FSIZE."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(path)]
    if (
        os.geteuid() == 0
        and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    ):
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(path)], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kibibytes * 1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def one_recording(node: Flight, rule: str = "GpuMemoryHigh", seconds: int = 3) -> None:
    """Have a rule fire and end."""
    node.tick(node.firing(rule))
    for _ in range(seconds):
        node.tick()
    node.tick(node.resolved(rule))


def names(storage: Path) -> list[str]:
    """Return the recordings' names, oldest first."""
    return [recording.path.name for recording in list_recordings(storage)]


def test_names_and_modes(take_off: TakeOff, tmp_path: Path) -> None:
    """A recording is called by UTC time and rule, whatever the rule is called; others stay out."""
    node = take_off()
    one_recording(node)
    one_recording(node, "../../etc/passwd\n\N{SNOWMAN}")
    assert names(tmp_path) == ["20251121T090001Z-GpuMemoryHigh", "20251121T090006Z-_etc_passwd_"]
    for recording in list_recordings(tmp_path):
        assert recording.path.stat().st_mode & 0o7777 == 0o750
        assert {f.name: f.stat().st_mode & 0o777 for f in recording.path.iterdir()} == {
            "data.jsonl.gz": 0o640,
            "summary.json": 0o640,
        }


def test_two_recordings_of_one_second_have_two_names(take_off: TakeOff, tmp_path: Path) -> None:
    """A rule that ends and fires within a second overwrites nothing."""
    node = take_off()
    node.tick(node.firing(), node.resolved(), node.firing(), node.resolved())
    assert names(tmp_path) == ["20251121T090001Z-GpuMemoryHigh", "20251121T090001Z-GpuMemoryHigh.2"]


def test_oldest_recordings_go_first(take_off: TakeOff, tmp_path: Path) -> None:
    """No more than `max_recordings` are kept, the one under way among them."""
    node = take_off(config=recording_config(max_recordings=3))
    for _ in range(5):
        one_recording(node)
    node.tick(node.firing())
    assert names(tmp_path) == [f"20251121T0900{second}Z-GpuMemoryHigh" for second in (16, 21, 26)]


def test_bytes_of_all_recordings_are_bounded(take_off: TakeOff, tmp_path: Path) -> None:
    """Old recordings make room while a new one grows; one alone ends when it is too long."""
    node = take_off(
        config=recording_config(max_bytes=60_000, duration_seconds=1e6, before_seconds=5.0)
    )
    for _ in range(10):
        one_recording(node, seconds=20)
        assert node.recorder.view().stored_bytes == sum(
            file.stat().st_size for file in tmp_path.glob("recordings/*/*")
        )
        assert sum(r.stored.size_bytes for r in list_recordings(tmp_path)) <= 60_000
    assert 1 < len(names(tmp_path)) < 10
    node.tick(node.firing("GpuSustainedLoad"))
    while node.recorder.view().active:
        node.tick()
    (last,) = list_recordings(tmp_path)
    assert last.summary is not None
    assert last.summary.ended == "max_bytes"
    assert 25_000 < last.stored.size_bytes <= 60_000


def test_recording_that_another_process_writes_is_never_removed(tmp_path: Path) -> None:
    """Whoever holds the lock is active, however old; then the next oldest goes."""
    for name in ("20200101T000000Z-A", "20210101T000000Z-B", "20220101T000000Z-C"):
        (tmp_path / name).mkdir()
        (tmp_path / name / store.DATA).write_bytes(b"x" * 100)
    descriptor = os.open(tmp_path / "20200101T000000Z-A" / store.DATA, os.O_RDONLY)
    store.lock(descriptor)
    left = store.make_room(tmp_path, Bounds(max_bytes=200, max_recordings=9))
    os.close(descriptor)
    assert store.size_of(left) == 200
    assert [one.name for one in store.stored(tmp_path)] == [
        "20200101T000000Z-A",
        "20220101T000000Z-C",
    ]


def test_files_of_others_stay(tmp_path: Path) -> None:
    """Notes inside a recording stay when it goes; other directories and links are not looked at."""
    recording = tmp_path / "20200101T000000Z-A"
    for path in (recording, tmp_path / "mine", tmp_path / "elsewhere"):
        path.mkdir()
        (path / store.DATA).write_bytes(b"x")
    (recording / "notes.txt").write_text("the fan was loud")
    (tmp_path / "20200102T000000Z-B").symlink_to(tmp_path / "elsewhere")
    store.make_room(tmp_path, Bounds(max_bytes=0, max_recordings=0))
    assert [path.name for path in recording.iterdir()] == ["notes.txt"]
    assert (tmp_path / "mine" / store.DATA).exists()
    assert (tmp_path / "elsewhere" / store.DATA).exists()


def test_full_disk_stops_the_recording_alone(
    take_off: TakeOff, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One log line, inactive, what was written stays readable; with room again it records again."""
    storage = tmp_path / "little"
    with little_room(storage, 24):
        node = take_off(config=recording_config(before_seconds=5.0), at=storage)
        node.tick(node.firing())
        for _ in range(200):
            node.tick()
        assert not node.recorder.view().active
        problems = [record.message for record in caplog.records if record.levelname == "ERROR"]
        assert len(problems) == 1
        assert problems[0].startswith("recording 20251121T090001Z-GpuMemoryHigh stopped: ")
        assert problems[0].endswith(("No space left on device", "File too large"))
        recording = node.only()
        assert recording.state == "truncated"
        assert [s.number for s in samples_of(recording)] == list(range(len(samples_of(recording))))
        assert len(samples_of(recording)) > 10
        store.remove(recording.path)
        one_recording(node)
        assert node.only().state == "complete"


def test_disk_that_is_full_from_the_start_is_left_clean(
    take_off: TakeOff, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A recording of which not one sample fits leaves no directory; each event is told once."""
    storage = tmp_path / "little"
    with little_room(storage, 4):
        node = take_off("h100x8", at=storage)
        for _ in range(2):
            node.tick(node.firing())
            node.tick()
            assert not node.recorder.view().active
        assert list_recordings(storage) == []
        assert list((storage / "recordings").iterdir()) == []
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 2


@pytest.mark.parametrize("place", ["file in the way", "/sys/kernel"])
def test_storage_that_cannot_be_written_costs_only_the_recording(
    place: str, take_off: TakeOff, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No directory can be made: one line an event, the ticks go on, nothing is active."""
    storage = Path(place) if place.startswith("/") else tmp_path / "file"
    if storage.parent == tmp_path:
        storage.write_text("")
    node = take_off(at=storage)
    node.tick(node.firing())
    node.tick()
    assert not node.recorder.view().active
    told = [record.message for record in caplog.records if "GpuMemoryHigh" in record.message]
    assert len(told) == 1
    assert str(storage) in told[0]


def test_vanished_directory_stops_the_recording(
    take_off: TakeOff, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody removes all recordings at once: one line, and the next event makes them anew."""
    node = take_off()
    node.tick(node.firing())
    node.tick()
    recording = node.only().path
    store.remove(recording)
    recording.parent.rmdir()
    node.tick()
    node.tick()
    assert not node.recorder.view().active
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        f"recording {recording.name} stopped: it was removed"
    ]
    one_recording(node)
    assert node.only().state == "complete"


def test_unexpected_fault_stops_the_recording_and_not_the_recorder(
    take_off: TakeOff, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake of ours is told with its traceback; the next event is recorded again."""
    node = take_off()
    node.tick(node.firing())
    with monkeypatch.context() as broken:
        broken.setattr("exporter.recorder.tape.pack", lambda frame: frame["no such key"])
        node.tick()
    node.tick()
    assert not node.recorder.view().active
    assert "unexpected KeyError" in caplog.text
    one_recording(node)
    assert [recording.state for recording in list_recordings(node.storage)] == [
        "truncated",
        "complete",
    ]


def test_summary_is_the_one_that_the_data_gives(take_off: TakeOff, tmp_path: Path) -> None:
    """summary.json says what reading the data says; without it, or with a bad one, that is read."""
    node = take_off()
    one_recording(node, seconds=70)
    path = node.only().path / store.SUMMARY
    written = from_json(path)
    assert written is not None
    path.unlink()
    assert load(tmp_path, "latest").summary == written
    for bad in ("", "[]", "{}", '{"version": 1}', '{"version": 2}', "[" * 100_000):
        path.write_text(bad)
        assert load(tmp_path, "latest").summary == written
    (gpu,) = written.gpus
    loads = [
        sample.values[next(s for s in sample.values if s.metric == "gpu_utilization_ratio")]
        for sample in samples_of(node.only())
    ]
    numbers = gpu.metrics["gpu_utilization_ratio"]
    assert (numbers.minimum, numbers.maximum) == (min(loads), max(loads))
    assert numbers.mean == pytest.approx(sum(loads) / len(loads))
    assert gpu.name == "Tesla T4"


def test_data_is_synced_now_and_then_and_at_the_end(
    take_off: TakeOff, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most one sync in 5 s while recording; at the end file, summary and directory."""
    synced: list[int] = []
    seconds = [0.0]
    monkeypatch.setattr("os.fsync", synced.append)
    monkeypatch.setattr("exporter.recorder.tape.monotonic", lambda: seconds[0])
    node = take_off()
    node.tick(node.firing())
    for second in range(1, 13):
        seconds[0] = float(second)
        node.tick()
    assert len(synced) == 2
    node.tick(node.resolved())
    assert len(synced) == 5


@pytest.mark.slow
def test_killed_daemon_leaves_recordings_that_lack_at_most_a_second(tmp_path: Path) -> None:
    """Twenty times SIGKILL at any moment: all that was written before the last tick is there."""
    child = Path(__file__).with_name("recorder_killed.py")
    done = subprocess.run(
        [sys.executable, str(child), str(tmp_path), "20"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lives) == 20
    seen = set()
    for life in lives:
        found = list_recordings(Path(life["storage"]))
        samples = samples_of(found[0]) if found else []
        assert len(samples) in (life["written"], life["written"] + 1) or life["written"] == 0
        assert [sample.number for sample in samples] == list(range(len(samples)))
        assert len({sample.at for sample in samples}) == len(samples)
        seen |= {recording.state for recording in found}
        for recording in found:
            assert recording.state in ("truncated", "empty", "complete")
    assert "truncated" in seen
