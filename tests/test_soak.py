"""Nothing grows: not memory, not file descriptors, not threads, however long and whatever fails.

The full form takes some minutes: `SOAK_POLLS=100000 .venv/bin/pytest tests/test_soak.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from daemon import Daemon, running
from http_client import connect
from scripted import Clock, ScriptedDriver
from soak import PLAN

from exporter.poll import Poller, Sources
from exporter.snapshot import Build, Reload

POLLS = int(os.environ.get("SOAK_POLLS", "2000"))
SCRAPES = 2000
MIB = 1 << 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_polls_leave_nothing_behind() -> None:
    """GPUs lost and back, hung and released, pages rendered: RSS within 1 MiB, the rest flat."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("soak.py"), str(POLLS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    before, after = figures["before"], figures["after"]
    assert figures["lost"] > POLLS / 10, figures
    assert figures["hung"] > POLLS / 50, figures
    assert after["resident_bytes"] - before["resident_bytes"] <= MIB, figures
    assert after["descriptors"] == before["descriptors"], figures
    assert after["threads"] <= before["threads"] + 1, figures  # a hung one may be back later


def held(daemon: Daemon) -> tuple[int, int]:
    """Return how many file descriptors and threads a process has."""
    folders = (daemon.proc / "fd", daemon.proc / "task")
    files, threads = (len(list(folder.iterdir())) for folder in folders)
    return files, threads


@pytest.mark.slow
def test_scrapes_leave_nothing_behind() -> None:
    """2,000 scrapes, on connections of their own and on one, plain and zipped: all is flat."""
    with running("--simulate") as daemon:
        daemon.after_polls(3)
        _scrape(daemon, 100)
        before = daemon.eventually(lambda: _settled(daemon))
        _scrape(daemon, SCRAPES)
        # What a poll has open just now is closed again; what was left behind stays.
        assert daemon.eventually(lambda: _settled(daemon) == before or None)


def _scrape(daemon: Daemon, count: int) -> None:
    with connect(daemon.port) as kept:
        for number in range(count // 2):
            zipped = ["Accept-Encoding: gzip"] if number % 2 else []
            assert kept.get("/metrics", *zipped).status == 200
            with connect(daemon.port) as client:
                assert client.get("/metrics", *zipped).status == 200


def _settled(daemon: Daemon) -> tuple[int, int] | None:
    """Return what it holds once the server has seen every client go."""
    sockets = [entry for entry in (daemon.proc / "fd").iterdir() if _is_socket(entry)]
    listeners_and_loop = 3
    return held(daemon) if len(sockets) <= listeners_and_loop else None


def _is_socket(entry: Path) -> bool:
    try:
        return os.readlink(entry).startswith("socket:")  # noqa: PTH115  no path
    except FileNotFoundError:  # closed since it was listed
        return False


def test_readings_of_before_a_standstill_do_not_pass_for_fresh() -> None:
    """A process that was stopped amid a poll publishes what is old as old."""
    clock = Clock()
    driver = ScriptedDriver(2, clock)
    sources = Sources(driver, Build("1", "3", simulated=False), lambda: None, clock)
    poller = Poller(sources, PLAN, (), Reload(successful=True, success_timestamp_seconds=0))
    poller.tick()

    def stop(_device: object) -> int:
        clock.seconds += 60
        return 1000

    clock.seconds += 1
    driver.answers[1]["nvmlDeviceGetPowerUsage"] = stop
    seen = poller.tick().at(clock.seconds)
    assert seen.is_stale
    assert [gpu.power for gpu in seen.gpus] == [None, None]
