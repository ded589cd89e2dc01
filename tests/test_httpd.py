"""The HTTP server as clients meet it: good ones, broken ones and hostile ones."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from chaos import ROUNDS
from http_client import Answer, Client, Running, connect, get, serving, silent_log
from hypothesis import HealthCheck, example, given, settings
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
    """A body within the bound of its route arrives, announced or in chunks; those are the last."""
    client.send(get("/echo", "Content-Length: 1000", method="POST") + b"x" * 1000)
    assert client.answer().body.endswith(b"\n\n" + b"x" * 1000)
    chunks = b"3\r\nabc\r\n" * 300 + b"64\r\n" + b"d" * 100 + b"\r\n0\r\nTrailer: 1\r\n\r\n"
    client.send(get("/echo", "Transfer-Encoding: chunked", method="POST") + chunks)
    answer = client.answer()
    assert answer.body.endswith(b"\n\n" + b"abc" * 300 + b"d" * 100)
    assert answer.headers["connection"] == "close"
    assert client.rest() == b""


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

SMUGGLED = get("/metrics?smuggled")
POST = "POST /echo HTTP/1.1\r\nHost: x\r\n"
GET = "GET /metrics HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + "Transfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Counting:
    """A server that notes each request that it hands to a handler."""

    port: int
    handled: list[Request]

    def pour(self, data: bytes) -> tuple[list[Answer], list[Request]]:
        """Send bytes and then the end; return all answers, and the requests that were handled."""
        self.handled.clear()
        with connect(self.port) as client:
            with contextlib.suppress(ConnectionError):
                client.send(data)
                client.sock.shutdown(socket.SHUT_WR)
            answers = []
            with contextlib.suppress(EOFError, ConnectionError):
                while True:
                    answers.append(client.answer())
        return answers, self.handled


@pytest.fixture(scope="module")
def counting() -> Iterator[Counting]:
    """Serve a path without and one with a body."""
    handled: list[Request] = []

    def note(request: Request) -> Response:
        handled.append(request)
        return Response(200, b"")

    metrics = Route("/metrics", ("GET",), note)
    with serving([metrics, Route("/echo", ("POST",), note, max_body_bytes=1000)]) as server:
        yield Counting(server.port, handled)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        # No request of HTTP/1
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        ("hello\r\n\r\n", 400),
        ("\r\n\r\n", 400),
        ("GET /metrics\r\n\r\n", 400),
        ("GET /metrics\r\n", 400),
        ("GET  /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET\t/metrics\tHTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET /metrics http/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET /metrics HTTP/1.10\r\nHost: x\r\n\r\n", 400),
        ("GET /m\x80trics HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET /metrics HTTP/0.9\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        # Hosts and headers that are read in more than one way
        ("GET /metrics HTTP/1.1\r\n\r\n", 400),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        ("GET /metrics HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        ("GET /metrics HTTP/1.1\r\n Host: x\r\n\r\n", 400),
        (GET + "No colon\r\n\r\n", 400),
        (GET + "Nul: \x00\r\n\r\n", 400),
        (GET + "Nul\x00: a\r\n\r\n", 400),
        (GET + ": no name\r\n\r\n", 400),
        (GET + "A: folded\r\n into two\r\n\r\n", 400),
        (GET + "A: folded\r\n\tinto two\r\n\r\n", 400),
        (GET + "A:" + " " * 128 + "b\r\n\r\n", 400),
        (GET + "A:" + "\t " * 8000 + "\x00\r\n\r\n", 400),
        # Ends of lines
        ("GET /metrics HTTP/1.1\nHost: x\n\n", 400),
        (GET + "\n", 400),
        (GET + "A: b\n\r\n", 400),
        (GET + "A: b\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (GET + "A: b\rTransfer-Encoding: chunked\r\n\r\n", 400),
        (GET + "A: b\r\r\n\r\n", 400),
        ("GET /metrics HTTP/1.1\rHost: x\r\n\r\n", 400),
        # Content-Length
        (POST + "Content-Length: abc\r\n\r\n", 400),
        (POST + "Content-Length: -1\r\n\r\n", 400),
        (POST + "Content-Length: +3\r\n\r\nabc", 400),
        (POST + "Content-Length: 3 0\r\n\r\nabc", 400),
        (POST + "Content-Length: 1_0\r\n\r\nabc", 400),
        (POST + "Content-Length: 0x3\r\n\r\nabc", 400),
        (POST + "Content-Length: 3.0\r\n\r\nabc", 400),
        (POST + "Content-Length:\r\n\r\n", 400),
        (POST + "Content-Length: \xa03\r\n\r\nabc", 400),
        (POST + "Content-Length: \xd9\xa3\r\n\r\nabc", 400),
        (POST + "Content-Length :3\r\n\r\nabc", 400),
        (POST + "Content-Length:\r\n 3\r\n\r\nabc", 400),
        (POST + f"Content-Length: {'9' * 30}\r\n\r\n", 400),
        (POST + f"Content-Length: {1 << 64}\r\n\r\n", 413),
        (POST + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
        (POST + "Content-Length: 3, 4\r\n\r\nabc", 400),
        (GET + "Content-Length: 3\r\n\r\nabc", 413),
        # Transfer-Encoding
        (POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", 400),
        (POST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (POST + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501),
        (POST + "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", 501),
        (POST + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (POST + 'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 501),
        (POST + "Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", 501),
        (POST + "Transfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc", 501),
        (POST + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (POST + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", 501),
        (POST.replace("1.1", "1.0") + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        # Chunks
        (CHUNKED + "zz\r\n", 400),
        (CHUNKED + "-3\r\nabc\r\n0\r\n\r\n", 400),
        (CHUNKED + "+3\r\nabc\r\n0\r\n\r\n", 400),
        (CHUNKED + " 3\r\nabc\r\n0\r\n\r\n", 400),
        (CHUNKED + "0x3\r\nabc\r\n0\r\n\r\n", 400),
        (CHUNKED + "0_3\r\nabc\r\n0\r\n\r\n", 400),
        (CHUNKED + "\r\n", 400),
        (CHUNKED + f"{'f' * 21}\r\n", 400),
        (CHUNKED + "3\nabc\r\n0\r\n\r\n", 400),
        (CHUNKED + "3;\nabc\r\n0\r\n\r\n", 400),
        (CHUNKED + "3\r\nabcXX0\r\n\r\n", 400),
        (CHUNKED + "3\r\nabc0\r\n\r\n", 400),
        (CHUNKED + "3\r\nabc\n0\r\n\r\n", 400),
        (CHUNKED + "0\r\nno colon\r\n\r\n", 400),
        (CHUNKED + f"3;{'a' * 2000}\r\nabc\r\n0\r\n\r\n", 431),
        (CHUNKED + f"3;{' ' * 16000}\n\r\n", 431),
        (CHUNKED + f"0\r\nA:{' ' * 16000}\x00\r\n\r\n", 431),
    ],
)
def test_nonsense(counting: Counting, text: str, status: int) -> None:
    """What is no request, or can be read in two ways, is refused with all that follows."""
    answers, handled = counting.pour(text.encode("latin-1") + SMUGGLED)
    assert [(answer.status, answer.headers["connection"]) for answer in answers] == [
        (status, "close")
    ]
    assert handled == []


@pytest.mark.parametrize("start", [b"\x16\x03\x01", b"\r", b"\x00", b" "])
def test_no_start_of_a_request(client: Client, start: bytes) -> None:
    """What no request begins with is refused at once: its end may never come."""
    client.send(start)
    assert client.answer().status == 400


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (CHUNKED + "A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (CHUNKED + "3;a=b\r\nabc\r\n0\r\n\r\n", b"abc"),
        (CHUNKED + "3 \r\nabc\r\n0\r\n\r\n", b"abc"),
        (CHUNKED + "3;\rabc\r\nabc\r\n0\r\n\r\n", b"abc"),
        (CHUNKED + "0\r\n\n", b""),
        (CHUNKED + "0\r\nA: b\n\n", b""),
        (CHUNKED + "0\r\nContent-Length: 40\r\n\r\n", b""),
        (CHUNKED.replace("chunked", "\tCHUNKED\t") + "0\r\n\r\n", b""),
        (POST.replace("1.1", "1.0") + "Content-Length: 3\r\n\r\nabc", b"abc"),
        (POST + "Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
    ],
)
def test_nothing_follows(counting: Counting, text: str, body: bytes) -> None:
    """After chunks, whose end h11 finds leniently, and after an upgrade nothing more is handled."""
    [answer], [request] = counting.pour(text.encode() + SMUGGLED)
    assert (answer.status, answer.headers["connection"], request.body) == (200, "close", body)


@pytest.mark.parametrize(
    ("text", "statuses"),
    [
        (POST + "Content-Length: 3, 3\r\n\r\nabc", [200, 200]),
        (POST + "Content-Length: 3\r\nContent-Length: 003\r\n\r\nabc", [400]),
        (POST + "Transfer_Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", [200, 200]),
        (POST + "Expect: 200-ok\r\nContent-Length: 3\r\n\r\nabc", [200, 200]),
        ("GET http://other/metrics HTTP/1.1\r\nHost: x\r\n\r\n", [200, 200]),
        ("GET other:80 HTTP/1.1\r\nHost: x\r\n\r\n", [404, 200]),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", [404, 200]),
        ("CONNECT other:80 HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
    ],
)
def test_one_boundary(counting: Counting, text: str, statuses: list[int]) -> None:
    """What has one end in RFC 9112 has it here: what follows is the next request, never another."""
    answers, handled = counting.pour(text.encode() + SMUGGLED)
    assert [answer.status for answer in answers] == statuses
    assert {request.body for request in handled if request.method == "POST"} <= {b"abc"}
    assert [request.query for request in handled].count("smuggled") == len(statuses) - 1


def test_chunks_are_counted() -> None:
    """Crumbs take the parser as long as chunks do: there may not be very many, within the bound."""
    roomy = Route("/echo", ("POST",), echo, max_body_bytes=1 << 20)
    with serving([roomy]) as server, connect(server.port) as client:
        client.send(CHUNKED.encode() + b"1\r\nx\r\n" * 4096 + b"0\r\n\r\n")
        assert client.answer().status == 200
    with serving([roomy]) as server, connect(server.port) as client:
        client.send(CHUNKED.encode() + b"1\r\nx\r\n" * 4097)
        answer = client.answer()
        assert (answer.status, b"4096 chunks are the most" in answer.body) == (413, True)


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


PIECES = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b"\x00", b"\t", b" ", b":", b";", b",", b"0", b"5",
    b"\r\n ", b"HTTP/1.1", b"0\r\n\r\n", b"\r\nTransfer-Encoding: chunked",
    b"Content-Length: 5\r\n", b"\r\nContent-Length: 0", b"Connection: close\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
)  # fmt: skip
DAMAGE = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.integers(0, 4), st.sampled_from(PIECES)), max_size=4
)
MESSAGES = st.lists(
    st.tuples(st.sampled_from(["none", "length", "chunks"]), st.binary(max_size=40)),
    min_size=1,
    max_size=4,
)
FIELD = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00\r\n]*\r\n"
STRICT_HEAD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.[01]\r\n((?:" + FIELD + rb")*)\r\n"
)
STRICT_CHUNK = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;[^\n]*)?\r\n")


def composed(messages: list[tuple[str, bytes]]) -> bytes:
    """Return requests in a row, some of whose bodies look like requests themselves."""
    text = b""
    for kind, filler in messages:
        body = filler + SMUGGLED
        if kind == "none":
            text += get()
        elif kind == "length":
            text += f"{POST}Content-Length: {len(body)}\r\n\r\n".encode() + body
        else:
            text += CHUNKED.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return text


def by_the_book(data: bytes) -> list[tuple[str, str, bytes]]:
    """Return method, path and body of the requests up to the first mistake by RFC 9112.

    Just enough for what is composed here. Nothing is behind chunks, as the server has it.
    """
    found: list[tuple[str, str, bytes]] = []
    while head := STRICT_HEAD.match(data):
        data = data[head.end() :]
        path = head[2].decode().partition("?")[0]
        lines = [line.split(b":", 1) for line in head[3].split(b"\r\n")[:-1]]
        fields = [(name.lower(), value.strip(b" \t")) for name, value in lines]
        coded = [value.lower() for name, value in fields if name == b"transfer-encoding"]
        lengths = {
            part.strip(b" \t")
            for name, value in fields
            if name == b"content-length"
            for part in value.split(b",")
        }
        body = b""
        if coded:
            if coded != [b"chunked"] or lengths:
                break
            while (chunk := STRICT_CHUNK.match(data)) and (size := int(chunk[1], 16)):
                body, data = body + data[chunk.end() :][:size], data[chunk.end() + size + 2 :]
            return [*found, (head[1].decode(), path, body)]
        if lengths:
            length = lengths.pop()
            if lengths or not length.isdigit() or int(length) > len(data):
                break
            body, data = data[: int(length)], data[int(length) :]
        found.append((head[1].decode(), path, body))
        if (b"connection", b"close") in fields:
            break
    return found


@pytest.mark.chaos
@settings(max_examples=150 * ROUNDS, deadline=None, suppress_health_check=list(HealthCheck))
@given(messages=MESSAGES, damage=DAMAGE)
@example(messages=[("length", b""), ("none", b"")], damage=[])
def test_damaged_requests(
    counting: Counting, messages: list[tuple[str, bytes]], damage: list[tuple[int, int, bytes]]
) -> None:
    """However requests are damaged, no other is handled than those that the RFC finds there."""
    data = whole = composed(messages)
    for position, gone, piece in damage:
        at = position % len(data)
        data = data[:at] + piece + data[at + gone :]
    answers, handled = counting.pour(data)
    seen = [(request.method, request.path, request.body) for request in handled]
    there = by_the_book(data)
    routed = [one for one in there if one[:2] in {("GET", "/metrics"), ("POST", "/echo")}]
    assert seen == routed[: len(seen)]
    assert len(seen) <= len(answers) <= len(there) + 1
    if data == whole:
        assert seen == routed


@pytest.mark.chaos
@settings(max_examples=50 * ROUNDS, deadline=None, suppress_health_check=list(HealthCheck))
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
