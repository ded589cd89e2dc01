"""Load over hours, by a clock of the test: from samples through rules to a real receiver."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rules_feed import EPOCH, Load, engine, node, seconds
from scaleout_peers import FakeClock, config, serving, wait_until, webhook

from exporter.scaleout.service import Scaleout

COOLDOWN, MOST = 300.0, 6


def received(folder: Path, loads: Iterable[tuple[float, Load]]) -> list[float]:
    """Play (time, load) of one GPU as the daemon's ticks; return when a request arrived."""
    time, watcher = FakeClock(wall=EPOCH, since_boot=0.0), engine()
    arrived: list[float] = []
    with serving() as peer:
        whole = config(webhook(peer.url), cooldown_seconds=COOLDOWN, max_per_hour=MOST)
        service = Scaleout(whole, folder, "gpu-017", "", time.clock)
        try:
            for at, load in loads:
                time.passes(EPOCH + at - time.now)
                events = watcher.observe(node(at, [load]), time.now)
                service.tick(watcher.firing)
                for event in events:
                    service.decide(event, time.now)
                # The clock stands still until what was decided has arrived.
                wait_until(lambda: service.view().outbox["pending"] == 0)
                arrived += [at] * (len(peer.said) - len(arrived))
        finally:
            service.stop()
        assert len(set(peer.ids())) == len(peer.said)
    return arrived


def test_bursts_of_nine_seconds_send_nothing(tmp_path: Path) -> None:
    """Ten minutes of bursts of 9 s, each as near to 10 s as it can be, reach nobody."""
    bursts = seconds(*((9, 1.0), (1, 0.94)) * 60)
    assert len(bursts) == 600
    assert received(tmp_path, bursts) == []


def test_an_hour_at_full_load_is_bounded(tmp_path: Path) -> None:
    """In 70 minutes at 100 %, requests keep the cooldown's distance and the hour's limit."""
    at = received(tmp_path, seconds((4200, 1.0)))
    assert at[:MOST] == [10, 310, 610, 910, 1210, 1510]
    assert at[MOST:] == [3610, 3910]  # the first was an hour ago, then the second
