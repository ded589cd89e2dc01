"""Buffered samples of utilization: what they add up to, and what becomes of them when all fails."""

from __future__ import annotations

import logging
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nvml_loaded import PLAN, Node
from rules_feed import engine, play, told
from sampled_driver import SECOND, sampled

from exporter import options
from exporter.board import take
from exporter.config import Config
from exporter.gpu.utilization import RATES_READER, READER, Utilization, integrated
from exporter.load_samples import LAST_CALLS, QUIET_CALLS, TOO_MANY
from exporter.options import Options
from exporter.refusals import REPROBE_SECONDS
from exporter.sampling import Fault, FoundGpu, LoadSample, Tier

SAMPLES = "nvmlDeviceGetSamples"
TENTH = SECOND // 10
DEFAULTS = Options(None, None, (), (), "/metrics", None, Path(), None, (), None, {})
# pytest's monkeypatch is put anew by each example.
PATIENT = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def full(_at: int) -> int:
    """Return the load of a GPU that is busy all the time."""
    return 100


@given(
    st.sampled_from([TENTH, SECOND // 6, SECOND // 5, SECOND // 2]),
    st.lists(st.integers(0, 100), min_size=1, max_size=40),
    st.lists(st.one_of(st.integers(SECOND // 2, 7 * SECOND), st.just(SECOND)), max_size=25),
)
@PATIENT
def test_integral_is_the_load_s_own_whatever_the_pace(
    monkeypatch: pytest.MonkeyPatch, period: int, levels: list[int], steps: list[int]
) -> None:
    """Late polls and long holes lose nothing that the buffer keeps, but a sample at each end."""
    gpu = sampled(monkeypatch, lambda at: levels[at // period % len(levels)], period)
    began, gpu.rate = gpu.at, 0
    for step in steps:
        gpu.tick(step)
    assert gpu.reading is not None
    busy = gpu.reading.busy_seconds or 0.0
    truth = gpu.percent_microseconds(began, gpu.at) / 100 / SECOND
    assert busy == pytest.approx(truth, abs=2.001 * period / SECOND)


@given(
    st.lists(
        st.tuples(
            st.integers(TENTH, 29 * TENTH),
            st.booleans(),
            st.sampled_from(
                [*[0] * 6, TENTH, -TENTH, 2 * SECOND, -2 * SECOND, 3600 * SECOND, -3600 * SECOND]
            ),
        ),
        min_size=1,
        max_size=40,
    )
)
@PATIENT
def test_no_time_is_counted_twice_or_lost(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[int, bool, int]]
) -> None:
    """Samples come and go, and their clock jumps: each moment is spoken for once, soon."""
    gpu = sampled(monkeypatch, full)
    began = gpu.at
    for step, gpu.hides, jump in steps:
        gpu.skew += jump
        before = gpu.reading
        now = gpu.tick(step)
        assert before is not None
        assert now.gpu_ratio == 1.0
        assert (now.busy_seconds or 0) >= (before.busy_seconds or 0)
        spoken = (now.busy_seconds or 0) + now.due_microseconds / SECOND
        assert spoken == pytest.approx((gpu.at - began) / SECOND)
        assert 0 <= now.due_microseconds <= SECOND
    gpu.hides, gpu.rate = False, 0
    for _ in range(30):  # the buffer holds 14 s, and a cursor is given up after 5
        gpu.tick()
    assert gpu.tick().gpu_ratio == 1.0


def test_clock_that_is_set_back_counts_no_sample_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour back, the old samples seem to be new ones; only those that are new are counted."""
    gpu = sampled(monkeypatch, full)
    gpu.tick()
    gpu.skew -= 3600 * SECOND
    gpu.level = lambda _at: 0
    ratios = [gpu.tick().gpu_ratio for _ in range(QUIET_CALLS + 20)]
    assert ratios == [0.0] * len(ratios)
    gpu.level, gpu.rate = full, 0
    assert gpu.tick().gpu_ratio == 1.0


def test_sample_that_was_read_is_no_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that answers with all it has, whatever it is asked, is taken for the new ones."""
    gpu = sampled(monkeypatch, full)
    gpu.forgets, gpu.rate = True, 0
    assert gpu.tick().gpu_ratio == 1.0
    assert gpu.tick(TENTH).gpu_ratio == 0.0
    assert gpu.tick().busy_seconds == pytest.approx(2.0)


def test_hole_is_filled_as_far_as_the_buffer_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a minute without polls, 14 s are known; the rest is known to nobody."""
    gpu = sampled(monkeypatch, full)
    assert gpu.tick(60 * SECOND).busy_seconds == pytest.approx(14.0)
    assert gpu.tick().busy_seconds == pytest.approx(15.0)


def test_first_batch_sets_the_cursor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was buffered before the first reading is nobody's: the rates speak at that tick."""
    gpu = sampled(monkeypatch, full)
    first = gpu.reading
    assert first == Utilization(gpu.now(), 1.0, 0.0, 0.0, 0)
    gpu.rate = 7
    assert gpu.tick().gpu_ratio == 1.0
    cursor = gpu.at - SECOND
    assert gpu.asked == [(0, True), (0, False), (cursor, False)]


@pytest.mark.parametrize("percent", [*range(0, 101, 5), 97, 99])
def test_mean_of_equal_samples_is_exact(monkeypatch: pytest.MonkeyPatch, percent: int) -> None:
    """95 % is 0.95, not a digit less, whatever the polls' jitter: a rule compares with it."""
    gpu = sampled(monkeypatch, lambda _at: percent)
    for step in (SECOND, 999_999, 1_000_003, 777_777, 1_234_567):
        assert gpu.tick(step).gpu_ratio == percent / 100


def test_rule_sees_the_mean_through_dips(monkeypatch: pytest.MonkeyPatch) -> None:
    """97 % with a dip of 200 ms a second fires after 10 s; readings that meet the dips do not."""

    def dipping(at: int) -> int:
        return 85 if at % SECOND == 0 else 100

    gpu = sampled(monkeypatch, dipping)
    readings = [gpu.tick() for _ in range(12)]
    assert {reading.gpu_ratio for reading in readings} == {0.97}
    loads = [(float(at), reading.gpu_ratio) for at, reading in enumerate(readings)]
    assert told(play(engine(), loads)) == [(10.0, "firing")]
    assert told(play(engine(), [(at, 0.85) for at, _ in loads])) == []


def test_burst_is_no_full_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 ms of full load in a second are 0.1, though the reading meets them."""
    gpu = sampled(monkeypatch, lambda at: 50 if at % SECOND == 0 else 0)
    gpu.rate = 100
    assert [gpu.tick().gpu_ratio for _ in range(3)] == [0.1] * 3


def test_garbage_speaks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample over 100 % leaves the mean to the others; with none left, the rates speak."""
    gpu = sampled(monkeypatch, lambda at: 255 if at % SECOND == 0 else 40)
    gpu.rate = 0
    assert gpu.tick().gpu_ratio == 0.4
    assert gpu.tick().busy_seconds == pytest.approx(2 * 0.8 * 0.4)
    gpu.level = lambda _at: 101
    assert gpu.tick().gpu_ratio == 0.0


@pytest.mark.parametrize(
    ("kind", "bits", "expected"),
    [
        (0, struct.unpack("<Q", struct.pack("<d", 62.5))[0], 0.625),
        (1, 0xDEADBEEF00000000 | 62, 0.62),
        (1, 0xFFFFFFFF, None),
        (3, 62, 0.62),
        (3, 0xDEADBEEF00000000 | 62, None),
        (4, (1 << 64) - 5, None),
        (5, 62, 0.62),
        (5, (1 << 32) - 5, None),
        (0, struct.unpack("<Q", struct.pack("<d", float("nan")))[0], None),
        (9, 62, None),
    ],
)
def test_type_that_the_driver_names_is_the_sample_s(
    monkeypatch: pytest.MonkeyPatch, kind: int, bits: int, expected: float | None
) -> None:
    """A sample is read as sampleValType says; what is no percentage then is no sample."""
    gpu = sampled(monkeypatch, full)
    gpu.kind, gpu.bits, gpu.rate = kind, lambda _level: bits, 3
    assert gpu.tick().gpu_ratio == (0.03 if expected is None else expected)


def test_buffer_that_grew_is_asked_for_its_size_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """INSUFFICIENT_SIZE costs one tick; else the size is asked once."""
    gpu = sampled(monkeypatch, full)
    gpu.keep, gpu.rate = 500, 50
    gpu.hides = True
    gpu.tick()
    gpu.hides = False
    gpu.asked.clear()
    ratios = [gpu.tick(20 * SECOND).gpu_ratio, gpu.tick().gpu_ratio, gpu.tick().gpu_ratio]
    assert ratios == [0.5, 1.0, 1.0]
    assert [sizing for _, sizing in gpu.asked] == [False, True, False, False]


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [(5, 100.0)],
        [(5, 100.0), (5, 100.0), (5, 100.0)],
        [(9, 100.0), (5, 100.0), (1, 100.0)],
        [(0, 100.0), (4 * SECOND, 100.0)],
        [(0, 100.0), ((1 << 64) - 1, 100.0)],
        [(0, None), (SECOND, None)],
        [(0, 100.0), (SECOND, 101.0)],
        [(0, 100.0), (SECOND, -1.0)],
    ],
)
def test_batch_of_no_use_leaves_the_word_to_the_rates(samples: list[LoadSample]) -> None:
    """Timestamps that stand, fall or leap, and values that are none, add nothing."""
    before = Utilization(100.0, 0.5, 0.5, 7.0, 0)
    seen = Utilization(101.0, 0.25, 0.5)
    assert integrated(seen, before, samples, 3.0) == replace(seen, busy_seconds=7.25)


def test_polls_slower_than_the_buffer_are_bridged_by_what_it_keeps() -> None:
    """At a poll a minute, the newest samples speak for the whole of it, as a reading would."""
    before = Utilization(100.0, 0.5, 0.5, 0.0, 0)
    buffered: list[LoadSample] = [(at * SECOND, 50.0) for at in (0, *range(46, 61))]
    now = integrated(Utilization(160.0, 1.0, 1.0), before, buffered, 180.0)
    assert (now.gpu_ratio, now.due_microseconds) == (0.5, 0)
    assert now.busy_seconds == pytest.approx(30.0)
    now = integrated(Utilization(160.0, 1.0, 1.0), before, buffered[1:], 180.0)
    assert now.busy_seconds == pytest.approx(29.5)
    assert now.due_microseconds == SECOND


def seen_by(node: Node, seconds: int, start: float = 100.0) -> list[Utilization]:
    """Return the readings of a GPU of the fake library, second by second."""
    device = node.device()
    readings: list[Utilization] = []
    for second in range(seconds):
        node.put(f"time={start + second}")
        last = {"utilization": readings[-1]} if readings else {}
        readings.append(node.read(device, Tier.FAST, last=last)["utilization"])
    return readings


def test_pulses_of_the_driver_are_counted_right(node: Node) -> None:
    """300 ms of full load in each second are 3 s in ten; what single readings see of them is 0."""
    node.connect("gpu0.pulse_ms=1000", "gpu0.pulse_on_ms=300")
    readings = seen_by(node, 11)
    assert readings[0].gpu_ratio == 0.0
    assert [r.gpu_ratio for r in readings[1:]] == pytest.approx([0.3] * 10, abs=0.005)
    assert readings[-1].busy_seconds == pytest.approx(3.0, abs=0.05)
    node.put("gpu0.pulse_ms=1000", "gpu0.pulse_on_ms=300", f"call.{SAMPLES}.ret=3")
    assert {r.gpu_ratio for r in seen_by(node, 5, 200.0)} == {0.0}


def calls(node: Node) -> int:
    """Return how often samples have been asked for."""
    return node.calls().count(SAMPLES, 0)


@pytest.mark.parametrize("code", [2, 3, 4, 13, 25])
def test_refused_once_is_not_asked_each_tick(node: Node, code: int) -> None:
    """A board without samples is asked again after some minutes; the rates speak meanwhile."""
    node.connect("gpu0.util=40", f"call.{SAMPLES}.ret={code}")
    device = node.device()
    for _ in range(3):
        assert node.read(device, Tier.FAST)["utilization"].gpu_ratio == 0.4
    assert calls(node) == 1
    node.clock.seconds += REPROBE_SECONDS
    node.read(device, Tier.FAST)
    assert calls(node) == 2


def test_gpu_with_mig_on_is_not_asked_each_tick(node: Node) -> None:
    """While MIG is on there are neither rates nor samples."""
    node.connect("profile=a100-mig")
    device = node.device()
    for _ in range(3):
        assert node.read(device, Tier.FAST)["utilization"].gpu_ratio is None
    assert calls(node) == 1


@pytest.mark.parametrize("trouble", ["delay_ms=8", "ret=999"])
def test_call_that_is_not_worth_it_is_given_up(
    node: Node, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    """Slow or failing in most of the last calls: left alone for minutes, and told once."""
    node.connect("gpu0.util=40", f"call.{SAMPLES}.{trouble}")
    device = node.device()
    node.read(device, Tier.FAST)
    before = calls(node) - 1  # the size was asked, too
    with caplog.at_level(logging.WARNING):
        for _ in range(2 * LAST_CALLS):
            assert node.read(device, Tier.FAST)["utilization"].gpu_ratio == 0.4
        assert calls(node) - before == TOO_MANY
        node.clock.seconds += REPROBE_SECONDS
        for _ in range(2 * LAST_CALLS):
            node.read(device, Tier.FAST)
        assert calls(node) - before == 2 * TOO_MANY
    assert [record.message.split(":")[0] for record in caplog.records] == ["GPU 0"]
    assert "more than 5 ms" in caplog.text


def test_one_slow_call_in_three_is_borne(node: Node) -> None:
    """What counts is the median: a driver that is busy now and then is asked on."""
    node.connect(f"call.{SAMPLES}.delay_ms=8", f"call.{SAMPLES}.every=3")
    device = node.device()
    for _ in range(3 * LAST_CALLS):
        node.read(device, Tier.FAST)
    assert calls(node) >= 3 * LAST_CALLS


def test_gpu_that_was_reset_begins_anew(node: Node) -> None:
    """What the buffer held before is not counted, and the counter goes on from where it was."""
    node.connect("gpu0.util=100")
    device = node.device()
    readings: list[Utilization] = []
    for line in ("time=104", "time=105"):
        node.put("gpu0.util=100", line)
        last = {"utilization": readings[-1]} if readings else {}
        readings.append(node.read(device, Tier.FAST, last=last)["utilization"])
    assert readings[-1].busy_seconds == pytest.approx(1.0)
    node.put("gpu0.util=0", "gpu0.reset=1", "time=106")
    assert node.take(device, Tier.FAST).fault is Fault.LOST
    device = node.device()
    node.put("gpu0.util=100", "gpu0.reset=1", "time=107")  # so that this is what is buffered
    for second in (107, 108):
        node.put("gpu0.util=0", "gpu0.reset=1", f"time={second}")
        last = {"utilization": readings[-1]}
        readings.append(node.read(device, Tier.FAST, last=last)["utilization"])
        assert readings[-1].gpu_ratio == 0.0
        assert readings[-1].busy_seconds == pytest.approx(1.0)


@pytest.mark.parametrize("flag", [{}, {"utilization_samples": False}])
def test_operator_can_switch_it_off(node: Node, flag: dict[str, bool]) -> None:
    """Without the collector nothing is asked; the utilization is read all the same."""
    plan, _ = options.plans(DEFAULTS, Config(collectors=flag))
    reader = RATES_READER if flag else READER
    assert [r for r in plan.readers if r.group == "utilization"] == [reader]
    fast = tuple(r for r in plan.readers if r.tier is Tier.FAST)
    node.connect()
    device = node.driver.open(FoundGpu(0, ""), fast, PLAN.max_gap_seconds)
    outcome = take(
        node.driver, FoundGpu(0, "GPU-0"), device, replace(PLAN, readers=fast), (Tier.FAST,), {}
    )
    assert outcome.readings["utilization"].gpu_ratio is not None
    assert bool(calls(node)) == (not flag)
