"""When the poll is due: in step, and whatever is done to the wall clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from queue import Empty, Queue
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Clock

from exporter.ticking import Ticking, _Steady

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
PATIENCE_SECONDS = 30.0


@given(
    st.floats(min_value=0.05, max_value=60),
    st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=30 * 365)),
)
def test_next_tick_is_the_first_after_now(seconds: float, late: timedelta) -> None:
    """It is in step with the one before, later than now, and no interval further away."""
    now = START + late
    due = _Steady(seconds).get_next_fire_time(START, now)
    interval = timedelta(seconds=seconds)
    assert timedelta(0) < due - now <= interval
    assert (due - START) % interval == timedelta(0)


def test_a_clock_set_back_costs_no_tick() -> None:
    """While it goes forth or is slewed, nothing is ticked early; set back, the next is at once."""
    wall, monotonic = Clock(), Clock()
    with _ticking(wall, monotonic) as (ticking, ticks):
        ticks.get(timeout=PATIENCE_SECONDS)
        for moved in (0.0, 3600.0, -0.05):
            wall.seconds += moved
            ticking.look()
        with pytest.raises(Empty):
            ticks.get(timeout=0.05)
        wall.seconds -= 3600
        ticking.look()
        ticks.get(timeout=PATIENCE_SECONDS)
        ticking.look()
        with pytest.raises(Empty):
            ticks.get(timeout=0.05)


def test_the_same_pace_again_ticks_no_earlier() -> None:
    """A storm of reloads is no storm of polls; another pace holds at once."""
    with _ticking(Clock(), Clock()) as (ticking, ticks):
        ticks.get(timeout=PATIENCE_SECONDS)
        for _ in range(100):
            ticking.every(3600.0)
        with pytest.raises(Empty):
            ticks.get(timeout=0.05)
        ticking.every(1800.0)
        ticks.get(timeout=PATIENCE_SECONDS)


def test_work_between_two_ticks_is_done_once() -> None:
    """It runs in the ticks' thread, and does not wait for the next tick."""
    with _ticking(Clock(), Clock()) as (ticking, ticks):
        ticks.get(timeout=PATIENCE_SECONDS)
        ticking.between(lambda: ticks.put("work"))
        assert ticks.get(timeout=PATIENCE_SECONDS) == "work"
        with pytest.raises(Empty):
            ticks.get(timeout=0.05)


def test_no_tick_begins_after_the_end_and_one_that_hangs_is_left() -> None:
    """What ticks use may be closed then; who ends waits for the tick under way, in bounds."""
    with _ticking(Clock(), Clock()) as (ticking, ticks):
        ticks.get(timeout=PATIENCE_SECONDS)
        hung, released = Event(), Event()

        def hang() -> None:
            hung.set()
            released.wait()

        ticking.between(hang)
        hung.wait()
        ticking.stop(0.01)
        released.set()
        ticking.stop(PATIENCE_SECONDS)
        ticking.between(lambda: ticks.put("work"))
        ticking.every(1800.0)
        with pytest.raises(Empty):
            ticks.get(timeout=0.05)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_death_of_the_thread_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """APScheduler's own code may end it, for want of memory: no tick would come any more."""
    with _ticking(Clock(), Clock()) as (ticking, ticks):
        ticks.get(timeout=PATIENCE_SECONDS)
        assert ticking.is_alive

        def starve() -> None:
            raise MemoryError

        monkeypatch.setattr(ticking._scheduler, "_process_jobs", starve)
        ticking.every(1800.0)
        assert ticking._thread is not None
        ticking._thread.join(PATIENCE_SECONDS)
        assert not ticking.is_alive


@contextmanager
def _ticking(wall: Clock, monotonic: Clock) -> Iterator[tuple[Ticking, Queue[str]]]:
    """Give one that ticks every hour, and where its ticks arrive."""
    ticks: Queue[str] = Queue()
    ticking = Ticking(lambda: ticks.put("tick"), wall, monotonic)
    ticking.every(3600.0)
    ticking.start()
    try:
        yield ticking, ticks
    finally:
        ticking._scheduler.shutdown()
