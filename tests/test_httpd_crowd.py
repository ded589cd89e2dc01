"""The real daemon among hundreds of hostile clients: answered, bounded, and unharmed."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import pytest
from chaos import ROUNDS
from daemon import Daemon, running
from hostile_crowd import Manner, crowd
from http_client import connect, get
from web_files import TLS, WebFiles

pytestmark = pytest.mark.chaos

CLIENTS = 500
SCRAPES = 4 * ROUNDS
MOST_CONNECTIONS = 256
STAY_SECONDS = 10.0  # docs/security.md
SLACK_SECONDS = 5.0  # of a busy machine
MIB = 1 << 20
RECEIVER = "alertmanager_receiver: {routes: [{matchers: [], action: record}]}\n"


@pytest.mark.parametrize(
    "storms",
    [
        pytest.param(False, id="siege", marks=pytest.mark.chaos(long=True)),
        pytest.param(True, id="storm"),
    ],
)
def test_crowd(storms: bool) -> None:
    """500 of all manners at once, once or again and again: no scrape fails, no trace is left."""
    with running("--simulate", config=RECEIVER) as daemon:
        daemon.page()
        files, resident = daemon.descriptors, daemon.resident_bytes
        with crowd(daemon.port, CLIENTS, storms=storms) as clients:
            for _ in range(SCRAPES):
                assert daemon.page().up() == [1.0] * 8
                # Those that are just being closed for a new one have their file still.
                assert daemon.descriptors <= files + MOST_CONNECTIONS + 100
                assert daemon.resident_bytes <= resident + 64 * MIB
            clients.calm()
            if ROUNDS > 1:
                assert clients.gone.wait(STAY_SECONDS + SLACK_SECONDS)
                assert clients.longest_stay_seconds < STAY_SECONDS + SLACK_SECONDS
        assert clients.thrown_out >= CLIENTS - MOST_CONNECTIONS
        assert "256 connections are the most" in daemon.log
        unharmed(daemon, files)


def unharmed(daemon: Daemon, files: int) -> None:
    """Prove that a daemon has no more files open than before, nothing to tell, and ends well."""
    daemon.eventually(lambda: True if daemon.descriptors <= files + 1 else None)
    assert daemon.messages("warning") == daemon.messages("error") == []
    assert "Traceback" not in daemon.log
    code, seconds = daemon.stop()
    assert (code, seconds < SLACK_SECONDS) == (0, True)


def hello(tls: ssl.SSLContext) -> bytes:
    """Return how a client begins a handshake."""
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    return sent.read()


def shown(daemon: Daemon, tls: ssl.SSLContext) -> int:
    """Scrape once, and return the serial number of the certificate that was shown."""
    with connect(daemon.port, tls=tls) as client:
        assert client.get().status == 200
        assert isinstance(client.sock, ssl.SSLSocket)
        certificate = client.sock.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)


def test_tls_crowd(tmp_path: Path) -> None:
    """Handshakes that stall, drip, break off or are none: scrapes go on, a new certificate too."""
    files = WebFiles(tmp_path)
    tls = files.trusting()
    start = hello(tls)
    manners = (
        Manner(),
        Manner(start),
        Manner(start[:100]),
        Manner(start[:50], start[50:60], every_seconds=1.0),
        Manner(start, resets=True),
        Manner(start + b"\x17\x03\x03\x00\x10" + b"?" * 16),
        Manner(b"\x16\x03\x01\xff\xff", b"\x00" * 1000),
        Manner(get()),
    )
    flag = f"--web.config.file={files.write(TLS)}"
    with running("--simulate", flag, config=RECEIVER, tls=tls) as daemon:
        open_files, resident = daemon.descriptors, daemon.resident_bytes
        first = shown(daemon, tls)
        with crowd(daemon.port, CLIENTS, manners, storms=True, source="127.0.0.2") as clients:
            for _ in range(SCRAPES // 2):
                assert shown(daemon, tls) == first
            files.renew()
            for _ in range(SCRAPES // 2):
                assert shown(daemon, tls) != first
                assert daemon.descriptors <= open_files + MOST_CONNECTIONS + 100
                assert daemon.resident_bytes <= resident + 64 * MIB
            clients.calm()
            if ROUNDS > 1:
                assert clients.gone.wait(STAY_SECONDS + SLACK_SECONDS)
        unharmed(daemon, open_files)


def test_tls_connections_are_lean(tmp_path: Path) -> None:
    """Those who have shaken hands cost little memory each, those who do not read not much more."""
    files = WebFiles(tmp_path)
    tls = files.trusting()
    flag = f"--web.config.file={files.write(TLS)}"
    with running("--simulate", flag, tls=tls) as daemon, contextlib.ExitStack() as stack:
        before = daemon.resident_bytes
        for _ in range(100):
            stack.enter_context(connect(daemon.port, tls=tls)).send(b"GET /met")
        daemon.page()
        assert daemon.resident_bytes <= before + 100 * 128 * 1024
        for _ in range(100):
            deaf = stack.enter_context(connect(daemon.port, tls=tls, receive_bytes=4096))
            deaf.send(get() * 20)
        daemon.page()
        assert daemon.resident_bytes <= before + 100 * 256 * 1024
