"""kill -9, again and again: what was committed is delivered, and twice only under the same id."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from scaleout_peers import config, serving, wait_until, webhook

from exporter.scaleout import disk
from exporter.scaleout.clock import system_clock
from exporter.scaleout.core import Core
from exporter.scaleout.receivers import Place, targets

PROGRAM = Path(__file__).parent / "scaleout_killed.py"
ROUNDS = int(os.environ.get("SCALEOUT_KILLS", "60"))


class Lives:
    """Daemons that are started one after another, and killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.committed: list[str] = []

    def one(self, acknowledged: int) -> None:
        """Start one, kill it once it has committed so many requests more, and see it dead."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        pid = int(self._line("pid"))
        for _ in range(acknowledged):
            self.committed.append(self._line("fired"))
        os.kill(pid, signal.SIGKILL)
        while (line := self._read())[0] != "dead":
            assert line[0] == "fired", line
            self.committed.append(line[1])
        assert line[1] == str(signal.SIGKILL.value)  # and of nothing else

    def _line(self, word: str) -> str:
        first, second = self._read()
        assert first == word, (first, second)
        return second

    def _read(self) -> tuple[str, str]:
        assert self._process.stdout is not None
        first, _, second = self._process.stdout.readline().rstrip("\n").partition(" ")
        return first, second


@contextmanager
def lives(mode: str, folder: Path, url: str) -> Iterator[Lives]:
    """Give what starts and kills daemons on a folder."""
    command = [sys.executable, str(PROGRAM), mode, str(folder), url]
    with (
        (folder / "stderr").open("w") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            yield Lives(process)
        finally:
            process.kill()


def verdict(folder: Path) -> str:
    """Return what SQLite thinks of the file."""
    with closing(sqlite3.connect(folder / disk.FILE)) as db:
        ((said,),) = db.execute("PRAGMA integrity_check")
        return str(said)


def test_kill_while_committing_loses_nothing(tmp_path: Path) -> None:
    """Over 60 kills in the midst of commits, every acknowledged request is in the file."""
    chance = random.Random(1)  # noqa: S311  where to kill
    with lives("decide", tmp_path, "http://127.0.0.1:1/") as killed:
        for _ in range(ROUNDS):
            killed.one(chance.randrange(40))
    assert verdict(tmp_path) == "ok"
    with closing(sqlite3.connect(tmp_path / disk.FILE)) as db:
        kept = [event_id for (event_id,) in db.execute("SELECT event_id FROM outbox")]
        fired = {event_id for (event_id,) in db.execute("SELECT event_id FROM fired")}
    assert len(killed.committed) > ROUNDS
    assert set(killed.committed) <= set(kept)
    assert set(kept) == fired  # a row without its cooldown, or the other way round, never was
    assert len(kept) - len(killed.committed) <= ROUNDS  # one that was not acknowledged per kill
    assert list(tmp_path.glob("*corrupt*")) == []


def test_kill_while_sending_loses_nothing(tmp_path: Path) -> None:
    """Over 60 kills in the midst of deliveries, every request arrives; doubles have one id."""
    chance = random.Random(2)  # noqa: S311  where to kill
    with serving() as peer:
        with lives("deliver", tmp_path, peer.url) as killed:
            for _ in range(ROUNDS):
                killed.one(chance.randrange(12))
        clock, place = system_clock(), Place({}, "node", "")
        whole = config(webhook(peer.url))
        last = Core(whole, targets(whole.receivers, place, clock), tmp_path, place, clock)
        try:
            wait_until(lambda: set(killed.committed) <= set(peer.ids()))
            wait_until(lambda: last.view().outbox["pending"] == 0)
            assert last.view().outbox["dead"] == last.view().outbox["expired"] == 0
        finally:
            last.stop()
        received: defaultdict[str, set[bytes]] = defaultdict(set)
        for said in list(peer.said):
            received[said.headers["webhook-id"]].add(said.body)
    assert set(killed.committed) <= set(received)
    assert all(len(bodies) == 1 for bodies in received.values())
    assert len(peer.said) - len(received) <= ROUNDS  # one was under way at each kill
    assert verdict(tmp_path) == "ok"
