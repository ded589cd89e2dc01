"""The HTTP server as clients meet it: good ones, broken ones and hostile ones."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator

import pytest
from http_client import Client, Running, connect, get, serving, silent_log
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.httpd import Request, Response, Route

__all__ = ["silent_log"]  # for pytest

PAGE = b"gpu_up 1\n" * 20_000  # more than one write takes


def echo(request: Request) -> Response:
    """Answer with what has arrived."""
    lines = [request.method, request.path, request.query, request.peer, *request.headers.items()]
    return Response(200, "\n".join(map(str, lines)).encode() + b"\n\n" + request.body)


def fail(_request: Request) -> Response:
    """Be broken."""
    raise ValueError("first line\nsecond line")


ROUTES = (
    Route("/metrics", ("GET",), lambda _: Response(200, b"gpu_up 1\n", "text/x; version=0.0.4")),
    Route("/page", ("GET",), lambda _: Response(200, PAGE)),
    Route("/echo", ("GET", "POST"), echo, max_body_bytes=1000),
    Route("/-/reload", ("POST",), lambda _: Response(202, b"", headers=(("X-Reload", "yes"),))),
    Route("/broken", ("GET",), fail),
    Route("/split", ("GET",), lambda _: Response(200, b"", headers=(("X", "a\r\nSet-Cookie: b"),))),
)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """One server with roomy limits for all tests that need no others."""
    with serving(ROUTES) as server:
        yield server


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    """Connect to it."""
    with connect(running.port) as connected:
        yield connected


# Plain use


def test_keep_alive(client: Client) -> None:
    """A connection serves one request after the other, each with the headers that belong to it."""
    for _ in range(3):
        answer = client.get()
        assert (answer.status, answer.body) == (200, b"gpu_up 1\n")
        assert set(answer.headers) == {"date", "content-type", "content-length"}
        assert answer.headers["content-type"] == "text/x; version=0.0.4"
        date = r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} 20\d\d \d\d:\d\d:\d\d GMT"
        assert re.fullmatch(date, answer.headers["date"])


def test_pipelining(client: Client) -> None:
    """Requests sent without waiting are all answered, in their order."""
    client.send(b"".join(get(f"/echo?{n}") for n in range(500)))
    queries = [client.answer().body.split(b"\n")[2] for _ in range(500)]
    assert queries == [b"%d" % n for n in range(500)]


@pytest.mark.parametrize(
    "request_bytes",
    [get("/page", version="1.0"), get("/page", "Connection: close"), get("/page", "Upgrade: h2c")],
    ids=["HTTP/1.0", "close", "upgrade"],
)
def test_last_request(client: Client, request_bytes: bytes) -> None:
    """A client that wants no keep-alive gets its whole answer, and then the end."""
    client.send(request_bytes)
    answer = client.answer()
    assert (answer.status, answer.body) == (200, PAGE)
    assert answer.headers["connection"] == "close"
    assert client.rest() == b""


def test_head(client: Client) -> None:
    """HEAD gives the headers of GET and no body, and the connection goes on."""
    headers = client.get("/page").headers
    client.send(get("/page", method="HEAD"))
    answer = client.answer(bodiless=True)
    assert answer.headers.keys() == headers.keys()
    assert answer.headers["content-length"] == str(len(PAGE))
    assert client.get().body == b"gpu_up 1\n"


def test_unknown_path(client: Client) -> None:
    """A wrong path is answered with the right ones, and the connection goes on."""
    answer = client.get("/metric")
    assert answer.status == 404
    assert b"/metrics /page /echo /-/reload" in answer.body
    assert client.get().status == 200


def test_wrong_method(client: Client) -> None:
    """A wrong method is answered with the right ones."""
    client.send(get("/metrics", method="DELETE"))
    answer = client.answer()
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    client.send(get("/-/reload"))
    assert client.answer().headers["allow"] == "POST"
    client.send(get("/-/reload", method="POST"))
    answer = client.answer()
    assert (answer.status, answer.headers["x-reload"]) == (202, "yes")


def test_what_a_handler_sees(client: Client) -> None:
    """Path and query are apart and undecoded, header names in lower case, repeated ones joined."""
    answer = client.get("/echo?a=%20b?c", "X-One: 1", "x-oNE: 2", "Accept: text/plain")
    method, path, query, peer, *headers = answer.body.decode().split("\n")
    assert (method, path, query, peer) == ("GET", "/echo", "a=%20b?c", "127.0.0.1")
    assert {"('x-one', '1, 2')", "('accept', 'text/plain')"} < set(headers)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("http://localhost:9836/echo?x=/y", b"/echo", b"x=/y"),
        ("HTTPS://localhost/echo", b"/echo", b""),
        ("/echo?to=http://host/page", b"/echo", b"to=http://host/page"),
    ],
)
def test_absolute_form(client: Client, target: str, path: bytes, query: bytes) -> None:
    """A target with scheme and host, as proxies send it, means the same as one without."""
    assert client.get(target).body.split(b"\n")[1:3] == [path, query]


def test_absolute_form_of_the_root(client: Client) -> None:
    """A target that ends with the host is the path "/"."""
    assert b"no such path" in client.get("http://localhost?q").body


def test_request_in_single_bytes(client: Client) -> None:
    """It does not matter how a request is cut into packets."""
    for byte in get("/echo", "Content-Length: 3", method="POST") + b"abc":
        client.send(bytes([byte]))
    assert client.answer().body.endswith(b"\n\nabc")


# Bodies


def test_body(client: Client) -> None:
    """A body within the bound of its route arrives, announced or in chunks."""
    client.send(get("/echo", "Content-Length: 1000", method="POST") + b"x" * 1000)
    assert client.answer().body.endswith(b"\n\n" + b"x" * 1000)
    chunks = b"3\r\nabc\r\n" * 300 + b"64\r\n" + b"d" * 100 + b"\r\n0\r\nTrailer: 1\r\n\r\n"
    client.send(get("/echo", "Transfer-Encoding: chunked", method="POST") + chunks)
    assert client.answer().body.endswith(b"\n\n" + b"abc" * 300 + b"d" * 100)
    assert client.get().status == 200


def test_announced_body_too_large(client: Client) -> None:
    """A body over the bound is refused before it is sent."""
    client.send(get("/echo", "Content-Length: 1001", method="POST"))
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert b"/echo takes 1000 bytes" in answer.body
    assert client.rest() == b""


def test_chunked_body_too_large(client: Client) -> None:
    """A body without a length is refused as soon as it is over the bound."""
    head = get("/echo", "Transfer-Encoding: chunked", method="POST")
    client.send(head + b"1f4\r\n" + b"x" * 500 + b"\r\n1f5\r\n" + b"x" * 501)
    assert client.answer().status == 413
    assert client.rest() == b""


@pytest.mark.parametrize("body_bytes", [1 << 20, 1 << 30])
def test_unwanted_body(client: Client, body_bytes: int) -> None:
    """Who sends on after a refusal is not read for ever, and still finds the answer."""
    client.send(get("/metrics", f"Content-Length: {body_bytes}", method="GET"))
    sent = 0
    try:
        while sent < body_bytes:
            client.send(b"x" * (1 << 16))
            sent += 1 << 16
    except ConnectionError:
        assert sent < 1 << 26
    else:
        assert sent == 1 << 20
        client.sock.shutdown(socket.SHUT_WR)
    assert client.answer().status == 413


def test_body_for_nobody(client: Client) -> None:
    """A body under an unknown path is not waited for."""
    client.send(get("/nowhere", "Content-Length: 100", method="POST"))
    assert client.answer().status == 404
    assert client.rest() == b""


def test_expect_continue(client: Client) -> None:
    """A client that asks first is told to go on, or at once that it need not."""
    head = get("/echo", "Expect: 100-continue", "Content-Length: 3", method="POST")
    client.send(head)
    assert client.answer(bodiless=True).status == 100
    client.send(b"abc")
    assert client.answer().body.endswith(b"\n\nabc")
    client.send(head.replace(b"Length: 3", b"Length: 3000"))
    assert client.answer().status == 413


# Nonsense

POST = "POST /echo HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        ("hello\r\n\r\n", 400),
        ("\r\n\r\n", 400),
        ("GET /metrics\r\n\r\n", 400),
        ("GET  /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET /m\x80trics HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET /metrics HTTP/1.1\r\n\r\n", 400),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        ("GET /metrics HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n", 400),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nNul: \x00\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (POST + "Content-Length: abc\r\n\r\n", 400),
        (POST + "Content-Length: -1\r\n\r\n", 400),
        (POST + f"Content-Length: {'9' * 30}\r\n\r\n", 400),
        (POST + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
        (POST + "Content-Length: 3, 4\r\n\r\nabc", 400),
        (POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", 400),
        (POST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (POST.replace("1.1", "1.0") + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (POST + "Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", 400),
        (POST + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n", 400),
    ],
)
def test_nonsense(client: Client, text: str, status: int) -> None:
    """What is no request, or can be read in two ways, is refused with all that follows."""
    client.send(text.encode("latin-1") + get())
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    client.sock.shutdown(socket.SHUT_WR)
    assert client.rest() == b""


@pytest.mark.parametrize("header_bytes", [17_000, 64 * 1024, 1 << 20])
@pytest.mark.parametrize("end", ["", "\r\n\r\n"], ids=["endless", "complete"])
def test_oversized_header(client: Client, header_bytes: int, end: str) -> None:
    """Headers over the bound are refused, complete or not, and the client can read that."""
    client.send((f"GET /metrics HTTP/1.1\r\nHost: x\r\nA: {'a' * header_bytes}" + end).encode())
    answer = client.answer()
    assert answer.status == 431
    assert b"may take 16384 bytes" in answer.body
    client.sock.shutdown(socket.SHUT_WR)
    assert client.rest() == b""


@pytest.mark.parametrize("target_bytes", [17_000, 1 << 20])
@pytest.mark.parametrize("end", ["", " HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["endless", "complete"])
def test_oversized_target(client: Client, target_bytes: int, end: str) -> None:
    """A target over the bound is refused, complete or not."""
    client.send((f"GET /metrics?{'a' * target_bytes}" + end).encode())
    assert client.answer().status == 414


def test_header_just_within_the_bound(client: Client) -> None:
    """The bound counts the bytes of one head: not of a body, not of the requests around it."""
    request = get("/metrics", "A: " + "a" * (16384 - len(get("/metrics", "A: "))))
    assert len(request) == 16384
    client.send(request * 5)
    assert [client.answer().status for _ in range(5)] == [200] * 5
    client.send(request.replace(b"A: a", b"A: aa"))
    assert client.answer().status == 431


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(["GET ", "/metrics", " HTTP/1.1", "\r\n", "Host: x", "\x00", "é"])))
def test_random_pieces(running: Running, pieces: list[str]) -> None:
    """Whatever arrives, the server answers the next client."""
    with connect(running.port) as hostile:
        hostile.send("".join(pieces).encode())
        hostile.reset()
    with connect(running.port) as friendly:
        assert friendly.get().status == 200


# Faults


def test_broken_handler(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that raises costs its own answer and one line in the log, nothing else."""
    assert client.get("/broken").status == 500
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is None
    assert record.getMessage() == (
        r"the handler of /broken failed: ValueError('first line\nsecond line')"
    )
    caplog.clear()
    assert client.get().status == 200


def test_header_injection(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A line break in an answer's header never leaves the server."""
    answer = client.get("/split")
    assert (answer.status, "set-cookie" in answer.headers) == (500, False)
    caplog.clear()


def test_half_close(client: Client) -> None:
    """A client that closes its side after the requests gets all the answers."""
    client.send(get() + get("/page") + get("/echo"))
    client.sock.shutdown(socket.SHUT_WR)
    assert [client.answer().status for _ in range(3)] == [200] * 3
    assert client.rest() == b""


@pytest.mark.parametrize("sent", [b"", b"GET /met", get("/page"), get("/page") * 100])
def test_reset(running: Running, sent: bytes) -> None:
    """Clients that vanish at any point disturb nobody."""
    for _ in range(20):
        with connect(running.port) as vanishing:
            vanishing.send(sent)
            vanishing.reset()
    with connect(running.port) as client:
        assert client.get("/page").body == PAGE
