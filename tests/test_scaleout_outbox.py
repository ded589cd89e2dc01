"""The outbox: what was committed stays, whatever becomes of the disk, the process or the clock."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from scaleout_peers import NOON, FakeClock

from exporter.scaleout import disk, outbox, rows, store
from exporter.scaleout.outbox import Outbox, Recorded
from exporter.scaleout.records import Change, Limits, Row

TARGET = "scaler/webhook/0"


def row(event_id: str = "a", target: str = TARGET, **changes: object) -> Row:
    """Return a pending row."""
    fields: dict[str, object] = {
        "kind": "scale_out.requested",
        "action": "scale-out",
        "group_key": '["llm-a"]',
        "dedupe_key": "d",
        "body": b'{"dry_run": false}',
        "created": NOON,
        "deadline": 1600.0,
        "next_at": 1000.0,
        **changes,
    }
    return Row(event_id, target, **fields)  # type: ignore[arg-type]  # each test gives what fits


def request(*pending: Row, cooldown_until: float = 1300.0) -> Change:
    """Return a decision to send these rows."""
    first = pending[0]
    return Change(
        first.action,
        first.group_key,
        pending,
        fired=(first.event_id, 1000.0),
        cooldown_until=cooldown_until,
        announced=("rule", "llm-a"),
    )


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock to be set."""
    return FakeClock()


@pytest.fixture
def box(tmp_path: Path, clock: FakeClock) -> Iterator[Outbox]:
    """Return an outbox on disk."""
    with closing(Outbox(tmp_path, clock.clock)) as opened:
        yield opened


def again(box: Outbox, folder: Path, clock: FakeClock) -> Outbox:
    """Close an outbox, and open it as the next process does."""
    box.close()
    return Outbox(folder, clock.clock)


def test_commit_survives_the_process(box: Outbox, tmp_path: Path, clock: FakeClock) -> None:
    """Rows, cooldown, firings, announcements and what fires are there after a restart."""
    firing = {("rule", "GPU-0"): ("llm-a", NOON - 10, NOON)}
    assert box.record([request(row())], firing) is Recorded.DISK
    with closing(again(box, tmp_path, clock)) as reopened:
        assert reopened.next_row(TARGET) == row()
        key = ("scale-out", '["llm-a"]')
        expected = Limits({key: 1300.0}, {key: [1000.0]}, {(key, ("rule", "llm-a")): "a"})
        assert reopened.ask(rows.limits, Limits()) == expected
        assert reopened.ask(rows.firing, {}) == firing
        assert reopened.problem == ""


def test_file_is_for_its_owner_alone(box: Outbox, tmp_path: Path) -> None:
    """Neither the database nor its companions can be read by others."""
    box.record([request(row())])
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_settled_row_is_never_sent_again(box: Outbox, tmp_path: Path, clock: FakeClock) -> None:
    """What was delivered stays delivered; what is tried again keeps its plan and its time."""
    box.record([request(row("a"), row("a", "other/webhook/0"))])
    box.update(replace(row("a"), state="delivered", attempts=1, done_at=1001.0))
    later = replace(row("a", "other/webhook/0"), plan="5", attempts=1, next_at=1007.0)
    box.update(later)
    with closing(again(box, tmp_path, clock)) as reopened:
        assert reopened.next_row(TARGET) is None
        assert reopened.next_row("other/webhook/0") == later


def test_newer_request_replaces_a_waiting_one(box: Outbox) -> None:
    """Of a group only the newest request waits, so that an outage piles nothing up."""
    box.record([request(row("a"))])
    box.record([request(row("b"))])
    box.record([request(row("c", group_key='["llm-b"]'))])
    assert box.counts() == {"pending": 2, "superseded": 1}
    # One that was under way when it was replaced: tried no more, but delivered if it was.
    box.update(replace(row("a"), attempts=1, next_at=1.0))
    assert box.counts() == {"pending": 2, "superseded": 1}
    box.update(replace(row("a"), state="delivered"))
    assert box.counts() == {"pending": 2, "delivered": 1}


def test_end_waits_for_its_beginning(box: Outbox) -> None:
    """Within a group, RESOLVED is sent after the request before it, and replaces only its like."""
    box.record([request(row("a", next_at=2000.0))])
    for name in "bc":
        end = row(name, kind="scale_out.resolved")
        box.record([Change(end.action, end.group_key, (end,), withdrawn=("rule", "llm-a"))])
    other = row("d", group_key="[]", next_at=1500.0)
    box.record([request(other)])
    assert box.next_row(TARGET) == other
    box.update(replace(other, state="delivered"))
    first = box.next_row(TARGET)
    assert first is not None
    assert first.event_id == "a"
    box.update(replace(first, state="delivered"))
    then = box.next_row(TARGET)
    assert then is not None
    assert then.event_id == "c"
    assert box.ask(rows.limits, Limits()).announced.keys() == {
        (("scale-out", "[]"), ("rule", "llm-a"))
    }


def test_pending_rows_are_bounded(
    box: Outbox, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """Past the bound a decision is refused whole: no row, no cooldown; later there is room."""
    monkeypatch.setattr(rows, "MAX_PENDING", 10)
    for number in range(10):
        assert box.record([request(row(str(number), group_key=str(number)))]) is Recorded.DISK
    refused = request(row("x", group_key="x"))
    assert box.record([refused]) is Recorded.NOWHERE
    assert ("scale-out", "x") not in box.ask(rows.limits, Limits()).cooldown_until
    assert box.counts() == {"pending": 10}
    box.update(replace(row("0", group_key="0"), state="delivered", done_at=clock.up))
    assert box.record([refused]) is Recorded.DISK


def test_old_rows_are_forgotten(
    box: Outbox, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done is kept a day, what is dead a week, and at most so many of each."""
    for number, state in enumerate(["delivered", "suppressed", "dead", "expired"] * 2):
        one = row(str(number), group_key=str(number))
        box.record([request(one)])
        box.update(replace(one, state=state, done_at=clock.up))
    for hours, left in ((23, 8), (25, 4), (24 * 7 - 1, 4), (24 * 7 + 1, 0)):
        clock.up = 1000.0 + hours * 3600
        box.tend()
        assert sum((box.counts() or {}).values()) == left
    assert box.ask(rows.limits, Limits()) == Limits()
    monkeypatch.setattr(rows, "MAX_ENDED", 3)
    for number in range(8):
        one = row(f"late {number}", group_key=str(number))
        box.record([request(one)])
        box.update(replace(one, state="dead", done_at=clock.up))
    clock.up += outbox.PRUNE_SECONDS
    box.tend()
    assert box.counts() == {"dead": 3}


def test_targets_that_are_gone_end(box: Outbox) -> None:
    """What waits for a target that is not configured any more is dead, the rest waits on."""
    box.record([request(row("a"), row("a", "old/webhook/0"))])
    assert box.end_strangers([TARGET]) == ["old/webhook/0"]
    assert box.counts() == {"pending": 1, "dead": 1}


def test_reboot_keeps_what_remains(box: Outbox, tmp_path: Path, clock: FakeClock) -> None:
    """After a reboot, cooldowns and deadlines are as far away as before, less the time between."""
    box.record([request(row())])
    clock.passes(40)
    clock.reboots(60)
    with closing(again(box, tmp_path, clock)) as reopened:
        waiting = reopened.next_row(TARGET)
        assert waiting is not None
        assert waiting.deadline - clock.up == pytest.approx(500)
        assert waiting.created == NOON
        (until,) = reopened.ask(rows.limits, Limits()).cooldown_until.values()
        assert until - clock.up == pytest.approx(200)


@pytest.mark.parametrize("jump", [-3600.0, -10 * 365 * 86400.0])
def test_clock_set_back_over_a_reboot_prolongs_nothing(
    box: Outbox, tmp_path: Path, clock: FakeClock, jump: float
) -> None:
    """A machine that wakes up in the past takes the time between for none: no cooldown grows."""
    box.record([request(row())])
    clock.jumps(jump)
    clock.reboots()
    with closing(again(box, tmp_path, clock)) as reopened:
        (until,) = reopened.ask(rows.limits, Limits()).cooldown_until.values()
        assert until - clock.up == pytest.approx(300)


def test_unknown_boot_is_another_one(tmp_path: Path, clock: FakeClock) -> None:
    """Where the kernel does not tell the boot, times are translated by the wall clock."""
    clock.boot = ""
    with closing(Outbox(tmp_path, clock.clock)) as box:
        box.record([request(row())])
    clock.now += 100
    clock.up = 7.0
    with closing(Outbox(tmp_path, clock.clock)) as reopened:
        (until,) = reopened.ask(rows.limits, Limits()).cooldown_until.values()
        assert until - clock.up == pytest.approx(200)


# Disks that cannot be used.


def test_without_a_folder_all_is_in_memory(clock: FakeClock) -> None:
    """Without a storage path requests are sent, and the outbox says that it is not durable."""
    with closing(Outbox(None, clock.clock)) as box:
        assert box.record([request(row())]) is Recorded.MEMORY
        assert box.next_row(TARGET) == row()
        box.update(replace(row(), state="delivered"))
        assert box.counts() == {"delivered": 1}
        assert "no storage path" in box.problem


def test_unusable_folder_is_used_once_it_can_be(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """If the folder cannot be used, memory serves; later all of it is brought to the disk."""
    folder = tmp_path / "storage"
    folder.write_text("a file where the folder should be")
    with closing(Outbox(folder, clock.clock)) as box:
        assert box.record([request(row("a"))]) is Recorded.MEMORY
        assert box.record([request(row("b", group_key="b"))]) is Recorded.MEMORY
        box.update(replace(row("a"), state="delivered", done_at=clock.up))
        folder.unlink()
        assert not box.tend()  # not yet
        clock.passes(outbox.TEND_SECONDS)
        assert box.tend()
        assert box.problem == ""
        assert box.counts() == {"pending": 1, "delivered": 1}
        clock.passes(outbox.TEND_SECONDS)
        assert not box.tend()
    with closing(Outbox(folder, clock.clock)) as reopened:
        assert reopened.counts() == {"pending": 1, "delivered": 1}
        assert len(reopened.ask(rows.limits, Limits()).cooldown_until) == 2
    errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert str(folder) in errors[0]


def test_lock_of_another_process_delays_nothing(box: Outbox, tmp_path: Path) -> None:
    """While another process has the database locked, requests go through memory at once."""
    box.record([request(row("a"))])
    with closing(sqlite3.connect(tmp_path / disk.FILE, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        assert box.record([request(row("b"))]) is Recorded.MEMORY
        box.update(replace(row("a"), state="delivered"))
        assert time.monotonic() - began < 5.0
        assert "locked" in box.problem
        found = box.next_row(TARGET)
        assert found is not None
        assert found.event_id == "b"
        other.execute("ROLLBACK")
    box.update(replace(row("b"), state="delivered"))
    assert box.next_row(TARGET) is None
    assert box.counts() == {"delivered": 2}  # no row is counted twice
    assert box.problem != ""  # until it is on disk


def test_what_memory_took_over_comes_home(box: Outbox, tmp_path: Path, clock: FakeClock) -> None:
    """A row that could not be settled on disk is settled there later, and not sent again."""
    box.record([request(row("a"), row("a", "slow/webhook/0"))])
    with closing(sqlite3.connect(tmp_path / disk.FILE, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        box.update(replace(row("a"), state="delivered"))
        box.update(replace(row("a", "slow/webhook/0"), attempts=3, next_at=1042.0))
        other.execute("ROLLBACK")
    assert box.next_row(TARGET) is None
    clock.passes(outbox.TEND_SECONDS)
    box.tend()
    assert box.problem == ""
    with closing(again(box, tmp_path, clock)) as reopened:
        assert reopened.next_row(TARGET) is None
        slow = reopened.next_row("slow/webhook/0")
        assert slow is not None
        assert (slow.attempts, slow.next_at) == (3, 1042.0)


def test_second_daemon_leaves_the_file_alone(box: Outbox, tmp_path: Path, clock: FakeClock) -> None:
    """Only one daemon sends what is in a folder; another uses its memory, until the first ends."""
    box.record([request(row())])
    with closing(Outbox(tmp_path, clock.clock)) as second:
        assert "another daemon uses" in second.problem
        assert second.next_row(TARGET) is None
        box.close()
        clock.passes(outbox.TEND_SECONDS)
        assert second.tend()
        assert second.next_row(TARGET) is not None


@pytest.mark.parametrize(
    "content",
    [b"no database at all" * 100, b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 8000],
    ids="text zeros header".split(),
)
def test_damaged_file_is_moved_aside(tmp_path: Path, clock: FakeClock, content: bytes) -> None:
    """A file that is no outbox is kept under another name, and an empty one begun."""
    (tmp_path / disk.FILE).write_bytes(content)
    with closing(Outbox(tmp_path, clock.clock)) as box:
        assert box.record([request(row())]) is Recorded.DISK
    (aside,) = tmp_path.glob("outbox.db.corrupt-*")
    assert aside.read_bytes() == content


def test_database_of_others_is_moved_aside(tmp_path: Path, clock: FakeClock) -> None:
    """A database with other tables is not ours to write to."""
    with closing(sqlite3.connect(tmp_path / disk.FILE)) as other:
        other.execute("CREATE TABLE theirs(a)")
    with closing(Outbox(tmp_path, clock.clock)) as box:
        assert box.record([request(row())]) is Recorded.DISK
    assert len(list(tmp_path.glob("outbox.db.corrupt-*"))) == 1


def test_damaged_page_is_found_at_the_start(box: Outbox, tmp_path: Path, clock: FakeClock) -> None:
    """Damage in the midst of the file is found when it is opened."""
    for number in range(50):
        box.record([request(row(str(number), group_key=str(number)))])
    box.close()
    path = tmp_path / disk.FILE
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with closing(Outbox(tmp_path, clock.clock)) as reopened:
        assert reopened.counts() == {}
        assert reopened.record([request(row())]) is Recorded.DISK
    assert len(list(tmp_path.glob("outbox.db.corrupt-*"))) == 1


def test_only_the_latest_damaged_files_are_kept(tmp_path: Path, clock: FakeClock) -> None:
    """A disk that damages file after file does not fill up with them."""
    for number in range(disk.DAMAGED_KEPT + 3):
        (tmp_path / disk.FILE).write_bytes(b"%d" % number * 1000)
        Outbox(tmp_path, clock.clock).close()
    kept = sorted(tmp_path.glob("outbox.db.corrupt-*"))
    assert [path.read_bytes()[:1] for path in kept] == [b"3", b"4", b"5"]


def test_damage_under_way_loses_nothing_new(box: Outbox, tmp_path: Path, clock: FakeClock) -> None:
    """If the file is damaged while it is open, requests go on through memory to a new file."""
    for number in range(50):
        box.record([request(row(str(number), group_key=str(number)))])
    with closing(sqlite3.connect(tmp_path / disk.FILE)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = tmp_path / disk.FILE
    with path.open("r+b") as file:
        file.seek(0)
        file.write(b"\xff" * path.stat().st_size)
    # Pages in SQLite's cache hide the damage until the file seems to have changed.
    recorded = [box.record([request(row(f"new {n}", group_key=f"new {n}"))]) for n in range(3)]
    assert Recorded.NOWHERE not in recorded
    clock.passes(outbox.TEND_SECONDS)
    box.tend()
    clock.passes(outbox.TEND_SECONDS)
    box.tend()
    assert box.problem == ""
    with closing(again(box, tmp_path, clock)) as reopened:
        assert (reopened.counts() or {})["pending"] >= 3


def test_removed_file_is_made_anew(box: Outbox, tmp_path: Path, clock: FakeClock) -> None:
    """If somebody removes the file, what is pending goes on, in a new one."""
    box.record([request(row())])
    for path in tmp_path.glob("outbox.db*"):
        path.unlink()
    clock.passes(outbox.TEND_SECONDS)
    box.tend()
    assert box.problem == ""
    with closing(again(box, tmp_path, clock)) as reopened:
        assert reopened.next_row(TARGET) == row()


def test_newer_schema_is_left_alone(box: Outbox, tmp_path: Path, clock: FakeClock) -> None:
    """A file of a newer version stays as it is, under its name; memory serves."""
    box.close()
    with closing(sqlite3.connect(tmp_path / disk.FILE)) as other:
        other.execute("UPDATE meta SET schema_version = 99")
        other.commit()
    with closing(Outbox(tmp_path, clock.clock)) as older:
        assert older.record([request(row())]) is Recorded.MEMORY
        assert "schema 99 is newer" in older.problem
    with closing(sqlite3.connect(tmp_path / disk.FILE)) as other:
        assert other.execute("SELECT schema_version FROM meta").fetchone() == (99,)
        assert other.execute("SELECT COUNT(*) FROM outbox").fetchone() == (0,)
    assert list(tmp_path.glob("*corrupt*")) == []


def test_full_file_makes_room(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the size limit, what has ended makes room; then memory serves, up to its own limit."""
    monkeypatch.setattr(store, "MAX_PAGES", 40)
    with closing(Outbox(tmp_path, clock.clock)) as box:
        big = b'{"dry_run": false, "pad": "%s"}' % (b"x" * 8000)
        for number in range(60):
            one = row(str(number), group_key=str(number), body=big)
            assert box.record([request(one)]) is Recorded.DISK
            box.update(replace(one, state="delivered", done_at=clock.up))
        assert box.problem == ""
        kinds = [
            box.record([request(row(f"p{n}", group_key=f"p{n}", body=big))]) for n in range(30)
        ]
        assert list(dict.fromkeys(kinds)) == [Recorded.DISK, Recorded.MEMORY, Recorded.NOWHERE]
        assert "full" in box.problem
        assert (box.counts() or {})["pending"] == 30 - kinds.count(Recorded.NOWHERE)
        assert (tmp_path / disk.FILE).stat().st_size <= 40 * 4096


FULL_DISK = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
from scaleout_peers import FakeClock
from test_scaleout_outbox import request, row
from exporter.scaleout.outbox import Outbox, Recorded, TEND_SECONDS

folder, clock = Path({folder!r}), FakeClock()
box = Outbox(folder, clock.clock)
assert box.record([request(row("a"))]) is Recorded.DISK
filler = folder / "filler"
with filler.open("wb", buffering=0) as file:
    try:
        while True:
            file.write(b"x" * 1024)
    except OSError:
        pass
pad = b'{{"pad": "%s"}}' % (b"x" * 9000)
kinds = [box.record([request(row(str(n), group_key=str(n), body=pad))]) for n in range(40)]
assert kinds[-1] is Recorded.MEMORY, kinds
assert "full" in box.problem or "I/O" in box.problem, box.problem
box.update(replace(row("a"), state="delivered"))
assert box.counts()["pending"] >= 40
filler.unlink()
clock.passes(TEND_SECONDS)
box.tend()
assert box.problem == "", box.problem
box.close()
again = Outbox(folder, clock.clock)
assert again.counts() == {{"pending": 40, "delivered": 1}}, again.counts()
again.close()

import os, subprocess
subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
box = Outbox(folder, clock.clock)
assert box.record([request(row("b"))]) is Recorded.MEMORY
assert box.problem
box.close()
"""


def test_full_and_read_only_disks(tmp_path: Path) -> None:
    """On a real disk that is full, then read-only, memory serves; with space again, the disk."""
    unshare = shutil.which("unshare")
    tests = str(Path(__file__).parent)
    program = FULL_DISK.format(tests=tests, folder=str(tmp_path))
    mount = f"mount -t tmpfs -o size=1m none {tmp_path}"
    inside = [unshare or "unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*inside, mount], capture_output=True, check=False).returncode:
        pytest.skip("this kernel lets nobody mount a file system of his own")
    done = subprocess.run(
        [*inside, f'{mount} && exec "$0" -c "$1"', sys.executable, program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_slow_disk_does_not_hold_a_decision(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread waits for the disk, a decision of another goes through memory."""
    inside, go_on = threading.Event(), threading.Event()
    real = rows.update

    def slow(db: sqlite3.Connection, one: Row) -> int:
        if one.event_id == "slow" and db.execute("PRAGMA database_list").fetchone()[2]:
            inside.set()
            assert go_on.wait(30)
        return real(db, one)

    box.record([request(row("slow"))])
    monkeypatch.setattr(rows, "update", slow)
    thread = threading.Thread(target=box.update, args=(replace(row("slow"), attempts=1),))
    thread.start()
    assert inside.wait(30)
    assert box.record([request(row("quick", group_key="q"))]) is Recorded.MEMORY
    assert box.counts() is None  # unknown is not 0
    go_on.set()
    thread.join()
    assert box.counts() == {"pending": 2}


def test_threads_share_one_outbox(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that record and settle at once lose nothing and raise nothing."""
    monkeypatch.setattr(store, "BUSY_SECONDS", 30.0)  # on a slow machine too
    box = Outbox(tmp_path, clock.clock)
    failures = []

    def work(name: str) -> None:
        target = f"{name}/webhook/0"
        try:
            for number in range(40):
                box.record([request(row(f"{name}{number}", target, group_key=name))])
                found = box.next_row(target)
                assert found is not None
                box.update(replace(found, state="delivered", done_at=1.0))
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert box.counts() == {"delivered": 160}
    box.close()


def test_change_by_another_process_is_noticed(
    box: Outbox, tmp_path: Path, clock: FakeClock
) -> None:
    """A write by a command is noticed once; our own are not."""
    box.changed()
    box.record([request(row())])
    assert not box.changed()
    other = store.Store(tmp_path / disk.FILE, clock.clock)
    with other.writing() as db:
        rows.set_pause(db, None)
    other.close()
    assert box.changed()
    assert not box.changed()
