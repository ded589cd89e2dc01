"""Daemons that record until they are killed, one after another; run by test_recorder_disk.py.

For each it prints where it recorded, and how many samples were on disk before its last tick.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from recorded_node import EPOCH, Node

from exporter.config import Config
from exporter.recorder.flight import Recorder, settings
from exporter.scaleout.model import EventKind, RuleEvent
from exporter.snapshot import Snapshot

BEFORE = 30  # seconds in the ring
LONGEST_SECONDS = 0.3  # of a life


def live(storage: Path, snapshots: list[Snapshot], told: int) -> None:
    """Record until killed; tell after each tick how many samples are written."""
    recorder = Recorder(storage, settings(Config()), "node-7")
    for second, snapshot in enumerate(snapshots):
        at = EPOCH + second
        recorder.add(snapshot, at)
        if second == BEFORE:
            event = RuleEvent("R", EventKind.FIRING, "", "", at, at, (), ("record",))
            recorder.on_event(event)
        recorder._writer._commands.join()
        if second >= BEFORE:
            os.write(told, b".")
    os._exit(1)


def main(storage: Path, lives: int) -> None:
    """Have them live and die."""
    node = Node("t4")
    snapshots = [node.tick() for _ in range(2000)]
    for number in range(lives):
        place = storage / str(number)
        hears, told = os.pipe()
        child = os.fork()
        if child == 0:
            live(place, snapshots, told)
        os.close(told)
        time.sleep(random.uniform(0, LONGEST_SECONDS))  # noqa: S311  any moment will do
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        ticks = 0
        while heard := os.read(hears, 65536):
            ticks += len(heard)
        os.close(hears)
        written = BEFORE + ticks if ticks else 0
        sys.stdout.write(json.dumps({"storage": str(place), "written": written}) + "\n")
    sys.stdout.flush()
    os._exit(0)  # the poller's threads wait for more


main(Path(sys.argv[1]), int(sys.argv[2]))
