"""Storage that is full, read-only, taken away, and back, under a daemon that works with it."""

from __future__ import annotations

import pytest
from chaos_disk import fill, little_disk, mount
from chaos_world import BUSY, CALM, TAKEN, World, sound
from daemon import Daemon

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

DURABLE = "scaleout_outbox_durable"


def pending(daemon: Daemon) -> float | None:
    """Return how many requests wait."""
    return daemon.page().value("scaleout_outbox_events", state="pending")


def is_home(daemon: Daemon) -> None:
    """Wait until all is on disk again, which is looked for every 10 s, and said."""
    daemon.until(lambda page: page.value(DURABLE) == 1)
    daemon.wait_for_log("the outbox is on disk again")


def said_once(daemon: Daemon) -> None:
    """Check that the log has one line for each thing that is wrong, however long that lasts."""
    told = [line for line in daemon.messages("error") if not line.startswith("GPU ")]
    assert any("requests are kept in memory alone" in line for line in told)
    assert len(told) == len(set(told)), told


def arrives(daemon: Daemon, chaotic: World) -> None:
    """Have the receiver take what waits, and see that it is one request."""
    chaotic.answer(TAKEN)
    daemon.until(lambda page: page.value("scaleout_outbox_events", state="delivered") == 1)
    assert chaotic.only_request()["rule"] == "Busy"
    sound(daemon)


def test_full_disk(chaotic: World) -> None:
    """It serves, says so once and by the metric, and holds the request in memory.

    Once the disk has room again, the request survives the process.
    """
    with little_disk(chaotic.storage):
        with chaotic.daemon() as daemon:
            assert sound(daemon).value(DURABLE) == 1
            filler = fill(chaotic.storage)
            chaotic.fake.set(BUSY)
            daemon.until(lambda page: page.value(DURABLE) == 0)
            daemon.until(lambda page: page.value("scaleout_outbox_events", state="pending") == 1)
            daemon.until(lambda _page: len(chaotic.peer.said) >= 3)
            sound(daemon)
            daemon.until(lambda page: page.up() == [1.0] * 2)
            said_once(daemon)
            filler.unlink()
            is_home(daemon)
        with chaotic.daemon() as daemon:
            assert pending(daemon) == 1
            arrives(daemon, chaotic)


def test_read_only_disk_at_the_start(chaotic: World) -> None:
    """What was pending is not sent while it cannot be noted, or not again; all comes home."""
    with little_disk(chaotic.storage):
        with chaotic.daemon() as daemon:
            chaotic.fake.set(BUSY)
            daemon.until(lambda _page: chaotic.peer.said)
        assert mount("-o", "remount,ro", chaotic.storage).returncode == 0
        chaotic.fake.set(CALM)
        with chaotic.daemon() as daemon:
            assert sound(daemon).value(DURABLE) == 0
            said_once(daemon)
            assert mount("-o", "remount,rw", chaotic.storage).returncode == 0
            is_home(daemon)
            assert pending(daemon) == 1
            arrives(daemon, chaotic)


@pytest.mark.chaos(long=True)
def test_disk_that_goes_away_and_comes_back(chaotic: World) -> None:
    """Another file system over it: the request goes on in memory, and is not sent anew after that.

    What was delivered meanwhile is known as delivered when the old files are back.
    """
    with little_disk(chaotic.storage), chaotic.daemon() as daemon:
        chaotic.fake.set(BUSY)
        daemon.until(lambda _page: chaotic.peer.said)
        with little_disk(chaotic.storage):
            assert mount("-o", "remount,ro", chaotic.storage).returncode == 0
            daemon.until(lambda page: page.value(DURABLE) == 0)
            said_once(daemon)
            arrives(daemon, chaotic)
        is_home(daemon)
        tries = len(chaotic.peer.said)
        page = daemon.after_polls(8)
        assert page.value("scaleout_outbox_events", state="pending") == 0
        assert len(chaotic.peer.said) == tries
        sound(daemon)
