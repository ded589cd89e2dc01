"""The bounds of the HTTP server: time, connections, memory and file descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_client import (
    PATIENCE_SECONDS,
    Client,
    Running,
    connect,
    get,
    serving,
    silent_log,
    wait_until,
)

from exporter.httpd import Limits, Request, Response, Route
from exporter.httpd.connection import Connection, Stage

__all__ = ["silent_log"]  # for pytest

PAGE = b"gpu_up 1\n" * 1_000_000  # more than the kernel keeps for a client that does not read
ROUTES = (
    Route("/metrics", ("GET",), lambda _: Response(200, b"gpu_up 1\n")),
    Route("/page", ("GET",), lambda _: Response(200, PAGE)),
    Route("/upload", ("POST",), lambda request: Response(200, request.body), max_body_bytes=1000),
)
DOCS = Path(__file__).resolve().parents[1] / "docs"
CLOSING_SECONDS = 0.1  # 256 connections at once took 0.04 s with both cores busy
IMPATIENT = Limits(request_seconds=0.4, idle_seconds=PATIENCE_SECONDS)


def stages(running: Running) -> list[Stage]:
    """Return where the connections of a server stand."""
    return [connection.stage for connection in running.server._connections.copy()]


def timer_seconds(running: Running) -> float:
    """Return how far away the server's next look at its deadlines is."""
    timer = running.server._deadline_timer
    return 0.0 if timer is None else timer.when() - running.loop.time()


def drip(client: Client) -> None:
    """Send a byte now and then until the server has had enough."""
    client.sock.settimeout(0.05)
    end = time.monotonic() + PATIENCE_SECONDS
    with contextlib.suppress(ConnectionError, EOFError):  # a byte on its way turns 408 into a reset
        while time.monotonic() < end:
            client.send(b"a")
            with contextlib.suppress(TimeoutError):
                assert client.answer().status == 408
                return
        pytest.fail("the server has no end of patience")


@pytest.fixture(scope="module")
def impatient() -> Iterator[Running]:
    """Serve with little time for each request."""
    with serving(ROUTES, IMPATIENT) as running:
        yield running


# Time


@pytest.mark.parametrize(
    "start",
    [
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nA: ",
        get("/upload", "Content-Length: 900", method="POST"),
        get("/upload", "Transfer-Encoding: chunked", method="POST") + b"384\r\n",
    ],
    ids=["header", "body", "chunk"],
)
@pytest.mark.parametrize("earlier_requests", [0, 1])
def test_slow_request(impatient: Running, start: bytes, earlier_requests: int) -> None:
    """A request that stalls or drips is answered with 408 and closed, on any connection."""
    with connect(impatient.port) as stalling, connect(impatient.port) as dripping:
        for client in (stalling, dripping):
            for _ in range(earlier_requests):
                assert client.get().status == 200
            client.send(start)
        drip(dripping)
        answer = stalling.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert b"not complete after 0.4 s" in answer.body
        assert stalling.rest() == b""


def test_documented_time() -> None:
    """A request has the time that the documents tell, and 10 s leave some for closing it."""
    seconds = Limits().request_seconds
    assert seconds <= 10.0 - CLOSING_SECONDS
    for name, told in (("operations", "A request has {} s"), ("security", "| {} s, the handshake")):
        text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        assert told.format(f"{seconds:g}") in text


def test_silent_connection(impatient: Running) -> None:
    """A connection without any request is closed without a word."""
    with connect(impatient.port) as client:
        assert client.rest() == b""


def test_client_that_does_not_read(impatient: Running) -> None:
    """Who does not take the answer in time loses it, and costs the server nothing more."""
    with connect(impatient.port, receive_bytes=4096) as client:
        client.send(get("/page"))
        wait_until(lambda: bool(impatient.server._connections))
        wait_until(lambda: not impatient.server._connections)
        assert len(client.rest()) < len(PAGE)


def test_client_that_reads_too_slowly(impatient: Running) -> None:
    """The time of an answer is bounded even if a bit of it is taken all the time."""
    with connect(impatient.port, receive_bytes=4096) as client:
        client.send(get("/page"))
        wait_until(lambda: bool(impatient.server._connections))
        received = 0
        while impatient.server._connections:
            received += len(client.sock.recv(1024))
            time.sleep(0.001)
        assert received + len(client.rest()) < len(PAGE)


def test_pipelining_without_reading() -> None:
    """Answers are made one at a time, and only for a client that takes them."""
    served = []

    def page(request: Request) -> Response:
        served.append(request.query)
        return Response(200, PAGE)

    with serving([Route("/page", ("GET",), page)], IMPATIENT) as running:
        with connect(running.port, receive_bytes=4096) as client:
            client.send(get("/page") * 100)
            wait_until(lambda: bool(served))
            wait_until(lambda: not running.server._connections)
        assert len(served) == 1


def test_reading_pauses_while_an_answer_waits() -> None:
    """What a client sends beside an answer that it does not take stays out of memory."""
    with serving(ROUTES) as running, connect(running.port, receive_bytes=4096) as client:
        client.send(get("/page"))
        wait_until(lambda: stages(running) == [Stage.WRITING])
        [connection] = running.server._connections
        wait_until(lambda: not connection._transport.is_reading())
        client.send(get() * 1000)
        assert not connection._transport.is_reading()


@pytest.mark.parametrize("misdeed", [b"GET /met", get("/page"), b"\r\n\r\n"])
def test_misdeed_after_a_long_rest(misdeed: bytes) -> None:
    """Deadlines hold too where the only timer has been set for an idle connection."""
    limits = Limits(request_seconds=0.2, idle_seconds=10 * PATIENCE_SECONDS)
    with serving(ROUTES, limits) as running, connect(running.port, receive_bytes=4096) as client:
        assert client.get().status == 200
        wait_until(lambda: timer_seconds(running) > PATIENCE_SECONDS)
        client.send(misdeed)
        wait_until(lambda: not running.server._connections)


def test_slow_but_honest_reader() -> None:
    """An answer that does not fit into the socket buffers arrives whole."""
    with serving(ROUTES) as running, connect(running.port, receive_bytes=65536) as client:
        for _ in range(2):
            assert client.get("/page").body == PAGE


def test_patience_between_requests(impatient: Running) -> None:
    """Between two requests a connection may rest for longer than a request may take."""
    with connect(impatient.port) as client:
        assert client.get().status == 200
        time.sleep(3 * IMPATIENT.request_seconds)
        assert client.get().status == 200


def test_idle_connection() -> None:
    """A connection that asks for nothing more is closed in the end."""
    with (
        serving(ROUTES, Limits(request_seconds=60, idle_seconds=0.2)) as running,
        connect(running.port) as client,
    ):
        assert client.get().status == 200
        assert client.rest() == b""


def test_refused_client_that_stays() -> None:
    """Who does not leave after the last answer is closed in time."""
    with serving(ROUTES, IMPATIENT) as running, connect(running.port) as client:
        client.send(b"\r\n\r\n")
        assert client.answer().status == 400
        assert client.rest() == b""
        wait_until(lambda: not running.server._connections)
        with pytest.raises(ConnectionError):
            client.send_for_ever()


def test_idle_server() -> None:
    """A server without connections has no timer."""
    with serving(ROUTES, Limits(request_seconds=0.1)) as running:
        with connect(running.port) as client:
            assert client.get().status == 200
            assert running.server._deadline_timer is not None
        wait_until(lambda: running.server._deadline_timer is None)


# Connections


def test_full_house() -> None:
    """Many idle, silent and dripping clients do not keep a scrape out."""
    with serving(ROUTES, Limits(connections=10)) as running, contextlib.ExitStack() as stack:
        hostile = [stack.enter_context(connect(running.port)) for _ in range(30)]
        for client in hostile[::2]:
            with contextlib.suppress(ConnectionError):
                client.send(b"GET /metrics HTTP/1.1\r\n")
        for _ in range(5):
            with connect(running.port) as scraper:
                assert scraper.get().status == 200
        assert len(running.server._connections) <= 10
        assert all(client.rest() == b"" for client in hostile[:20])


def test_order_of_eviction() -> None:
    """The oldest idle connection goes first; without one, the oldest incomplete request."""
    rest_of_request = get().removeprefix(b"GET /met")
    with serving(ROUTES, Limits(connections=3)) as running, contextlib.ExitStack() as stack:
        silent = stack.enter_context(connect(running.port))
        started = stack.enter_context(connect(running.port))
        started.send(b"GET /met")
        idle = stack.enter_context(connect(running.port))
        assert idle.get().status == 200
        fourth = stack.enter_context(connect(running.port))
        assert fourth.get().status == 200
        assert idle.rest() == b""
        fourth.send(b"GET /met")
        wait_until(lambda: set(stages(running)) == {Stage.READING})
        fifth = stack.enter_context(connect(running.port))
        assert fifth.get().status == 200
        assert silent.rest() == b""
        for client in (started, fourth):
            client.send(rest_of_request)
            assert client.answer().status == 200


def test_busy_clients_are_closed_by_age() -> None:
    """Clients that do not take their answers have no better claim than one who comes after them."""
    with serving(ROUTES, Limits(connections=3)) as running, contextlib.ExitStack() as stack:
        deaf = []
        for count in range(1, 4):
            deaf.append(stack.enter_context(connect(running.port, receive_bytes=4096)))
            deaf[-1].send(get("/page"))
            wait_until(lambda count=count: stages(running) == [Stage.WRITING] * count)  # type: ignore[misc]  # mypy has no type for a default here
        honest = stack.enter_context(connect(running.port))
        wait_until(lambda: Stage.READING in stages(running))
        stack.enter_context(connect(running.port))
        wait_until(lambda: stages(running).count(Stage.READING) == 2)
        assert honest.get().status == 200


def test_who_has_most_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    """A host with many connections pushes out its own: another's stay, idle ones too. One is told.

    The line comes at once, and then once a minute at most.
    """
    caplog.set_level(logging.INFO)
    with serving(ROUTES, Limits(connections=10)) as running, contextlib.ExitStack() as stack:
        others = [stack.enter_context(connect(running.port, source=f"127.0.0.{n}")) for n in (2, 3)]
        assert [other.get().status for other in others] == [200, 200]
        many = [stack.enter_context(connect(running.port)) for _ in range(50)]
        assert all(client.rest() == b"" for client in many[:42])
        wait_until(lambda: len(running.server._connections) == 10)
        assert [record.getMessage() for record in caplog.records] == [
            "10 connections are the most: 1 closed for newer ones, last of 127.0.0.1"
        ]
        assert [other.get().status for other in others] == [200, 200]


def test_first_of_a_flood_is_answered() -> None:
    """A request that has arrived is read before those that come behind it fill the house."""
    with serving(ROUTES, Limits(connections=100)) as running, contextlib.ExitStack() as stack:
        may = threading.Event()
        running.loop.call_soon_threadsafe(may.wait, PATIENCE_SECONDS)
        first = stack.enter_context(connect(running.port))
        first.send(get())
        for _ in range(400):
            stack.enter_context(connect(running.port))
        may.set()
        assert first.answer().status == 200


def test_making_room_for_one_who_is_gone() -> None:
    """A connection may be closed for another when its client has left and nothing speaks to it."""
    with serving(ROUTES) as running:

        async def accepted_and_gone() -> None:
            with socket.socket() as sock:  # not connected any more
                Connection(running.server._shared, sock, "127.0.0.1").abort()

        gone = asyncio.run_coroutine_threadsafe(accepted_and_gone(), running.loop)
        gone.result(PATIENCE_SECONDS)


def test_kernel_keeps_little() -> None:
    """What a client does not take is bounded in the kernel too, and gone with its connection."""
    with serving(ROUTES, IMPATIENT) as running, connect(running.port, receive_bytes=4096) as client:
        client.send(get("/page"))
        wait_until(lambda: stages(running) == [Stage.WRITING])
        [connection] = running.server._connections
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 256 * 1024
        # It is reset: an end that waits behind the answer would wait for the client to read that.
        wait_until(lambda: client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 7)


STARVING = """
    import asyncio, logging, resource, sys, time
    from exporter.httpd import Response, Route, Server

    async def main():
        logging.basicConfig(level=logging.INFO)
        server = Server([Route("/metrics", ("GET",), lambda _: Response(200, b"1"))])
        [(_, port)] = await server.start(["127.0.0.1:0"])
        hoard = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        print(port, flush=True)
        loop = asyncio.get_running_loop()
        while command := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
            if command == "hoard":
                try:
                    while True:
                        hoard.append(open("/dev/null"))
                except OSError:
                    pass
            else:
                for file in hoard:
                    file.close()
            print(time.process_time(), flush=True)
        await server.stop()

    asyncio.run(main())
"""


@pytest.fixture
def starving() -> Iterator[subprocess.Popen[str]]:
    """Run a server in a process that may have 40 files open."""
    command = [sys.executable, "-c", textwrap.dedent(STARVING)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ask(process: subprocess.Popen[str], command: str) -> str:
    """Write a line to the process, and read one."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(command)
    process.stdin.flush()
    return process.stdout.readline()


def test_no_file_descriptor_left(starving: subprocess.Popen[str]) -> None:
    """Connections are closed for new ones when descriptors run out before places do."""
    port = int(ask(starving, ""))
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(port))
        for _ in range(3):
            assert stack.enter_context(connect(port)).get().status == 200
    _, log = starving.communicate("\n", PATIENCE_SECONDS)
    assert log.count("no file descriptor") == 1
    assert len(log.splitlines()) == 1


def test_no_file_descriptor_at_all(starving: subprocess.Popen[str]) -> None:
    """With nothing left to close, the server waits without burning the processor, and recovers."""
    port = int(ask(starving, ""))
    before = float(ask(starving, "hoard\n"))
    with connect(port) as client:
        client.send(get())
        time.sleep(1.0)
        spent = float(ask(starving, "free\n")) - before
        assert client.answer().status == 200
    _, log = starving.communicate("\n", PATIENCE_SECONDS)
    assert spent < 0.5
    assert len(log.splitlines()) == 1


def test_no_delay(impatient: Running) -> None:
    """No connection waits for acknowledgements: that would cost a keep-alive scrape 40 ms."""
    with connect(impatient.port) as client:
        assert client.get().status == 200
        for connection in list(impatient.server._connections):
            sock = connection._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_stop_with_slow_clients() -> None:
    """Stopping waits for nobody: every connection ends and the port is free."""
    with serving(ROUTES) as running, contextlib.ExitStack() as stack:
        reading, idle, silent, started = (
            stack.enter_context(connect(running.port, receive_bytes=4096)) for _ in range(4)
        )
        reading.send(get("/page"))
        assert idle.get().status == 200
        started.send(b"GET /met")
        running.stop()
        assert len(reading.rest()) < len(PAGE)
        assert [client.rest() for client in (idle, silent, started)] == [b"", b"", b""]
        with pytest.raises(ConnectionRefusedError), connect(running.port):
            pass
        with serving(ROUTES, addresses=[f"127.0.0.1:{running.port}"]):
            pass
