"""A daemon that is ended again and again, in the midst of all that it does."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import time
from contextlib import closing

import pytest
from chaos import ROUNDS
from chaos_world import BUSY, TAKEN, World, sound
from daemon import COMMAND, Daemon, Page

from exporter.recorder.library import list_recordings, load
from exporter.scaleout import disk

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]

START_SECONDS = 20.0  # of a machine with far too much to do
ENDS = (signal.SIGTERM, signal.SIGKILL)


def pending(page: Page) -> float | None:
    """Return how many requests wait."""
    return page.value("scaleout_outbox_events", state="pending")


def end(daemon: Daemon, by: signal.Signals) -> None:
    """End it, and see that it ends as it should."""
    daemon.process.send_signal(by)
    assert daemon.process.wait(START_SECONDS) == (0 if by is signal.SIGTERM else -by)


def killed_at_its_start(chaotic: World, by: signal.Signals, seconds: float) -> None:
    """Start one, and end it so soon that it may not even serve."""
    command = [str(COMMAND), "--web.listen-address=127.0.0.1:0", *chaotic.flags()]
    with subprocess.Popen(
        command, env=chaotic.env(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(seconds)
        process.send_signal(by)
        said = process.communicate(timeout=START_SECONDS)[1]
    assert "Traceback" not in said
    assert "damaged" not in said


def test_storm_of_restarts(chaotic: World) -> None:
    """Ended by either signal at any moment: the request stays the same one, and arrives.

    The storage opens each time, in bounded time. A rule's wait does not go on where another life
    left it. Each recording can be read.
    """
    chance = random.Random(4)  # noqa: S311  when to end it
    chaotic.fake.set(BUSY)
    with chaotic.daemon() as daemon:
        daemon.until(lambda page: pending(page) and page.value("gpu_recorder_active"))
        end(daemon, signal.SIGKILL)
    for number in range(ROUNDS):
        by, other = ENDS[number % 2 :] + ENDS[: number % 2]
        killed_at_its_start(chaotic, other, chance.random())
        began = time.monotonic()
        with chaotic.daemon() as daemon:
            assert time.monotonic() - began < START_SECONDS
            sound(daemon)
            page = daemon.until(lambda page: page.value("gpu_rule_state", rule="BusyForLong") == 1)
            assert (pending(page), page.value("scaleout_outbox_durable")) == (1, 1)
            assert page.value("gpu_rule_state", rule="Busy") == 2
            time.sleep(chance.random() / 4)
            end(daemon, by)
    chaotic.answer(TAKEN)
    with chaotic.daemon() as daemon:
        page = daemon.until(lambda page: pending(page) == 0)
        assert page.value("scaleout_outbox_events", state="delivered") == 1
        assert page.value("gpu_rule_firings_total", rule="BusyForLong") == 0
        end(daemon, signal.SIGTERM)
    assert chaotic.only_request()["rule"] == "Busy"
    assert list(chaotic.storage.glob("*corrupt*")) == []
    with closing(sqlite3.connect(chaotic.storage / disk.FILE)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    recordings = list_recordings(chaotic.storage)
    assert recordings
    for recording in recordings:
        load(chaotic.storage, recording.path.name)
