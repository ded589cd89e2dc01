"""A machine without room for another thread, or without memory: said to whoever can end us."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from scaleout_peers import config, event, serving, wait_until, webhook

from exporter.crew import Crew, Job
from exporter.pipeline import contained
from exporter.recorder.archive import Archive, Survey
from exporter.recorder.store import Bounds
from exporter.recorder.writer import Writer
from exporter.scaleout.clock import system_clock
from exporter.scaleout.service import Scaleout
from exporter.threads import NoThreadError, on_exhaustion

DEADLINE_SECONDS = 30.0


class Full:
    """Whether the machine is full."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def begin(self) -> None:
        """Let no thread start any more."""

        def refuse(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        self._patch.setattr(threading.Thread, "start", refuse)

    def end(self) -> None:
        """Let them start again."""
        self._patch.undo()


@pytest.fixture
def full() -> Full:
    """Give what fills the machine, and empties it."""
    return Full(pytest.MonkeyPatch())


def test_crew_without_a_thread(full: Full) -> None:
    """It says so, and is as good as new once there is one."""
    crew = Crew("test")
    full.begin()
    with pytest.raises(NoThreadError, match="can't start new thread"):
        crew.start([Job(lambda: 1)], split=False)
    full.end()
    assert crew.is_idle
    job = Job(lambda: 2)
    crew.start([job], split=False)
    crew.wait(DEADLINE_SECONDS)
    assert (job.done, job.result, crew.is_idle) == (True, 2, True)


def test_job_without_memory_is_not_waited_for() -> None:
    """Nobody takes the GPU that it read for hung: who waits is told at once."""

    def starve() -> None:
        raise MemoryError

    crew = Crew("test")
    crew.start([Job(starve)], split=False)
    with pytest.raises(MemoryError):
        crew.wait(DEADLINE_SECONDS)


def test_recorder_without_a_thread(full: Full, tmp_path: Path) -> None:
    """It says so, ends in peace, and writes once there is one."""
    writer = Writer(Archive(tmp_path / "recordings", "node"))
    survey = Survey(Bounds(1 << 20, 10))
    full.begin()
    with pytest.raises(NoThreadError):
        writer.put(survey)
    writer.close(0.0)
    full.end()
    writer.put(survey)
    writer.close(DEADLINE_SECONDS)
    assert (writer.backlog, writer.status.stored_bytes) == (1, 0)  # the order to end is never done


def test_request_without_a_thread_is_not_lost(full: Full, tmp_path: Path) -> None:
    """It is on disk before anybody is told, and the next daemon delivers it."""
    with serving() as peer:
        whole = config(webhook(peer.url))
        first = Scaleout(whole, tmp_path, "node", "", system_clock())
        full.begin()
        with pytest.raises(NoThreadError):
            first.decide(event(), system_clock().wall())
        first.stop()
        full.end()
        assert peer.said == []
        second = Scaleout(whole, tmp_path, "node", "", system_clock())
        try:
            wait_until(lambda: peer.said)
        finally:
            second.stop()
    assert len(set(peer.ids())) == 1


def test_what_no_part_can_go_on_after_is_not_contained() -> None:
    """A fault of ours costs its part alone; without memory or threads, the process has to end."""
    with contained("a part"):
        raise ValueError
    for error in (MemoryError, NoThreadError):
        with pytest.raises(error), contained("a part"):
            raise error


def test_thread_that_ends_for_want_of_memory_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever can end us is told, without a traceback; a fault of ours has its traceback."""

    def die_of(error: type[Exception]) -> None:
        def work() -> None:
            raise error

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    told: list[bool] = []
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # to be put back
    on_exhaustion(lambda: told.append(True))
    die_of(MemoryError)
    die_of(NoThreadError)
    assert (len(told), capsys.readouterr().err) == (2, "")
    die_of(ValueError)
    assert len(told) == 2
    assert "ValueError" in capsys.readouterr().err
