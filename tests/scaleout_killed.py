"""Daemons that decide and deliver until they are killed; run by test_scaleout_kill.py.

    python scaleout_killed.py decide|deliver FOLDER URL

For each line on stdin one is forked, with all modules loaded. It says its pid, then the id of each
request once that is committed; after its end, the parent says so.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import requests  # noqa: F401  loaded before the fork
from scaleout_peers import config, event, webhook

from exporter.config import Retry
from exporter.scaleout import transport  # noqa: F401  same
from exporter.scaleout.clock import system_clock
from exporter.scaleout.core import Core
from exporter.scaleout.outbox import Outbox, Recorded
from exporter.scaleout.receivers import Place, targets

QUICK = Retry(min_backoff_seconds=0.01, max_backoff_seconds=0.01)
TARGET = "scaler/webhook/0"


def live(folder: Path, url: str, *, deliver: bool) -> None:
    """Decide for ever, each time for another group; without a receiver's thread, settle here."""
    clock, place = system_clock(), Place({}, "node", "")
    whole = config(webhook(url, retry=QUICK), max_per_hour=10_000)
    made = targets(whole.receivers, place, clock)
    core = Core(whole, made, folder, place, clock)
    outbox = core._outbox
    if not deliver:
        core._deliveries.stop()
    for number in itertools.count():
        told = event(group=f"{os.getpid()}-{number}")
        decision = core.policy.decide(told, time.time())
        if decision.recorded is Recorded.DISK:  # in memory it is not promised to outlive us
            say(f"{decision.verdicts[0].result} {decision.verdicts[0].event_id}")
        core.tick()
        if deliver:
            time.sleep(0.002)
        else:
            settle(outbox)


def settle(outbox: Outbox) -> None:
    """End the oldest request as if it had been delivered."""
    row = outbox.next_row(TARGET)
    if row is not None:
        outbox.update(replace(row, state="delivered", done_at=row.next_at))


def say(text: str) -> None:
    """Write a line at once."""
    os.write(1, f"{text}\n".encode())


def main(mode: str, folder: str, url: str) -> None:
    """Fork one after another."""
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            say(f"pid {os.getpid()}")
            try:
                live(Path(folder), url, deliver=mode == "deliver")
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        say(f"dead {status}")


if __name__ == "__main__":
    main(*sys.argv[1:])
