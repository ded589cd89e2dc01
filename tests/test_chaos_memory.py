"""A daemon that is given too little memory, or too few threads."""

from __future__ import annotations

import os
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from chaos_world import BUSY, MIB, TAKEN, World, sound
from daemon import Daemon
from page_bounds import samples

from exporter.threads import EXHAUSTED

CGROUPS = Path("/sys/fs/cgroup/memory")
WATCH_SECONDS = 6.0


def squeezed(daemon: Daemon, chaotic: World) -> int | None:
    """Ask for everything while it is short of memory; return how it ended, None if it has not.

    Whatever page it serves is whole.
    """
    until = time.monotonic() + WATCH_SECONDS
    chaotic.fake.set(BUSY)
    while time.monotonic() < until and daemon.process.poll() is None:
        with suppress(OSError, AssertionError, EOFError):  # it may be gone at any moment
            daemon.process.send_signal(signal.SIGHUP)
            time.sleep(0.05)
            for path in ("/metrics", "/", "/api/v1/status"):
                answer = daemon.get(path)
                if path == "/metrics" and answer.status == 200:
                    assert_whole(answer.body.decode())
    if EXHAUSTED in daemon.log:
        return daemon.process.wait(10)
    return daemon.process.poll()


def assert_whole(text: str) -> None:
    """End the test if a page is cut short or garbled; no mere AssertionError, see `squeezed`."""
    try:
        assert samples(text)
        assert "\ngpu_exporter_config_last_reload_success_timestamp_seconds " in text
        assert text.endswith("\n")
    except (AssertionError, ValueError) as wrong:
        pytest.fail(f"{wrong}:\n{text[-500:]}")


def begins_anew(chaotic: World) -> None:
    """Start another on the same storage, with all the memory that it wants."""
    chaotic.answer(TAKEN)
    with chaotic.daemon() as daemon:
        daemon.until(lambda page: page.value("gpu_rule_state", rule="Busy") == 2)
        daemon.until(lambda page: page.value("scaleout_outbox_events", state="pending") == 0)
        sound(daemon)
        assert daemon.stop()[0] == 0
    assert len(chaotic.requests()) == 1


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "more_mebibytes",
    [4, *(pytest.param(n, marks=pytest.mark.chaos(long=True)) for n in (0, 1, 2, 8, 12, 16, 24))],
)
def test_little_address_space(chaotic: World, more_mebibytes: int) -> None:
    """It serves whole pages or none; it goes on, or ends with one line that says why.

    With room again, what goes on is well, and a new process is too.
    """
    with chaotic.daemon() as daemon:
        daemon.after_polls(2)
        pages = int((daemon.proc / "statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGESIZE") + more_mebibytes * MIB
        old = resource.prlimit(
            daemon.process.pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY)
        )
        code = squeezed(daemon, chaotic)
        if code is None:
            resource.prlimit(daemon.process.pid, resource.RLIMIT_AS, old)
            daemon.until(lambda page: page.up() == [1.0] * 2)
            assert daemon.stop()[0] == 0
        else:
            assert code == 1, daemon.log
            assert EXHAUSTED in daemon.log, daemon.log
        assert "a fault in" not in daemon.log
        assert "Traceback" not in daemon.log, daemon.log
    begins_anew(chaotic)
