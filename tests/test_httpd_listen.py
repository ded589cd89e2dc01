"""Where the HTTP server listens, and how it speaks TLS there."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_client import PATIENCE_SECONDS, Running, connect, get, serving, silent_log, wait_until

from exporter.httpd import Limits, ListenError, Response, Route, parse_address

__all__ = ["silent_log"]  # for pytest

PAGE = b"gpu_up 1\n" * 1_000_000  # more than the kernel keeps for a client that does not read
ROUTES = (
    Route("/metrics", ("GET",), lambda _: Response(200, b"gpu_up 1\n")),
    Route("/page", ("GET",), lambda _: Response(200, PAGE)),
    Route("/whoami", ("GET",), lambda request: Response(200, request.peer.encode())),
)


# Addresses


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":9836", "", 9836),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::1]:65535", "::1", 65535),
        ("[fe80::1%eth0]:80", "fe80::1%eth0", 80),
        ("localhost:9836", "localhost", 9836),
    ],
)
def test_address(text: str, host: str, port: int) -> None:
    """All usual ways to write an address are understood, and written the same way again."""
    address = parse_address(text)
    assert (address.host, address.port, str(address)) == (host, port, text)


@pytest.mark.parametrize(
    "text",
    ["", "9836", ":", "localhost", "localhost:", "::1:9836", "[::1]", "[host]:1", "[]:1",
     ":65536", ":-1", ":http", "http://host:1", "a b:1", "host:1/metrics", "host:1\n"],
)  # fmt: skip
def test_bad_address(text: str) -> None:
    """What is no address is named, with what would be right."""
    with pytest.raises(ListenError) as error:
        parse_address(text)
    assert str(error.value) == (
        f"listen address {text!r} is not HOST:PORT; "
        "right would be ':9836', '127.0.0.1:9836', '[::1]:9836' or 'localhost:9836'"
    )


def test_all_addresses() -> None:
    """An address without a host takes IPv4 and IPv6 clients, and tells them apart."""
    with serving(ROUTES, addresses=[":0"]) as running:
        for host in ("127.0.0.1", "::1"):
            with connect(running.port, host) as client:
                assert client.get("/whoami").body == host.encode()


def test_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where IPv6 is switched off, an address without a host means IPv4."""
    real = socket.socket

    def socket_without_ipv6(
        family: int = socket.AF_INET, *rest: int, **named: int
    ) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return real(family, *rest, **named)

    monkeypatch.setattr("exporter.httpd.listen.socket.socket", socket_without_ipv6)
    with serving(ROUTES, addresses=[":0"]) as running:
        assert running.bound[0][0] == "0.0.0.0"
        with connect(running.port) as client:
            assert client.get().status == 200


def test_several_addresses() -> None:
    """Every address given is served."""
    with serving(ROUTES, addresses=["127.0.0.1:0", "[::1]:0", "localhost:0"]) as running:
        assert [host for host, _ in running.bound] == ["127.0.0.1", "::1", "127.0.0.1"]
        for host, port in running.bound:
            with connect(port, host) as client:
                assert client.get().status == 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("192.0.2.1:0", "Cannot assign requested address; this host has no such address"),
        ("no.such.host.invalid:0", "; right would be ':9836', '127.0.0.1:9836'"),
        ("9836", "listen address '9836' is not HOST:PORT"),
    ],
)
def test_address_that_cannot_be_had(text: str, message: str) -> None:
    """The error names the address and the way out, and no other address stays open."""
    with socket.create_server(("127.0.0.1", 0)) as finder:
        free = f"127.0.0.1:{finder.getsockname()[1]}"
    with pytest.raises(ListenError) as error, serving(ROUTES, addresses=[free, text]):
        pass
    assert repr(text) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    with serving(ROUTES, addresses=[free]):
        pass


def test_address_in_use() -> None:
    """An address that another program has is an error, not a share."""
    with serving(ROUTES) as running:
        text = f":{running.port}"
        with pytest.raises(ListenError) as error, serving(ROUTES, addresses=[text]):
            pass
    assert str(error.value) == (
        f"cannot listen on {text!r}: Address already in use; "
        "stop the program that listens there, or choose another port"
    )


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate for localhost, with its key."""
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=directory, check=True, capture_output=True,
    )  # fmt: skip
    return directory


@pytest.fixture
def server_context(certificate: Path) -> ssl.SSLContext:
    """Present the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return context


@pytest.fixture
def client_context(certificate: Path) -> ssl.SSLContext:
    """Trust the certificate."""
    return ssl.create_default_context(cafile=str(certificate / "cert.pem"))


@pytest.fixture
def impatient_tls(server_context: ssl.SSLContext) -> Iterator[Running]:
    """Serve four connections with little time for each request."""
    limits = Limits(connections=4, request_seconds=0.4, idle_seconds=PATIENCE_SECONDS)
    with serving(ROUTES, limits, ssl_context=server_context) as running:
        yield running


def test_tls(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    """TLS clients get the same: keep-alive, pipelining, large answers and refusals."""
    with (
        serving(ROUTES, ssl_context=server_context) as running,
        connect(running.port, tls=client_context) as client,
    ):
        assert client.get().body == b"gpu_up 1\n"
        client.send(get() * 20)
        assert [client.answer().status for _ in range(20)] == [200] * 20
        for path in ("/page", "/metrics", "/page", "/metrics"):
            client.send(get(path))
        bodies = [client.answer().body for _ in range(4)]
        assert bodies == [PAGE, b"gpu_up 1\n"] * 2
        client.send(get("/metrics", "Content-Length: 1"))
        assert client.answer().status == 413


def test_tls_request_that_stalls(impatient_tls: Running, client_context: ssl.SSLContext) -> None:
    """Under TLS too, a request that is not complete in time is answered with 408."""
    with connect(impatient_tls.port, tls=client_context) as client:
        client.send(b"GET /met")
        assert client.answer().status == 408
        assert client.rest() == b""


def test_tls_handshake_that_never_ends(impatient_tls: Running) -> None:
    """Who does not get through the handshake has a place like any other, and no longer."""
    with contextlib.ExitStack() as stack:
        hostile = [stack.enter_context(connect(impatient_tls.port)) for _ in range(12)]
        hostile[0].send(b"\x16\x03\x01")
        wait_until(lambda: len(impatient_tls.server._connections) == 4)
        assert all(client.rest() == b"" for client in hostile)
        wait_until(lambda: not impatient_tls.server._connections)


def test_tls_nonsense(impatient_tls: Running) -> None:
    """Plain HTTP on a TLS port is refused without a word in the log."""
    with connect(impatient_tls.port) as client:
        client.send(get())
        client.rest()
    wait_until(lambda: not impatient_tls.server._connections)


def test_tls_client_that_does_not_read(
    impatient_tls: Running, client_context: ssl.SSLContext
) -> None:
    """Under TLS too, who does not take the answer in time loses it."""
    with connect(impatient_tls.port, receive_bytes=4096, tls=client_context) as client:
        client.send(get("/page"))
        wait_until(lambda: not impatient_tls.server._connections)
