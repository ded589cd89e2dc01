"""The real daemon among hundreds of hostile clients: answered, bounded, and unharmed."""

from __future__ import annotations

import pytest
from chaos import ROUNDS
from daemon import Daemon, running
from hostile_crowd import crowd

pytestmark = pytest.mark.chaos

CLIENTS = 500
SCRAPES = 4 * ROUNDS
MOST_CONNECTIONS = 256
STAY_SECONDS = 10.0  # docs/security.md
SLACK_SECONDS = 5.0  # of a busy machine
MIB = 1 << 20
RECEIVER = "alertmanager_receiver: {routes: [{matchers: [], action: record}]}\n"


def descriptors(daemon: Daemon) -> int:
    """Return how many files the daemon has open."""
    return len(list((daemon.proc / "fd").iterdir()))


def resident_bytes(daemon: Daemon) -> int:
    """Return how much of the daemon is in memory."""
    return int((daemon.proc / "statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("storms", [False, True], ids=["siege", "storm"])
def test_crowd(storms: bool) -> None:
    """500 of all manners at once, once or again and again: no scrape fails, no trace is left."""
    with running("--simulate", config=RECEIVER) as daemon:
        daemon.page()
        files, resident = descriptors(daemon), resident_bytes(daemon)
        with crowd(daemon.port, CLIENTS, storms=storms) as clients:
            for _ in range(SCRAPES):
                assert daemon.page().up() == [1.0] * 8
                # Those that are just being closed for a new one have their file still.
                assert descriptors(daemon) <= files + MOST_CONNECTIONS + 100
                assert resident_bytes(daemon) <= resident + 64 * MIB
            clients.calm()
            if ROUNDS > 1:
                assert clients.gone.wait(STAY_SECONDS + SLACK_SECONDS)
                assert clients.longest_stay_seconds < STAY_SECONDS + SLACK_SECONDS
        assert clients.thrown_out >= CLIENTS - MOST_CONNECTIONS
        daemon.eventually(lambda: True if descriptors(daemon) <= files + 1 else None)
        assert daemon.messages("warning") == daemon.messages("error") == []
        assert "Traceback" not in daemon.log
        code, seconds = daemon.stop()
        assert (code, seconds < SLACK_SECONDS) == (0, True)
