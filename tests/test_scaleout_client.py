"""The HTTP client of scale-out against servers that are slow, hostile, or not who they say."""

from __future__ import annotations

import gzip
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from scaleout_peers import (
    PATIENCE_SECONDS,
    Reply,
    read_request,
    rude,
    serving,
    until_closed,
)

from exporter.config import Authorization, BasicAuth, HttpConfig
from exporter.scaleout.client import MAX_BODY_BYTES, HttpClient, HttpFailedError

SECRET = "s3cret-t0ken"  # noqa: S105  made up


def ask(url: str, config: HttpConfig | None = None, timeout: float = 5.0, **options: bytes) -> int:
    """Post something and return the status."""
    client = HttpClient(config or HttpConfig(), timeout)
    return client.request("POST", url, body=options.get("body", b"{}")).status


def failure(url: str, config: HttpConfig | None = None, timeout: float = 5.0) -> HttpFailedError:
    """Post something to what does not answer, and return how that failed."""
    with pytest.raises(HttpFailedError) as failed:
        ask(url, config, timeout)
    assert SECRET not in str(failed.value)
    assert "\n" not in str(failed.value)
    return failed.value


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """Return a file with a secret that only its owner can read."""
    path = tmp_path / "token"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


def bearer(path: Path) -> HttpConfig:
    """Return a config with a token."""
    return HttpConfig(authorization=Authorization(path))


def test_request_arrives_as_it_was_given() -> None:
    """Method, path, headers and body arrive; the answer's headers come back in lower case."""
    with serving(Reply(207, {"X-Mixed": "Case"}, b"\x00body")) as peer:
        client = HttpClient(HttpConfig(), 5.0)
        headers = {"Content-Type": "application/json"}
        answer = client.request("PATCH", f"{peer.url}?a=%20b", body=b"{}", headers=headers)
        assert (answer.status, answer.body, answer.headers["x-mixed"]) == (207, b"\x00body", "Case")
        (said,) = peer.said
        assert (said.method, said.path) == ("PATCH", "/v1/scale-out?a=%20b")
        assert said.body == b"{}"
        assert said.headers["content-type"] == "application/json"
        assert said.headers["user-agent"].startswith("gpu-node-exporter/")
        assert said.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_an_answer(token: Path, status: int) -> None:
    """A redirect is not followed: where it points to never hears of the request or the secret."""
    with serving() as elsewhere:
        reply = Reply(status, {"Location": elsewhere.url}, b"x" * 10)
        with serving(reply) as peer:
            assert ask(peer.url, bearer(token)) == status
            assert len(peer.said) == 1
        assert elsewhere.said == []


def test_credentials_are_sent(token: Path) -> None:
    """A bearer token and basic authentication are sent as RFC 6750 and RFC 7617 say."""
    with serving() as peer:
        ask(peer.url, bearer(token))
        ask(peer.url, HttpConfig(basic_auth=BasicAuth("Aladdin", token)))
        assert peer.said[0].headers["authorization"] == f"Bearer {SECRET}"
        assert peer.said[1].headers["authorization"] == "Basic QWxhZGRpbjpzM2NyZXQtdDBrZW4="


def test_rotated_secret_counts_at_once(token: Path) -> None:
    """Each request reads its secret: one that was replaced is used from the next on."""
    with serving() as peer:
        client = HttpClient(bearer(token), 5.0)
        client.request("POST", peer.url)
        token.write_text("new")
        client.request("POST", peer.url)
        assert peer.said[1].headers["authorization"] == "Bearer new"


def into_fifo(path: Path) -> None:
    """Put a FIFO in place of a file: who opens it waits for a writer."""
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_text(" \n"), "is empty"),
        (lambda path: path.chmod(0o644), "is open to every user; chmod o="),
        (lambda path: path.chmod(0o602), "is open to every user; chmod o="),
        (into_fifo, "not a regular file"),
        (lambda path: (path.unlink(), path.mkdir()), "not a regular file"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "not text"),
        (lambda path: path.write_text(f"{SECRET}\r\nX-Injected: 1"), "no HTTP header may have"),
        (lambda path: path.write_bytes(b"x" * 70_000), "larger than"),
    ],
    ids="missing empty readable writable fifo folder binary header huge".split(),
)
def test_bad_secret_is_refused(token: Path, spoil: Callable[[Path], object], why: str) -> None:
    """A secret that is missing, open to all or unusable is named, and nothing is sent."""
    spoil(token)
    with serving() as peer:
        failed = failure(peer.url, bearer(token))
        assert failed.kind == "credentials"
        assert why in str(failed)
        assert str(token) in str(failed)
        assert peer.said == []


def test_secret_readable_by_its_group_is_fine(token: Path) -> None:
    """Systemd and Kubernetes hand secrets out to a group."""
    token.chmod(0o440)
    with serving() as peer:
        assert ask(peer.url, bearer(token)) == 200


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://scaler.internal/", "use https"),
        (f"https://user:{SECRET}@scaler.internal/", "basic_auth"),
        ("https://169.254.169.254/latest/meta-data", "link-local"),
        ("https://[fe80::1]/", "link-local"),
        ("https://[::ffff:169.254.169.254]/", "link-local"),
        ("ftp://scaler.internal/", "http"),
        (f"https:///{SECRET}", "has no host"),
        (f"https://scaler.internal/{SECRET}\r\nX: 1", "not a URL"),
        ("https://scaler.internal:99999/", "port"),
        ("", "not a URL"),
    ],
)
def test_bad_url_is_refused(url: str, why: str) -> None:
    """What the config would not take as a URL is refused too when it comes from a file."""
    failed = failure(url)
    assert failed.kind == "protocol"
    assert why in str(failed)


def test_http_to_others_needs_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    """With allow_http, a request goes to another host in clear."""
    real = socket.getaddrinfo

    def look_up(host: str, port: int, **options: int) -> list[object]:
        assert host == "scaler.internal"
        return list(real("127.0.0.1", port, **options))

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with serving() as peer:
        assert ask(f"http://scaler.internal:{peer.port}/", HttpConfig(allow_http=True)) == 200


def test_name_of_a_link_local_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to the metadata service is no way around the check of the URL."""
    for address in ("169.254.169.254", "fe80::1%1", "::ffff:169.254.1.1"):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, found=found, **__: found)
        failed = failure("https://scaler.internal/")
        assert (failed.kind, "link-local" in str(failed)) == ("dns", True)


def test_refused_connection() -> None:
    """A port where nobody listens is a failure of kind connect."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        failed = failure(f"http://127.0.0.1:{taken.getsockname()[1]}/{SECRET}")
    assert failed.kind == "connect"
    assert "Connection refused" in str(failed)


def test_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that there is not is a failure of kind dns."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    failed = failure("https://scaler.internal/")
    assert (failed.kind, str(failed)) == ("dns", "scaler.internal: Name or service not known")


def test_hanging_resolver_costs_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that hangs ends the attempt in time, and is not asked again while it does."""
    answer = threading.Event()
    asked = []

    def hang(*_: object, **__: object) -> list[object]:
        asked.append(1)
        answer.wait(PATIENCE_SECONDS)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    client = HttpClient(HttpConfig(), 0.2)
    kinds = []
    for _ in range(3):
        with pytest.raises(HttpFailedError) as failed:
            client.request("POST", "https://scaler.internal/")
        kinds.append(failed.value.kind)
    answer.set()
    assert (kinds, len(asked)) == (["dns"] * 3, 1)


def test_second_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a name has several addresses, one that refuses is no reason to fail."""
    with serving() as peer, socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        family = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        found = [(*family, dead.getsockname()), (*family, ("127.0.0.1", peer.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert ask(f"http://localhost:{peer.port}/") == 200


def hang(connection: socket.socket) -> None:
    """Read all there is and never answer."""
    while connection.recv(65536):
        pass


def trickle(before: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    """Send some bytes at once, then some more for ever, slowly."""

    def behave(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(before)
        while True:
            time.sleep(0.02)
            connection.sendall(piece)

    return behave


def reset(connection: socket.socket) -> None:
    """Break off in the midst of the body."""
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def cut(connection: socket.socket) -> None:
    """End politely, but in the midst of the body."""
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")


def silent(connection: socket.socket) -> None:
    """Close without an answer."""
    read_request(connection)


def garbage(connection: socket.socket) -> None:
    """Answer in another protocol."""
    read_request(connection)
    connection.sendall(b"220 smtp.example ESMTP\r\n" * 10)


@pytest.mark.parametrize(
    ("behave", "kind"),
    [
        (hang, "timeout"),
        (trickle(b"", b"H"), "timeout"),
        (trickle(b"HTTP/1.1 200 OK\r\n", b"X-Slow: 1\r\n"), "timeout"),
        (trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"), "timeout"),
        (
            trickle(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
            "timeout",
        ),
        (trickle(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "timeout"),
        (reset, "protocol"),
        (cut, "protocol"),
        (silent, "protocol"),
        (garbage, "protocol"),
    ],
    ids="hang status header body chunks interim reset cut silent garbage".split(),
)
def test_bad_server_ends_in_time(behave: Callable[[socket.socket], None], kind: str) -> None:
    """Whatever a server does, the attempt is over soon after its timeout; the URL stays secret."""
    with rude(behave) as port:
        began = time.monotonic()
        failed = failure(f"http://127.0.0.1:{port}/{SECRET}", timeout=0.3)
        assert time.monotonic() - began < PATIENCE_SECONDS / 10
        assert failed.kind == kind


def test_server_without_tls_is_told() -> None:
    """A server that never shakes hands is a timeout; one that speaks no TLS fails at once."""
    with rude(hang) as port:
        assert failure(f"https://127.0.0.1:{port}/", timeout=0.3).kind == "timeout"
    with rude(until_closed) as port:
        assert failure(f"https://127.0.0.1:{port}/").kind == "tls"
    with serving() as peer:
        assert failure(f"https://127.0.0.1:{peer.port}/").kind == "tls"


def test_huge_body_is_not_read() -> None:
    """Of a body of a gigabyte, and of one that never ends, a little is read; memory stays flat."""
    for head in (b"Content-Length: 1073741824\r\n", b"Transfer-Encoding: chunked\r\n"):
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n" if b"chunked" in head else b"x" * 65536

        def flood(connection: socket.socket, head: bytes = head, chunk: bytes = chunk) -> None:
            read_request(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
            for _ in range(1 << 14):
                connection.sendall(chunk)

        with rude(flood) as port:
            client = HttpClient(HttpConfig(), 5.0)
            client.request("POST", f"http://127.0.0.1:{port}/")  # imports are not counted
            tracemalloc.start()
            answer = client.request("POST", f"http://127.0.0.1:{port}/")
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert (answer.status, len(answer.body)) == (200, MAX_BODY_BYTES)
        assert peak < 2 << 20


def test_gzip_bomb_is_not_decoded() -> None:
    """A body that would grow a thousandfold stays as it came."""
    bomb = gzip.compress(b"\0" * (32 << 20))
    with serving(Reply(302, {"Content-Encoding": "gzip", "Location": "/"}, bomb)) as peer:
        client = HttpClient(HttpConfig(), 5.0)
        tracemalloc.start()
        answer = client.request("POST", peer.url)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert answer.body == bomb[:MAX_BODY_BYTES]
    assert peak < 8 << 20


def test_environment_has_no_say(
    tmp_path: Path, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a proxy nor ~/.netrc from the environment changes a request."""
    (tmp_path / ".netrc").write_text("machine localhost login me password wrong\n")
    (tmp_path / ".netrc").chmod(0o600)
    with serving(500) as proxy, serving() as peer:
        for name in ("http_proxy", "HTTPS_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        monkeypatch.delenv("no_proxy", raising=False)
        assert ask(peer.url) == 200
        assert ask(peer.url, bearer(token)) == 200
        assert proxy.said == []
        assert "authorization" not in peer.said[0].headers
        assert peer.said[1].headers["authorization"] == f"Bearer {SECRET}"


def test_requests_is_imported_late(tmp_path: Path) -> None:
    """Making a client does not load `requests`; the first request does."""
    program = (
        "import sys\n"
        "from exporter.config import HttpConfig\n"
        "from exporter.scaleout.client import HttpClient, HttpFailedError\n"
        "client = HttpClient(HttpConfig(), 1.0)\n"
        "assert 'requests' not in sys.modules\n"
        "try: client.request('GET', 'http://127.0.0.1:1/')\n"
        "except HttpFailedError: pass\n"
        "assert 'requests' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False)
    assert done.returncode == 0
