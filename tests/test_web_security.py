"""The server behind a web config: who comes in, who does not, and what hostile clients get."""

from __future__ import annotations

import contextlib
import logging
import select
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from http_client import PATIENCE_SECONDS, Answer, Client, Running, connect, get, serving, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web_files import CLIENT_NAME, TLS, WebFiles, basic, hashed, users

from exporter.httpd import Limits, Request, Response, Route
from exporter.web import may_act
from exporter.webconfig import Entrance
from exporter.webconfig.entrance import basic as parse_basic
from exporter.webconfig.passwords import Passwords

ALICE = basic("alice", "secret")
MUTUAL = TLS[:-2] + ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem}\n"
ROUTES = (
    Route("/metrics", ("GET",), lambda _: Response(200, b"gpu_up 1\n")),
    Route("/whoami", ("GET",), lambda request: Response(200, f"<{request.user}>".encode())),
    Route("/act", ("POST",), lambda request: Response(200 if may_act(request) else 403, b"")),
    Route("/hook", ("POST",), lambda r: Response(200, f"<{r.user}>".encode()), 1000, lambda: True),
    Route("/own", ("GET",), lambda _: Response(200, b"", headers=(("X-Frame-Options", "mine"),))),
    Route("/body", ("POST",), lambda request: Response(200, request.body), 1000),
)


class Guarded:
    """A server with a web config, and what it told."""

    def __init__(self, files: WebFiles, entrance: Entrance, running: Running) -> None:
        self.files = files
        self.entrance = entrance
        self.running = running

    @property
    def port(self) -> int:
        """The port."""
        return self.running.port

    def ask(
        self, *headers: str, path: str = "/metrics", tls: ssl.SSLContext | None = None
    ) -> Answer:
        """Ask once, on a connection of its own."""
        with connect(self.port, tls=tls) as client:
            return client.get(path, *headers)


Start = Callable[..., Guarded]


@pytest.fixture
def files(tmp_path: Path) -> WebFiles:
    """Lay out certificates."""
    return WebFiles(tmp_path)


@pytest.fixture
def told() -> list[bool]:
    """Collect what the entrance tells of its readings."""
    return []


@pytest.fixture
def start(files: WebFiles, told: list[bool]) -> Iterator[Start]:
    """Return what starts a server with a web config."""
    with contextlib.ExitStack() as stack:

        def starting(
            text: str, limits: Limits | None = None, compare: Callable[..., bool] | None = None
        ) -> Guarded:
            entrance = Entrance(files.write(text), told.append)
            if compare is not None:
                slow = Passwords(compare)
                slow.replace(entrance._loaded.config.basic_auth_users or {})
                entrance._passwords = slow
            running = stack.enter_context(serving(ROUTES, limits, gate=entrance))
            return Guarded(files, entrance, running)

        yield starting


# Passwords


def test_password(start: Start) -> None:
    """The right password comes in; none, a wrong one, a stranger and nonsense get the same 401."""
    guarded = start(users(alice="secret", bob="hunter2"))
    assert guarded.ask(ALICE).body == b"gpu_up 1\n"
    assert guarded.ask(ALICE, path="/whoami").body == b"<alice>"
    answers = [
        guarded.ask(*headers)
        for headers in (
            [],
            [basic("alice", "wrong")],
            [basic("alice", "hunter2")],
            [basic("carol", "secret")],
            [basic("", "")],
            ["Authorization: Bearer secret"],
            ["Authorization: Basic"],
            ["Authorization: Basic %%%"],
            ["Authorization: Basic YWxpY2U="],  # without a colon
            ["Authorization: Basic /////w=="],  # not UTF-8
            [ALICE, ALICE],
        )
    ]
    assert {(answer.status, answer.body) for answer in answers} == {
        (401, b"401 Unauthorized: send a user's name and password\n")
    }
    challenge = 'Basic realm="gpu-node-exporter", charset="UTF-8"'
    assert {answer.headers["www-authenticate"] for answer in answers} == {challenge}


def test_everything_is_guarded(start: Start) -> None:
    """Without a password no answer tells which paths there are; and no body is read."""
    guarded = start(users(alice="secret"))
    paths = ("/metrics", "/-/healthy", "/act", "/no-such-path", "/hook?")
    statuses = {guarded.ask(path=path).status for path in paths[:-1]}
    assert statuses == {401}
    for request in (
        b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n",
        b"POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /no HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
    ):
        with connect(guarded.port) as client:
            client.send(request)
            assert client.answer().status == 401
            assert client.rest() == b""


def test_password_is_checked_on_a_kept_connection(start: Start) -> None:
    """Each request of a connection is judged for itself, pipelined ones in their order."""
    guarded = start(users(alice="secret"))
    with connect(guarded.port) as client:
        client.send(get("/metrics", ALICE) + get() + get("/whoami", ALICE) + get("/whoami"))
        assert [client.answer().status for _ in range(4)] == [200, 401, 200, 401]
        assert client.get("/whoami", ALICE).body == b"<alice>"


def test_body_waits_for_the_password(start: Start) -> None:
    """A body that comes with a password not seen before is read once that was found right."""
    guarded = start(users(alice="secret"))
    head = f"POST /body HTTP/1.1\r\nHost: x\r\n{ALICE}\r\nContent-Length: 10\r\n\r\n".encode()
    with connect(guarded.port) as client:
        client.send(head + b"hello")
        client.send(b"world")
        assert client.answer().body == b"helloworld"
        client.send(head.replace(b"10", b"5000"))
        assert client.answer().status == 413


def test_comparing_holds_nobody_up(start: Start) -> None:
    """While one password is compared, who is known is answered, and who has none gets the 401."""
    may, busy = threading.Event(), threading.Event()

    def compare(password: bytes, _hashed: str) -> bool:
        if password != b"secret":
            busy.set()
            assert may.wait(PATIENCE_SECONDS)
        return password == b"secret"

    guarded = start(users(alice="secret"), compare=compare)
    assert guarded.ask(ALICE).status == 200
    with contextlib.ExitStack() as stack:
        hostile = [stack.enter_context(connect(guarded.port)) for _ in range(200)]
        for number, client in enumerate(hostile):
            client.send(get("/metrics", basic("alice", f"wrong{number}")))
        assert busy.wait(PATIENCE_SECONDS)
        for _ in range(20):
            assert guarded.ask(ALICE).status == 200
            assert guarded.ask().status == 401
        # One is compared and two wait: a client may not have more.
        assert {client.answer().status for client in answered(hostile, 197)} == {429}
        may.set()
        assert answered(hostile, 1)[0].answer().status == 401


def answered(clients: list[Client], count: int) -> list[Client]:
    """Wait until so many clients have an answer to read, and return these."""
    socks = {client.sock: client for client in clients}
    wait_until(lambda: len(select.select(socks, [], [], 0)[0]) >= count)
    return [socks[sock] for sock in select.select(socks, [], [], 0)[0]]


def test_password_that_is_not_compared_in_time(start: Start) -> None:
    """If its turn does not come within the time of a request, that is a 503, and no way in."""
    may = threading.Event()
    guarded = start(
        users(alice="secret"),
        Limits(request_seconds=0.3),
        compare=lambda *_: may.wait(PATIENCE_SECONDS),
    )
    try:
        with connect(guarded.port) as first, connect(guarded.port) as second:
            for client in (first, second):
                client.send(get("/metrics", ALICE))
            for client in (first, second):
                answer = client.answer()
                assert answer.status == 503
                assert b"could not be checked within 0.3 s" in answer.body
                assert client.rest() == b""
        wait_until(lambda: not guarded.running.server._connections)
        ((waiting,),) = guarded.entrance._passwords._waiting.values()
        assert waiting.answer.cancelled()  # nobody compares it any more
    finally:
        may.set()


def test_more_arrives_while_it_waits(start: Start) -> None:
    """What arrives while a password is compared asks for no second comparison."""
    may = threading.Event()
    compared: list[bytes] = []

    def compare(password: bytes, _hashed: str) -> bool:
        compared.append(password)
        return may.wait(PATIENCE_SECONDS)

    guarded = start(users(alice="secret"), compare=compare)
    running = guarded.running
    with connect(guarded.port) as client:
        client.send(get("/metrics", ALICE))
        wait_until(lambda: bool(compared))
        client.send(get("/whoami", ALICE))
        (connection,) = running.server._connections
        running.loop.call_soon_threadsafe(connection._advance)  # as TLS in Python 3.10 does
        assert guarded.ask().status == 401
        may.set()
        assert [client.answer().body for _ in range(2)] == [b"gpu_up 1\n", b"<alice>"]
    assert compared == [b"secret"]


def test_client_that_leaves_while_it_waits(start: Start) -> None:
    """A connection that is reset while its password is compared leaves nothing behind."""
    may = threading.Event()
    guarded = start(users(alice="secret"), compare=lambda *_: may.wait(PATIENCE_SECONDS))
    with connect(guarded.port) as client:
        client.send(get("/metrics", ALICE))
        wait_until(lambda: any(c._verdict for c in guarded.running.server._connections))
        client.reset()
    may.set()
    assert guarded.ask(ALICE).status == 200


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic ", "basic ", "Basic \u00ff", "Basic YQ==", "Digest YTpi"]
)
def test_no_credentials(header: str) -> None:
    """What is no user and password by RFC 7617 is none."""
    assert parse_basic(header) is None


@given(st.text(st.characters(max_codepoint=255)))
def test_any_authorization_is_credentials_or_none(text: str) -> None:
    """No header is an error."""
    for header in (text, f"Basic {text}"):
        found = parse_basic(header)
        assert found is None or ":" not in found.user


def test_own_guard_is_enough(start: Start) -> None:
    """A path with an Authorization of its own is not asked for a password as well."""
    guarded = start(users(alice="secret"))
    with connect(guarded.port) as client:
        client.send(get("/hook", "Authorization: Bearer token", "Content-Length: 0", method="POST"))
        assert client.answer().body == b"<>"
        client.send(get("/hook"))
        assert client.answer().status == 401


def test_headers(start: Start) -> None:
    """The headers of the file are in every answer, refusals too; a path's own wins."""
    guarded = start(
        "http_server_config:\n"
        "  headers: {X-Frame-Options: deny, Strict-Transport-Security: max-age=1}\n"
        + users(alice="secret")
    )
    for answer in (guarded.ask(ALICE), guarded.ask(), guarded.ask(ALICE, path="/no")):
        assert answer.headers["x-frame-options"] == "deny"
        assert answer.headers["strict-transport-security"] == "max-age=1"
    assert guarded.ask(ALICE, path="/own").headers["x-frame-options"] == "mine"


def test_rate_limit(start: Start) -> None:
    """Beyond the burst, 429: before any password is looked at."""
    guarded = start("rate_limit: {interval: 1h, burst: 2}\n" + users(alice="secret"))
    assert [guarded.ask(ALICE).status for _ in range(3)] == [200, 200, 429]
    assert guarded.ask().status == 429


# TLS


def refused(guarded: Guarded, tls: ssl.SSLContext) -> None:
    """Prove that a client gets through no handshake, or no further."""
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
        guarded.ask(tls=tls)


def test_tls(start: Start, files: WebFiles) -> None:
    """TLS with the file's certificate, resumed by a client that comes again; plain HTTP is shut."""
    guarded = start(TLS)
    client = files.trusting()
    assert guarded.ask(tls=client).status == 200
    with connect(guarded.port) as plain:
        plain.send(get())
        assert b"HTTP" not in plain.rest()
    sessions: list[ssl.SSLSession | None] = []
    for session in (None, 0):
        with socket.create_connection(("127.0.0.1", guarded.port)) as sock:
            old = None if session is None else sessions[session]
            with client.wrap_socket(sock, server_hostname="localhost", session=old) as wrapped:
                wrapped.sendall(get())
                assert wrapped.recv(100).startswith(b"HTTP/1.1 200")
                assert wrapped.session_reused is (old is not None)
                sessions.append(wrapped.session)


@pytest.mark.parametrize(
    ("least", "version", "is_spoken"),
    [
        ("TLS12", ssl.TLSVersion.TLSv1, False),
        ("TLS12", ssl.TLSVersion.TLSv1_1, False),
        ("TLS12", ssl.TLSVersion.TLSv1_2, True),
        ("TLS13", ssl.TLSVersion.TLSv1_2, False),
        ("TLS13", ssl.TLSVersion.TLSv1_3, True),
    ],
)
def test_old_tls_is_refused(
    start: Start, files: WebFiles, least: str, version: ssl.TLSVersion, is_spoken: bool
) -> None:
    """Below min_version there is no handshake."""
    guarded = start(f"{TLS[:-2]}, min_version: {least}}}\n")
    if is_spoken:
        assert guarded.ask(tls=files.old(version)).status == 200
    else:
        refused(guarded, files.old(version))


def test_suites_and_curve_are_kept(start: Start, files: WebFiles) -> None:
    """Only the suites and the curve of the file are agreed on."""
    suite = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
    guarded = start(f"{TLS[:-2]}, cipher_suites: [{suite}], curve_preferences: [CurveP384]}}\n")
    client = files.old(ssl.TLSVersion.TLSv1_2)
    client.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    assert guarded.ask(tls=client).status == 200
    client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    refused(guarded, client)
    client = files.trusting()
    client.set_ecdh_curve("prime256v1")
    refused(guarded, client)


def test_client_certificate(start: Start, files: WebFiles) -> None:
    """Required: ours comes in by its name; none, and one of a stranger, do not."""
    guarded = start(MUTUAL)
    ours = files.trusting(files.client(CLIENT_NAME))
    assert guarded.ask(path="/whoami", tls=ours).body == f"<{CLIENT_NAME}>".encode()
    refused(guarded, files.trusting())
    refused(guarded, files.trusting(files.client(CLIENT_NAME, authority=trustme.CA())))


def test_client_certificate_if_given(start: Start, files: WebFiles) -> None:
    """If given: who shows none is nobody in particular; one of a stranger is refused."""
    guarded = start(MUTUAL.replace("RequireAndVerify", "Verify").replace("Cert,", "CertIfGiven,"))
    assert guarded.ask(path="/whoami", tls=files.trusting()).body == b"<>"
    ours = files.trusting(files.client(CLIENT_NAME))
    assert guarded.ask(path="/whoami", tls=ours).body == f"<{CLIENT_NAME}>".encode()
    refused(guarded, files.trusting(files.client(CLIENT_NAME, authority=trustme.CA())))


@pytest.mark.parametrize(
    ("allowed", "names", "status"),
    [
        ("prometheus.internal", (CLIENT_NAME,), 200),
        ("a.internal, prometheus.internal", ("b.internal", CLIENT_NAME), 200),
        ("prometheus.internal", ("other.internal",), 403),
        ("prometheus.internal", ("x.prometheus.internal",), 403),
        ("'*.internal'", (CLIENT_NAME,), 403),
        ("10.1.2.3", ("10.1.2.3",), 200),
        ("'2001:db8::1'", ("2001:db8:0:0::1",), 200),
        ("ops@example.com", ("ops@example.com",), 200),
    ],
)
def test_allowed_names(
    start: Start, files: WebFiles, allowed: str, names: tuple[str, ...], status: int
) -> None:
    """client_allowed_sans: one of the certificate's names must be in it, exactly."""
    guarded = start(f"{MUTUAL[:-2]}, client_allowed_sans: [{allowed}]}}\n")
    assert guarded.ask(tls=files.trusting(files.client(*names))).status == status


def test_who_may_act(start: Start, files: WebFiles) -> None:
    """What changes something: for this machine, a user, or a client with a certificate."""
    request = Request("POST", "/-/reload", "", {}, b"", "192.0.2.1")
    assert not may_act(request)
    assert may_act(Request("POST", "/-/reload", "", {}, b"", "192.0.2.1", "alice"))
    assert may_act(Request("POST", "/-/reload", "", {}, b"", "::1"))
    for site, may in (("none", True), ("same-origin", True), ("same-site", False), ("x", False)):
        browser = {"sec-fetch-site": site}
        assert may_act(Request("POST", "/-/reload", "", browser, b"", "::1", "alice")) is may
    guarded = start(MUTUAL)
    with connect(guarded.port, tls=files.trusting(files.client(CLIENT_NAME))) as client:
        client.send(get("/act", "Content-Length: 0", method="POST"))
        assert client.answer().status == 200


# What changes while it runs


def test_renewed_certificate_holds_at_once(start: Start, files: WebFiles, told: list[bool]) -> None:
    """A certificate that was replaced is shown from the next connection on; kept ones go on."""
    guarded = start(TLS)
    renewed = trustme.CA()
    with connect(guarded.port, tls=files.trusting()) as kept:
        assert kept.get().status == 200
        files.renew(renewed)
        with pytest.raises(ssl.SSLCertVerificationError):
            guarded.ask(tls=files.trusting())
        renewed.cert_pem.write_to_path(str(files.ca_file))
        assert guarded.ask(tls=files.trusting()).status == 200
        assert kept.get().status == 200
    assert told == [True]


def test_half_renewed_certificate(
    start: Start, files: WebFiles, told: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    """Between certificate and key the old pair goes on: one error line, then the new one."""
    guarded = start(TLS)
    old_key = (files.folder / "server.key").read_bytes()
    files.renew()
    new_key = (files.folder / "server.key").read_bytes()
    (files.folder / "server.key").write_bytes(old_key)
    with caplog.at_level(logging.INFO):
        assert [guarded.ask(tls=files.trusting()).status for _ in range(3)] == [200] * 3
    errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "key_file has the key of another one" in errors[0]
    (files.folder / "server.key").write_bytes(new_key)
    assert guarded.ask(tls=files.trusting()).status == 200
    assert told == [False, True]


def test_changed_users_hold_at_once(start: Start, files: WebFiles) -> None:
    """A user who is removed is refused at the next request, on a kept connection too."""
    guarded = start(users(alice="secret", bob="hunter2"))
    with connect(guarded.port) as kept:
        assert kept.get("/metrics", ALICE).status == 200
        files.write(users(bob="hunter2", carol="new"))
        assert kept.get("/metrics", ALICE).status == 401
        assert kept.get("/metrics", basic("carol", "new")).status == 200
        files.write(users(carol="newer"))
        assert kept.get("/metrics", basic("carol", "new")).status == 401


@pytest.mark.parametrize(
    ("before", "after", "gone"),
    [
        ("users", "none", "basic_auth_users"),
        ("TLS + users", "users", "tls_server_config"),
        ("TLS", "none", "tls_server_config"),
        ("MUTUAL", "TLS", "the client certificate of tls_server_config.client_auth_type"),
        ("NAMED", "MUTUAL", "tls_server_config.client_allowed_sans"),
    ],
)
def test_no_protection_is_lifted(
    files: WebFiles, told: list[bool], before: str, after: str, gone: str
) -> None:
    """A file that is good, but protects less, as one half written may, needs a restart."""
    texts = {
        "users": users(alice="secret"),
        "TLS": TLS,
        "TLS + users": TLS + users(alice="secret"),
        "MUTUAL": MUTUAL,
        "NAMED": f"{MUTUAL[:-2]}, client_allowed_sans: [{CLIENT_NAME}]}}\n",
        "none": "{}",
    }
    entrance = Entrance(files.write(texts[before]), told.append)
    old = entrance.context()
    files.write(texts[after])
    assert entrance.context() is old
    (problem,) = entrance.reload()
    assert problem == f"{files.config}: {gone} is gone; that takes effect at a restart"
    files.write(texts[before])
    assert entrance.reload() == ()
    assert told == [False]


def test_bad_file_changes_nothing(start: Start, files: WebFiles) -> None:
    """A web config that is bad, or gone, leaves users and certificates as they are."""
    guarded = start(TLS + users(alice="secret"))
    tls = files.trusting()
    good = files.config.read_text()
    for text in ("nonsense: 1\n", "tls_server_config: [", None, good):
        files.config.unlink() if text is None else files.write(text)
        if text == good:
            (files.folder / "server.pem").unlink()
        assert guarded.ask(ALICE, tls=tls).status == 200
        assert guarded.ask(tls=tls).status == 401
        assert guarded.entrance.reload()


def test_tls_may_be_added(start: Start, files: WebFiles) -> None:
    """More protection holds at once: TLS where there was none."""
    guarded = start(users(alice="secret"))
    files.write(TLS + users(alice="secret"))
    assert guarded.ask(ALICE, tls=files.trusting()).status == 200


def test_key_made_public_is_refused(start: Start, files: WebFiles) -> None:
    """A key whose mode is opened while we run is an error from the next look on."""
    guarded = start(TLS)
    (files.folder / "server.key").chmod(0o644)
    assert guarded.ask(tls=files.trusting()).status == 200
    assert "open to every user" in guarded.entrance.reload()[0]


# Hostile clients


ONE_SERVER = [HealthCheck.function_scoped_fixture]


@settings(max_examples=60, deadline=None, suppress_health_check=ONE_SERVER)
@given(data=st.binary(max_size=300) | st.binary(max_size=300).map(lambda d: b"\x16\x03\x01" + d))
def test_garbage_instead_of_tls(hostile_target: Guarded, data: bytes) -> None:
    """Any bytes end the connection, and nothing else; not a word in the log."""
    with connect(hostile_target.port) as client:
        client.send(data)
        client.sock.shutdown(socket.SHUT_WR)
        assert b"HTTP" not in client.rest()


@pytest.fixture
def hostile_target(
    start: Start, files: WebFiles, caplog: pytest.LogCaptureFixture
) -> Iterator[Guarded]:
    """Serve TLS for clients that break it, and prove that others come through in the end."""
    guarded = start(TLS + users(alice="secret"), Limits(connections=8, request_seconds=1.0))
    yield guarded
    assert guarded.ask(ALICE, tls=files.trusting()).status == 200
    wait_until(lambda: not guarded.running.server._connections)
    assert [r.getMessage() for r in caplog.records if r.levelno > logging.INFO] == []


def test_handshake_in_drops(hostile_target: Guarded, files: WebFiles) -> None:
    """Handshakes that never end hold no more places than there are, and no place for ever."""
    hello = ssl.MemoryBIO()
    client = files.trusting().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    data = hello.read()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(hostile_target.port)) for _ in range(30)]
        for number, one in enumerate(clients):
            with contextlib.suppress(ConnectionError):
                one.send(data[: number * len(data) // 30])
        wait_until(lambda: len(hostile_target.running.server._connections) <= 8)
        assert hostile_target.ask(ALICE, tls=files.trusting()).status == 200
        for one in clients:
            assert b"HTTP" not in one.rest()


def test_client_does_not_renegotiate(hostile_target: Guarded, files: WebFiles) -> None:
    """A client of TLS 1.2 that asks for another handshake on its connection gets none."""
    openssl = shutil.which("openssl")
    assert openssl is not None
    done = subprocess.run(
        [openssl, "s_client", "-connect", f"127.0.0.1:{hostile_target.port}", "-tls1_2",
         "-CAfile", files.ca_file],
        input=b"R\n", capture_output=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert b"RENEGOTIATING" in done.stdout + done.stderr
    assert b"no renegotiation" in done.stdout + done.stderr


def test_hash_is_real() -> None:
    """The tests' hashes are what an operator would write."""
    assert hashed("x", 10).startswith("$2b$10$")
