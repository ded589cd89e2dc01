"""Windows of sustained load: their promised metrics, second by second."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rules_feed import EPOCH, SUSTAINED, Load, engine, node

from exporter.metric import Metric
from exporter.rules import Engine
from exporter.rules_view import WINDOW_METRICS, Window
from exporter.sampling import Fault


def watch(watcher: Engine, *stretches: tuple[int, Load], since: int = 0) -> list[Window | None]:
    """Feed (how many samples, load) of one GPU at 1 Hz; return its window after each."""
    loads = [load for count, load in stretches for _ in range(count)]
    seen = []
    for at, load in enumerate(loads, since):
        watcher.observe(node(float(at), [load]), EPOCH + at)
        seen.append(watcher.view.windows.get(0))
    return seen


def minima(seen: list[Window | None]) -> list[float | None]:
    """Return the minima only."""
    return [window.minimum_ratio if window else None for window in seen]


def test_minimum_is_absent_until_ten_seconds_are_covered() -> None:
    """Ten samples (9 s) give none, the eleventh gives the lowest of all eleven."""
    assert minima(watch(engine(), (1, 0.3), (11, 0.5))) == [None] * 10 + [0.3, 0.5]


def test_minimum_follows_a_dip_for_ten_seconds() -> None:
    """A dip is the minimum while it is in the window, its end included."""
    seen = minima(watch(engine(), (12, 1.0), (1, 0.2), (12, 0.9)))
    assert seen[10:] == [1.0] * 2 + [0.2] * 11 + [0.9] * 2


def test_ten_seconds_by_any_clock() -> None:
    """A clock whose differences are a hair under 10 s still gives 10 s."""
    watcher = engine()
    for at in range(11):
        watcher.observe(node(8.4 + at, [0.5]), EPOCH)
    assert watcher.view.windows[0].minimum_ratio == 0.5


def test_history_is_bounded() -> None:
    """Ever lower minima, each a peak of what follows, are kept for a minute only."""
    watcher = engine()
    for at in range(400):
        watcher.observe(node(float(at), [1 - at / 1000]), EPOCH)
    track = watcher._state.tracks["GPU-0"]
    assert (len(track.times), len(track.lows), len(track.peaks)) == (60, 1, 61)


def test_hole_starts_the_window_anew() -> None:
    """Two missing samples are bridged; a hole is not, and with it the minimum goes at once."""
    seen = minima(watch(engine(), (11, 0.5), (2, None), (1, 0.5)))
    assert seen[10:] == [0.5] * 4
    seen = minima(watch(engine(), (11, 0.5), (4, None), (11, 0.7)))
    assert seen[10:] == [0.5] * 4 + [None] * 11 + [0.7]


def test_too_few_samples_give_no_minimum() -> None:
    """Under 90 % of the samples, a window tells nothing."""
    assert minima(watch(engine(), *[(2, 0.5), (1, None)] * 10)) == [None] * 30


def test_fault_takes_the_windows_away() -> None:
    """A GPU with a fault has no window; when it is back, the 10 s start anew, the peak is kept."""
    seen = watch(engine(), (11, 0.5), (1, Fault.HUNG), (11, 0.4))
    assert seen[10] == Window(0.5, 0.5, 1.0)
    assert seen[11] is None
    assert minima(seen[12:]) == [None] * 10 + [0.4]
    assert seen[12] is not None
    assert seen[12].peak_minimum_ratio == 0.5


def test_peak_is_kept_for_a_minute() -> None:
    """12 s of load are seen for 60 s after the last full window of them, at any scrape interval."""
    seen = watch(engine(), (20, 0.1), (12, 1.0), (80, 0.1))
    peaks = [window.peak_minimum_ratio if window else None for window in seen]
    assert peaks[:30] == [None] * 10 + [0.1] * 20
    assert peaks[30:92] == [1.0] * 62  # windows end at 30 s and 31 s
    assert set(peaks[92:]) == {0.1}


def test_peak_ages_without_samples_too() -> None:
    """A peak goes after 60 s also when nothing has been sampled since."""
    seen = watch(engine(), (12, 1.0), (62, None))
    peaks = [window.peak_minimum_ratio if window else None for window in seen]
    assert peaks[10:] == [1.0] * 62 + [None] * 2


def test_coverage_counts_the_last_minute() -> None:
    """Coverage is whole from the first sample on, and falls by a 60th with each that is missing."""
    seen = watch(engine(), (3, None), (70, 0.5), (6, None), (60, 0.5), (70, None))
    shares = [window.coverage_ratio if window else None for window in seen]
    assert shares[:3] == [None] * 3
    assert shares[3:73] == [1.0] * 70
    assert shares[73:79] == pytest.approx([1 - missing / 60 for missing in range(1, 7)])
    assert shares[138] == 1.0
    assert shares[-1] == 0.0


def test_coverage_goes_by_the_sampling_interval() -> None:
    """At 4 Hz, a minute has 240 samples."""
    watcher = engine(interval=0.25)
    for at in range(480):
        load = None if at % 4 == 3 else 0.5
        watcher.observe(node(at / 4, [load]), EPOCH)
    assert watcher.view.windows[0].coverage_ratio == pytest.approx(0.75)


def test_slow_sampling_has_no_ten_second_window() -> None:
    """Samples 5 s apart cannot say that a load lasted 10 s."""
    watcher = engine(replace(SUSTAINED, max_gap_seconds=10.0), interval=5.0)
    for at in range(20):
        watcher.observe(node(at * 5.0, [1.0]), EPOCH)
    assert watcher.view.windows[0] == Window(None, None, 1.0)


def test_windows_of_each_gpu() -> None:
    """Windows stand under the GPU's index; a GPU that was never read has none."""
    watcher = engine()
    for at in range(11):
        watcher.observe(node(float(at), [0.2, None, 0.8, Fault.LOST]), EPOCH)
    windows = watcher.view.windows
    assert {index: window.minimum_ratio for index, window in windows.items()} == {0: 0.2, 2: 0.8}


def test_window_rows() -> None:
    """The rows carry the promised label, and leave out what is absent."""
    window = Window(None, 0.5, 0.75)
    values = [
        row.value(window) if isinstance(row, Metric) else row.values(window)
        for row in WINDOW_METRICS
    ]
    assert values == [{"10s": None}, {"10s": 0.5}, 0.75]
