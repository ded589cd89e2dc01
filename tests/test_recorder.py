"""The flight recorder: when it records, what is in it, and what it shows of itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from recorded_node import (
    EPOCH,
    Node,
    TakeOff,
    flights,
    of_gpu,
    recording_config,
    samples_of,
)

from exporter.config import Action, Config, FlightRecorder
from exporter.recorder import flight
from exporter.recorder.flight import settings
from exporter.recorder.library import list_recordings
from exporter.recorder.ring import MOST_SNAPSHOTS, Ring, Seen
from exporter.recorder.tape import Tape
from exporter.recorder_view import METRICS, RecorderView
from exporter.sampling import Fault
from exporter.scaleout.model import EventKind


@pytest.fixture
def take_off(tmp_path: Path) -> Iterator[TakeOff]:
    """Give what makes a Flight below tmp_path."""
    with flights(tmp_path) as begin:
        yield begin


def test_recording_shows_a_saturation_from_before_it_until_after_it(take_off: TakeOff) -> None:
    """A simulated surge: calm at first, 95 % for 10 s when the rule fired, calm in the end."""
    node = take_off("h100x8")
    told = [e for e in node.fly(140) if e.rule == "GpuSustainedLoad"]
    fired = told[0]
    recording = node.only()
    samples = samples_of(recording)
    series = of_gpu(node.tick(), int(fired.series[0].gpu), "gpu_utilization_ratio")
    load = {sample.at: sample.values[series] for sample in samples}
    assert samples[0].at < fired.started_at - 10
    assert load[samples[0].at] < 0.85
    assert all(load[fired.started_at + second] >= 0.95 for second in range(11))
    assert load[samples[-1].at] < 0.85
    assert {
        after.elapsed_seconds - before.elapsed_seconds for before, after in pairwise(samples)
    } == {1}
    assert told[-1].kind is EventKind.RESOLVED
    assert recording.state == "complete"
    assert recording.summary is not None
    assert recording.summary.ended == "resolved"
    assert recording.summary.reasons == ("GpuMemoryHigh", "GpuSustainedLoad")


def test_recording_has_the_memory_of_each_process(take_off: TakeOff) -> None:
    """Who filled the GPU's memory can be told afterwards: each process, each workload."""
    flight = take_off("l40s")
    for _ in range(3):
        flight.tick()
    flight.tick(flight.firing())
    flight.recorder.close()
    last = samples_of(flight.only())[-1].values
    of_process = {
        dict(series.labels)["process"]
        for series in last
        if series.metric == "gpu_process_memory_used_bytes"
    }
    assert of_process == {"VLLM::EngineCore"}
    used = [
        value for series, value in last.items() if series.metric == "gpu_workload_memory_used_bytes"
    ]
    assert len(used) == 4
    assert min(used) > 1 << 30


def test_ring_comes_first(take_off: TakeOff) -> None:
    """A recording holds the seconds before its event that `before` asks for, and that tick."""
    node = take_off(config=recording_config(before_seconds=7.0))
    for _ in range(20):
        node.tick()
    node.tick(node.firing())
    samples = samples_of(node.only())
    assert [sample.at - node.wall for sample in samples] == [-7, -6, -5, -4, -3, -2, -1, 0]


def test_ring_is_bounded_by_age_and_by_count() -> None:
    """It forgets what is older than asked for, and never holds more than a fixed number."""
    node = Node("t4")
    ring = Ring(3.0)
    for at in range(10):
        ring.add(Seen(at, node.tick()))
    assert [seen.at for seen in ring.all()] == [6, 7, 8, 9]
    ring = Ring(1e9)
    snapshot = node.tick()
    for at in range(MOST_SNAPSHOTS + 5):
        ring.add(Seen(at, snapshot))
    assert len(ring.all()) == MOST_SNAPSHOTS


def test_recording_ends_when_its_rule_does(take_off: TakeOff) -> None:
    """RESOLVED of the rule that began it closes it with that tick's sample; then it is idle."""
    node = take_off()
    node.tick(node.firing())
    assert node.recorder.view().active
    node.tick(node.resolved("GpuSustainedLoad"))
    assert node.recorder.view().active
    node.tick(node.resolved())
    assert not node.recorder.view().active
    node.tick()
    assert [sample.at - EPOCH for sample in samples_of(node.only())] == [1, 2, 3]


def test_recording_ends_after_its_duration(take_off: TakeOff, tmp_path: Path) -> None:
    """A rule that never ends is recorded for `duration`; it may begin another one afterwards."""
    node = take_off(config=recording_config(duration_seconds=10.0, before_seconds=0.0))
    node.tick(node.firing())
    for _ in range(15):
        node.tick()
    recording = node.only()
    assert recording.summary is not None
    assert (recording.summary.ended, recording.summary.seconds) == ("duration", 10)
    node.tick(node.firing())
    assert [recording.state for recording in list_recordings(tmp_path)] == ["complete", "recording"]


def test_second_rule_joins_and_prolongs_once(take_off: TakeOff) -> None:
    """It adds its reason, keeps the recording open, and moves its end; firing again does not."""
    node = take_off(config=recording_config(duration_seconds=10.0, before_seconds=0.0))
    node.tick(node.firing())
    for _ in range(5):
        node.tick()
    node.tick(node.firing("GpuSustainedLoad"), node.resolved())
    for _ in range(4):
        node.tick()
    node.tick(node.firing("GpuSustainedLoad"), node.firing())
    for _ in range(15):
        node.tick()
    summary = node.only().summary
    assert summary is not None
    assert summary.reasons == ("GpuMemoryHigh", "GpuSustainedLoad")
    assert (summary.ended, summary.seconds) == ("duration", 16)
    assert [(mark.rule, mark.kind, mark.elapsed_seconds) for mark in summary.marks] == [
        ("GpuMemoryHigh", "firing", 0),
        ("GpuSustainedLoad", "firing", 6),
        ("GpuMemoryHigh", "resolved", 6),
        ("GpuSustainedLoad", "firing", 11),
        ("GpuMemoryHigh", "firing", 11),
    ]


def test_rule_without_a_flight_recorder_records_nothing(take_off: TakeOff, tmp_path: Path) -> None:
    """Only actions with `flight_recorder` begin recordings; the others leave no trace."""
    node = take_off()
    node.tick(replace(node.firing(), actions=("scale-out",)))
    assert not node.recorder.view().active
    assert list_recordings(tmp_path) == []


def test_interval_is_rounded_up_to_ticks(take_off: TakeOff) -> None:
    """With ticks of 1 s, an interval of 1.5 s gives a sample every 2 s, in the ring too."""
    node = take_off(config=recording_config(interval_seconds=1.5, before_seconds=6.0))
    for _ in range(10):
        node.tick()
    node.tick(node.firing())
    for _ in range(6):
        node.tick()
    assert [s.at - EPOCH for s in samples_of(node.only())] == [4, 6, 8, 10, 11, 13, 15, 17]


def test_request_from_another_thread_records_until_it_is_withdrawn(take_off: TakeOff) -> None:
    """`start` and `stop` may come from any thread; what is asked for is counted as a request."""
    node = take_off()
    node.tick()

    def elsewhere(call: threading.Thread) -> None:
        call.start()
        call.join()

    elsewhere(
        threading.Thread(
            target=node.recorder.start, args=("InferenceSlow", "record", "firing in Alertmanager")
        )
    )
    node.tick()
    node.tick()
    assert node.recorder.view().active
    elsewhere(threading.Thread(target=node.recorder.stop, args=("InferenceSlow",)))
    node.tick()
    summary = node.only().summary
    assert summary is not None
    assert (summary.reasons, summary.ended, summary.samples) == (("InferenceSlow",), "withdrawn", 4)
    assert summary.marks[0].reason == "firing in Alertmanager"
    assert node.recorder.view().recordings == {
        "GpuMemoryHigh": 0,
        "GpuSustainedLoad": 0,
        "request": 1,
    }


def test_stop_of_a_request_leaves_a_firing_rule_its_recording(take_off: TakeOff) -> None:
    """A recording goes on while anybody still needs it."""
    node = take_off()
    node.recorder.start("InferenceSlow")
    node.tick()
    node.tick(node.firing())
    node.recorder.stop("InferenceSlow")
    node.tick()
    assert node.recorder.view().active
    node.tick(node.resolved())
    assert not node.recorder.view().active


def test_flood_of_requests_is_bounded(take_off: TakeOff) -> None:
    """However many names ask for a recording, they prolong it once, and their marks are few."""
    node = take_off(config=recording_config(duration_seconds=5.0))
    for second in range(8):
        for number in range(300):
            node.recorder.start(f"alert {second} {number} " + "x" * 10_000)
        node.tick()
        if second < 5:
            assert node.recorder.view().active
    first, second_one = list_recordings(node.storage)
    assert first.summary is not None
    assert (first.summary.ended, first.summary.seconds) == ("duration", 5)
    assert len(first.summary.marks) == flight.MOST_MARKS
    assert first.stored.size_bytes < 300_000
    assert second_one.stored.active


def test_event_before_the_first_tick_waits_for_it(take_off: TakeOff) -> None:
    """A rule restored as firing may speak before anything was read; nothing is lost."""
    node = take_off()
    node.recorder.on_event(node.firing())
    node.tick()
    assert len(samples_of(node.only())) == 1


def test_wall_clock_that_jumps_back_moves_no_end(take_off: TakeOff) -> None:
    """Durations count on the monotonic clock; samples keep their order and tell both times."""
    node = take_off(config=recording_config(duration_seconds=10.0))
    for _ in range(3):
        node.tick()
    node.tick(node.firing())
    node.wall -= 3600
    for _ in range(15):
        node.tick()
    recording = node.only()
    samples = samples_of(recording)
    assert [sample.elapsed_seconds for sample in samples] == list(range(14))
    assert samples[-1].at - samples[0].at == 13 - 3600
    assert recording.summary is not None
    assert (recording.summary.ended, recording.summary.seconds) == ("duration", 13)


def test_lost_gpu_is_absent_and_not_its_last_value(take_off: TakeOff) -> None:
    """From the tick on at which a GPU is lost, it has no readings, but gpu_up 0."""
    node = take_off("l40s")
    node.tick(node.firing())
    node.node.faults[2] = Fault.LOST
    snapshot = node.tick()
    before, after = samples_of(node.only())
    for metric in ("gpu_power_watts", "gpu_utilization_ratio", "gpu_memory_used_bytes"):
        assert of_gpu(snapshot, 2, metric) in before.values
        assert of_gpu(snapshot, 2, metric) not in after.values
        assert of_gpu(snapshot, 1, metric) in after.values
    assert after.values[of_gpu(snapshot, 2, "gpu_up")] == 0


def test_hung_disk_costs_samples_and_never_a_tick(
    take_off: TakeOff, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ticks go on while a write hangs; what did not fit is counted, told once, and in the file."""
    hang, hanging = threading.Event(), threading.Event()
    write = Tape.add

    def stuck(tape: Tape, seen: Seen, dropped: int) -> None:
        hanging.set()
        assert hang.wait(60)
        write(tape, seen, dropped)

    node = take_off()
    node.tick()
    node.tick()
    monkeypatch.setattr(Tape, "add", stuck)
    node.recorder.on_event(node.firing())
    assert hanging.wait(60)
    for second in range(flight.MOST_WAITING + 20):
        node.recorder.add(node.node.tick(), EPOCH + second)
    dropped = node.recorder.view().dropped
    assert 20 <= dropped <= 22
    assert [record.message for record in caplog.records if "keep up" in record.message] == [
        "the disk does not keep up: the recording lacks samples"
    ]
    node.recorder.on_event(node.resolved())
    node.recorder.on_event(node.firing())  # a ring more in memory would help nobody
    assert "no recording for GpuMemoryHigh" in caplog.records[-1].message
    assert not node.recorder.view().active
    hang.set()
    node.settle()
    summary = node.only().summary
    assert summary is not None
    assert summary.dropped == dropped
    assert summary.samples == 2 + flight.MOST_WAITING + 20 - dropped


def test_shutdown_closes_the_recording(take_off: TakeOff) -> None:
    """`close` leaves a complete recording with its summary, and no thread."""
    node = take_off()
    node.tick(node.firing())
    node.tick()
    node.recorder.close()
    recording = node.only()
    assert (recording.path / "summary.json").exists()
    assert recording.summary is not None
    assert recording.summary.ended == "shutdown"
    assert not [thread for thread in threading.enumerate() if thread.name == "recorder"]


def test_other_settings_hold_from_the_next_recording_on(take_off: TakeOff, tmp_path: Path) -> None:
    """After a reload the ring has its new length; a recording under way ends as it would have."""
    node = take_off(config=recording_config(before_seconds=5.0, duration_seconds=4.0))
    node.tick(node.firing())
    node.recorder.configure(settings(recording_config(before_seconds=2.0, duration_seconds=1.0)))
    for _ in range(10):
        node.tick()
    node.tick(node.firing("GpuSustainedLoad"))
    for _ in range(5):
        node.tick()
    first, second = (recording.summary for recording in list_recordings(tmp_path))
    assert first is not None
    assert second is not None
    assert (first.seconds, second.seconds) == (4, 3)


def test_rule_that_is_gone_after_a_reload_ends_its_recording(take_off: TakeOff) -> None:
    """Its end is heard although no action records any more."""
    node = take_off()
    node.tick(node.firing())
    node.recorder.configure(settings(replace(Config(), actions=())))
    node.tick(node.resolved())
    assert not node.recorder.view().active
    assert node.only().state == "complete"


def test_settings_of_several_actions() -> None:
    """Rules that record are known by name; bounds and ring are the widest of all actions."""
    config = replace(
        Config(),
        actions=(
            Action("record", FlightRecorder(max_bytes=10, max_recordings=7, before_seconds=3.0)),
            Action("long", FlightRecorder(max_bytes=99, max_recordings=2, before_seconds=1.0)),
            Action("scale-out"),
        ),
        rules=(*Config().rules, replace(Config().rules[0], alert="Other", actions=("scale-out",))),
    )
    known = settings(config)
    assert known.rules == ("GpuMemoryHigh", "GpuSustainedLoad")
    assert (known.bounds.max_bytes, known.bounds.max_recordings) == (99, 7)
    assert known.before_seconds == 3


def test_page_shows_the_recorder(take_off: TakeOff) -> None:
    """Every rule that records is born at 0; bytes are those on disk, absent before a look at it."""
    node = take_off()
    assert node.recorder.view() == RecorderView(
        active=False,
        recordings={"GpuMemoryHigh": 0, "GpuSustainedLoad": 0, "request": 0},
        dropped=0,
        stored_bytes=None,
    )
    node.tick()
    assert node.recorder.view().stored_bytes == 0
    node.tick(node.firing())
    node.tick(node.resolved())
    view = node.recorder.view()
    files = node.only().path.iterdir()
    assert view.stored_bytes == sum(file.stat().st_size for file in files)
    assert view.recordings["GpuMemoryHigh"] == 1
    assert [row.name for row in METRICS] == [
        "gpu_recorder_active",
        "gpu_recorder_recordings_total",
        "gpu_recorder_dropped_total",
        "gpu_recorder_stored_bytes",
    ]


def test_recordings_removed_by_hand_are_noticed(take_off: TakeOff) -> None:
    """Once a minute the recorder looks at what there is, also when nothing is recorded."""
    node = take_off()
    node.tick(node.firing())
    node.tick(node.resolved())
    for file in node.only().path.iterdir():
        file.unlink()
    for _ in range(61):
        node.tick()
    assert node.recorder.view().stored_bytes == 0
