"""Log records on their way to journald."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.facts import facts
from exporter.journal import JournalHandler, encode, is_stderr


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    """Give a socket where journald would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as it:
        it.bind(str(tmp_path / "socket"))
        it.settimeout(10)
        yield it


@pytest.fixture
def logger(tmp_path: Path) -> Iterator[logging.Logger]:
    """Give a logger of ours whose lines go there."""
    handler = JournalHandler(str(tmp_path / "socket"))
    logger = logging.getLogger("exporter.planted")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    logger.removeHandler(handler)
    handler.close()


def parse(datagram: bytes) -> dict[str, str]:
    """Read a datagram as journald does: `NAME=value`, or `NAME`, a length, and that many bytes."""
    fields = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(datagram[:8], "little")
            value, datagram = datagram[8 : 8 + size], datagram[8 + size + 1 :]
        fields[name.decode()] = value.decode()
    return fields


def test_a_line_carries_what_it_is_about(journald: socket.socket, logger: logging.Logger) -> None:
    """Facts become fields that `journalctl GPU=3` finds; those that are not known are left out."""
    about = facts(gpu=3, uuid="GPU-13bb", xid=79, rule=None, group="")
    logger.error("GPU %d gives no readings", 3, extra=about)
    assert parse(journald.recv(65536)) == {
        "MESSAGE": "GPU 3 gives no readings",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "gpu-node-exporter",
        "SOURCE": "planted",
        "GPU": "3",
        "UUID": "GPU-13bb",
        "XID": "79",
    }


def test_levels_are_syslog_s(journald: socket.socket, logger: logging.Logger) -> None:
    """`journalctl -p warning` shows warnings and worse."""
    for level, priority in (("debug", "7"), ("info", "6"), ("warning", "4"), ("critical", "2")):
        getattr(logger, level)("said")
        assert parse(journald.recv(65536))["PRIORITY"] == priority


def test_text_cannot_forge_a_field(journald: socket.socket, logger: logging.Logger) -> None:
    """Lines in a message, or in a fact, stay inside it; a traceback is part of the message."""
    try:
        dict[str, int]()["planted"]
    except KeyError:
        logger.exception("it broke\nPRIORITY=0", extra=facts(rule="a\nGPU=1"))
    fields = parse(journald.recv(65536))
    assert fields["MESSAGE"].startswith("it broke\nPRIORITY=0\nTraceback")
    assert "KeyError" in fields["MESSAGE"]
    assert (fields["PRIORITY"], fields["RULE"]) == ("3", "a\nGPU=1")
    assert "GPU" not in fields


def test_what_is_no_unicode_is_logged_too() -> None:
    """A lone surrogate, as undecodable file names have, is written as an escape."""
    assert encode([("MESSAGE", "\udc80")]) == b"MESSAGE=\\udc80\n"


@pytest.mark.parametrize("text", ["short", "long " * 100_000])
def test_nothing_is_lost_without_journald(
    tmp_path: Path, logger: logging.Logger, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    """What journald does not take, while it restarts or for its length, goes to stderr."""
    assert not (tmp_path / "socket").exists() or text != "short"
    logger.warning("%s", text)
    assert capfd.readouterr().err == f"<4>{text}\n"


def test_only_a_stderr_that_is_the_journal_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """JOURNAL_STREAM is inherited by children whose stderr goes elsewhere: it must match."""
    stat = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino}")
    assert is_stderr()
    monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino + 1}")
    assert not is_stderr()
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not is_stderr()
