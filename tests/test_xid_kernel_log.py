"""The kernel log as a source: what was there, what comes, what is forged, and how it ends."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from kernel_log_feed import (
    USER,
    FakeJournal,
    Fifo,
    entry,
    eventually,
    kmsg,
    reading,
    told,
    xid_line,
)

from exporter.xid import kernel_log
from exporter.xid.journal import Journal
from exporter.xid.kernel_log import UnreadableError
from exporter.xid.kmsg import Kmsg
from exporter.xid.ledger import Ledger

GPU = "0000:3b:00.0"


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait for long."""
    monkeypatch.setattr(kernel_log, "WAIT_SECONDS", 0.05)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    """Give a FIFO in the place of /dev/kmsg."""
    fifo = Fifo(tmp_path / "kmsg")
    yield fifo
    fifo.close()


@pytest.fixture
def journal(tmp_path: Path) -> FakeJournal:
    """Give a journalctl that is a script."""
    return FakeJournal(tmp_path)


def counts(ledger: Ledger) -> dict[int, int]:
    """Return how often GPU had each XID."""
    return {xid: count.total for (gpu, xid), count in ledger.state().counts.items() if gpu == GPU}


def test_kmsg_past_and_present(fifo: Fifo) -> None:
    """What was logged before the start counts once, at its own time; then what comes."""
    past = round((time.monotonic() - 3600) * 1e6)
    fifo.write(kmsg("usb 1-1: new device"), kmsg(xid_line(48), past))
    ledger = Ledger()
    with reading(ledger, partial(Kmsg, fifo.path)) as log:
        eventually(lambda: log.is_up)
        assert log.is_settled
        assert counts(ledger) == {48: 1}
        happened = ledger.state().counts[GPU, 48].last_seconds
        assert happened == pytest.approx(time.time() - 3600, abs=30)
        fifo.write(kmsg(xid_line(79), past + 1))  # the kernel's stamps drift: this came now
        eventually(lambda: counts(ledger) == {48: 1, 79: 1})
        assert ledger.state().counts[GPU, 79].last_seconds == pytest.approx(time.time(), abs=30)


def test_a_restart_counts_no_line_again(fifo: Fifo) -> None:
    """Lines up to the saved mark are known; those behind it came while we were away."""
    lines = [
        kmsg(xid_line(xid), second * 1_000_000) for second, xid in ((5, 31), (9, 79), (11, 31))
    ]
    fifo.write(*lines[:2])
    first = Ledger()
    with reading(first, partial(Kmsg, fifo.path)) as log:
        eventually(lambda: log.is_up)
    fifo.write(*lines)  # the kernel shows all of its log to who opens it
    second = Ledger(first.state())
    with reading(second, partial(Kmsg, fifo.path)) as log:
        eventually(lambda: log.is_up)
        assert counts(second) == {31: 2, 79: 1}
        assert told(second) == {"counted": 1}
        fifo.write(kmsg(xid_line(48), 10_000_000))  # stamped by a processor that is behind
        eventually(lambda: counts(second) == {31: 2, 79: 1, 48: 1})


def test_look_alikes_do_not_count(fifo: Fifo) -> None:
    """What user space wrote, and what is broken, is counted as such; the rest is not ours."""
    fifo.write(
        kmsg(xid_line(79), priority=USER),
        kmsg("something else of user space: NVRM: hello", priority=USER),
        kmsg("NVRM: Xid (PCI:nowhere): 79, x"),
        kmsg(f"python3[7]: {xid_line(79)}"),
        "NVRM: no record at all\n",
        kmsg(xid_line(31)),
    )
    ledger = Ledger()
    with reading(ledger, partial(Kmsg, fifo.path)):
        eventually(lambda: counts(ledger) == {31: 1})
        assert told(ledger) == {"counted": 1, "malformed": 1, "user_space": 1, "dropped": 1}


def test_a_flood_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred thousand lines, and one without end, what counts is found in little memory."""
    path = tmp_path / "kmsg"
    with path.open("w") as file:
        for number in range(100_000):
            file.write(kmsg(f"NVRM: noise {number}", number))
            if number % 10_000 == 0:
                file.write(kmsg(xid_line(number // 10_000 + 1), number))
        file.write("x" * 300_000 + "\n" + kmsg(xid_line(99)))
    ledger = Ledger()
    reader = Kmsg(path)
    while reader.has_more:
        reader.read(0.0)
        assert len(reader._partial) <= 64 << 10
    reader.close()
    monkeypatch.setattr(kernel_log, "BREATH_SECONDS", 0.0)
    with reading(ledger, partial(Kmsg, path)) as log:
        eventually(lambda: log.is_up)
    assert counts(ledger) == {**dict.fromkeys(range(1, 11), 1), 99: 1}


def test_records_that_were_overwritten_are_counted(
    fifo: Fifo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says EPIPE when the ring has passed us; reading goes on behind the hole."""
    read, holes = os.read, [True]

    def read_with_hole(fd: int, size: int) -> bytes:
        if holes and fd == reader._fd:
            holes.clear()
            raise BrokenPipeError
        return read(fd, size)

    reader = Kmsg(fifo.path)
    fifo.write(kmsg(xid_line(79)))
    monkeypatch.setattr(os, "read", read_with_hole)
    ledger = Ledger()
    with reading(ledger, lambda: reader):
        eventually(lambda: counts(ledger) == {79: 1})
        assert told(ledger) == {"counted": 1, "dropped": 1}


def test_where_kmsg_is_closed_the_journal_is_read(tmp_path: Path, journal: FakeJournal) -> None:
    """The past by one journalctl, the present by another that begins behind its last line."""
    journal.past(
        entry("Linux version 6.1", 0),
        entry(xid_line(48), 5),
        entry("Xid (PCI:0000:3b:00): 79, forged", 6, facility=1),
        entry("the last", 7),
    )
    ledger = Ledger()
    openers = partial(Kmsg, tmp_path / "nothing"), partial(Journal, str(journal.program))
    with reading(ledger, *openers) as log:
        eventually(lambda: log.is_up)
        assert counts(ledger) == {48: 1}
        journal.add(entry(xid_line(79), 9), entry(xid_line(31), 10))
        eventually(lambda: counts(ledger) == {48: 1, 79: 1, 31: 1})
    past, present = journal.calls()
    assert "--follow" not in past
    assert present.endswith("--follow --no-tail --after-cursor=cursor-7")


def test_without_any_way_it_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names every way and why it is closed; the past counts as settled; it tries again."""
    monkeypatch.setattr(kernel_log, "RETRY_SECONDS", 0.02)
    fifo = tmp_path / "later"
    openers = partial(Kmsg, fifo), partial(Journal, "no-such-journalctl")
    ledger = Ledger()
    with caplog.at_level(logging.INFO), reading(ledger, *openers) as log:
        eventually(lambda: log.is_settled)
        assert not log.is_up
        time.sleep(0.05)
        (tmp_path / "new").write_text(kmsg(xid_line(79)))
        (tmp_path / "new").rename(fifo)
        eventually(lambda: counts(ledger) == {79: 1} and log.is_up)
    assert caplog.messages[0] == (
        f"XID errors are not taken from the kernel log: {fifo}: No such file or directory;"
        " no no-such-journalctl here"
    )
    assert [m for m in caplog.messages if m.startswith("XID errors are")][1:] == [
        f"XID errors are taken from {fifo}"
    ]


def test_a_journal_that_shows_nothing_is_none(
    journal: FakeJournal, caplog: pytest.LogCaptureFixture
) -> None:
    """Who may not read the system's journal sees no lines, and no error: we say what would help."""
    journal.past(code=1)
    with reading(Ledger(), partial(Journal, str(journal.program))) as log:
        eventually(lambda: log.is_settled)
        assert not log.is_up
    assert "let this user into the group systemd-journal" in caplog.text


def test_a_journal_that_ends_is_read_anew(
    journal: FakeJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When journalctl is gone, the source is down, and the next one counts nothing twice."""
    monkeypatch.setattr(kernel_log, "RETRY_SECONDS", 0.02)
    journal.past(entry(xid_line(48), 5))
    ledger = Ledger()
    with reading(ledger, partial(Journal, str(journal.program))) as log:
        eventually(lambda: log.is_up)
        journal.past(entry(xid_line(48), 5), entry(xid_line(79), 50))
        journal.end()
        eventually(lambda: counts(ledger) == {48: 1, 79: 1})


def test_the_real_kernel_log_is_one() -> None:
    """/dev/kmsg of this machine is read to its end, or closed to us; both without a hitch."""
    path = Path("/dev/kmsg")
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as closed:
        with pytest.raises(UnreadableError, match=f"/dev/kmsg: {closed.strerror}"):
            Kmsg(path)
        return
    reader = Kmsg(path)
    for _ in range(1000):
        assert all(record.microseconds >= 0 for record in reader.read(0.0))
        if not reader.has_more:
            break
    reader.close()
    assert not reader.has_more
