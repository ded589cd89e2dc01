"""Nothing grows: not memory, not file descriptors, not threads, however long and whatever fails.

The full form is `make soak`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from daemon import Daemon, running
from http_client import connect
from recorded_node import PLAN
from scaleout_peers import Reply, serving
from scripted import Clock, ScriptedDriver

from exporter.poll import Poller, Sources
from exporter.snapshot import Build, Reload

POLLS = int(os.environ.get("SOAK_POLLS", "700"))
SCRAPES = 2000
MOST_STORED_BYTES = 300 << 20  # 256 MiB of recordings, 16 MiB of requests, the log of decisions
MIB = 1 << 20
# The allocator comes to rest over some 12,000 polls. Later, a table of Python's own may double, by
# 0.9 MiB; nothing else moves.
MOST_GROWTH = 1.02 if POLLS >= 100_000 else 1.2
MOST_GROWTH_BYTES = 3 * MIB if POLLS >= 100_000 else 4 * MIB


@pytest.mark.slow
@pytest.mark.timeout(36000)
def test_polls_leave_nothing_behind(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Polls through rules, recorder, requests and pages: memory comes to rest, the rest is flat.

    All the while GPUs are lost and come back, hang and are released; processes come and go.
    """
    with serving(Reply(204)) as peer:
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("soak.py"), str(POLLS), tmp_path, peer.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        delivered = peer.ids()
    record_property("soak", done.stdout.decode())
    figures: dict[str, Any] = json.loads(done.stdout)
    before, after = figures["before"], figures["after"]
    assert figures["lost"] > POLLS / 10, figures
    assert figures["hung"] > POLLS / 50, figures
    assert figures["recordings"] > POLLS / 2000, figures
    assert figures["delivered"] == len(set(delivered)) == len(delivered) > POLLS / 4000, figures
    assert figures["pids"] > POLLS / 100, figures
    stored = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert stored <= MOST_STORED_BYTES
    for kind in ("resident_bytes", "malloc_bytes"):
        assert after[kind] - before[kind] <= MOST_GROWTH_BYTES, figures
    for kind in ("blocks", "objects"):
        assert after[kind] <= MOST_GROWTH * before[kind], figures
    recording = 1  # may be under way at either time
    assert abs(after["descriptors"] - before["descriptors"]) <= recording, figures
    assert after["threads"] <= before["threads"] + 1, figures  # a hung one may be back later


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
    return daemon.held if len(sockets) <= listeners_and_loop else None


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
