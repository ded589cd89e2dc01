"""The real daemon behind a web config: scraped by the real Prometheus, reloaded, told of faults."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos import ROUNDS
from daemon import Daemon, running
from http_client import connect, get
from prometheus import job, prometheus
from test_cli import BAD, run
from web_files import CLIENT_NAME, TLS, WebFiles, basic, hashed, users

BRISK = "poll: {fast: 250ms}\n"
MUTUAL = (
    "tls_server_config:\n"
    "  {cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem,\n"
    f"  client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [{CLIENT_NAME}]}}\n"
)


@pytest.fixture
def files(tmp_path: Path) -> WebFiles:
    """Lay out certificates."""
    return WebFiles(tmp_path)


@contextlib.contextmanager
def guarded(files: WebFiles, text: str, *headers: str, tls: bool = True) -> Iterator[Daemon]:
    """Run a daemon with a web config, and a client that it lets in."""
    path = files.write(text)
    client = files.trusting(files.client(CLIENT_NAME)) if tls else None
    flag = f"--web.config.file={path}"
    with running("--simulate=t4", flag, config=BRISK, tls=client, headers=headers) as daemon:
        yield daemon


def https(files: WebFiles, *, client: tuple[Path, Path] | None = None) -> str:
    """Return what a Prometheus job needs for TLS."""
    shown = "" if client is None else f", cert_file: {client[0]}, key_file: {client[1]}"
    return f"    scheme: https\n    tls_config: {{ca_file: {files.ca_file}{shown}}}\n"


def password(text: str) -> str:
    """Return what a Prometheus job needs for a password."""
    return f"    basic_auth: {{username: alice, password: {text}}}\n"


@pytest.mark.slow
def test_prometheus_scrapes_with_each_method(tmp_path: Path) -> None:
    """Password, TLS, client certificate, and all at once: up. Without what is asked for: down."""
    with contextlib.ExitStack() as stack:
        places = {}
        for name in ("plain", "tls", "mutual", "all"):
            (tmp_path / name).mkdir()
            places[name] = WebFiles(tmp_path / name)
        alice = basic("alice", "secret")
        ports = {
            name: stack.enter_context(daemon).port
            for name, daemon in {
                "plain": guarded(places["plain"], users(alice="secret"), alice, tls=False),
                "tls": guarded(places["tls"], TLS),
                "mutual": guarded(places["mutual"], MUTUAL),
                "all": guarded(places["all"], MUTUAL + users(alice="secret"), alice),
            }.items()
        }
        ours = {name: (place.folder / "client.pem", place.folder / "client.key")
                for name, place in places.items()}  # fmt: skip
        wanted = {
            "password": ("plain", password("secret"), 1.0),
            "no-password": ("plain", "", 0.0),
            "wrong-password": ("plain", password("guess"), 0.0),
            "tls": ("tls", https(places["tls"]), 1.0),
            "http": ("tls", "", 0.0),
            "other-authority": ("tls", https(places["mutual"]), 0.0),
            "certificate": ("mutual", https(places["mutual"], client=ours["mutual"]), 1.0),
            "no-certificate": ("mutual", https(places["mutual"]), 0.0),
            "all": ("all", https(places["all"], client=ours["all"]) + password("secret"), 1.0),
            "all-but-password": ("all", https(places["all"], client=ours["all"]), 0.0),
        }
        jobs = [job(name, ports[at], more=more) for name, (at, more, _) in wanted.items()]
        server = stack.enter_context(prometheus(tmp_path, jobs))
        server.until(f"count(count_over_time(up[1m]) >= 3) == {len(wanted)}")
        expected = {name: up for name, (_, _, up) in wanted.items()}
        assert server.of_jobs("min_over_time(up[1m])") == expected
        assert server.of_jobs("max_over_time(up[1m])") == expected
        assert set(server.of_jobs("max by (job) (gpu_up)")) == {
            n for n, up in expected.items() if up
        }


def test_every_address_speaks_tls(files: WebFiles) -> None:
    """TLS holds on all addresses, and the log says where it is."""
    path = files.write(TLS)
    listen = ("127.0.0.1:0", "[::1]:0")
    client = files.trusting()
    client.check_hostname = False  # the certificate has no ::1
    flag = f"--web.config.file={path}"
    with running("--simulate=t4", flag, listen=listen, tls=client) as daemon:
        for host, port in daemon.addresses:
            with connect(port, host, tls=client) as one:
                assert one.get().status == 200
            with connect(port, host) as plain:
                plain.send(get())
                assert b"HTTP" not in plain.rest()
            shown = f"[{host}]" if ":" in host else host
            assert f"listening on https://{shown}:{port}/metrics" in daemon.log


def test_reload_tells_of_both_files(files: WebFiles) -> None:
    """A mistake in either file fails a reload; all are named, and the metric says it."""
    alice = basic("alice", "secret")
    good = TLS + users(alice="secret")
    name = "gpu_exporter_config_last_reload_successful"
    with guarded(files, good, alice) as daemon:
        daemon.config_file.write_text("nonsense: 1\n")
        files.write(good + "more: 1\n")
        answer = daemon.get("/-/reload", "POST")
        assert answer.status == 500
        first, *lines = answer.body.decode().splitlines()
        assert first == "config not reloaded, the old one goes on:"
        assert [line.split(": ")[0] for line in lines] == [
            f"{daemon.config_file}:1:1",
            f"{files.config}:4:1",
        ]
        daemon.until(lambda page: page.value(name) == 0.0)
        daemon.config_file.write_text(BRISK)
        assert daemon.get("/-/reload", "POST").status == 500  # the web config still is
        files.write(good)
        assert daemon.get("/-/reload", "POST").status == 200
        daemon.until(lambda page: page.value(name) == 1.0)


def test_bad_web_config_is_seen_without_a_reload(files: WebFiles) -> None:
    """A web config that has become bad is told at the next request: log and metric, until good."""
    alice = basic("alice", "secret")
    name = "gpu_exporter_config_last_reload_successful"
    with guarded(files, users(alice="secret"), alice, tls=False) as daemon:
        files.write("nonsense: 1\n")
        daemon.until(lambda page: page.value(name) == 0.0)
        assert len([m for m in daemon.messages("error") if "web config not reloaded" in m]) == 1
        files.write(users(alice="secret", bob="hunter2"))
        daemon.until(lambda page: page.value(name) == 1.0)
        daemon.wait_for_log("web config reloaded")


def test_bad_web_config_ends_the_daemon(files: WebFiles) -> None:
    """The daemon refuses what check-web-config refuses, in the same words, and does not start."""
    path = files.write("basic_auth_users: {alice: hunter2}\nnonsense: 1\n")
    checked = run("check-web-config", path)
    started = run(f"--web.config.file={path}", "--simulate=t4")
    assert (checked.returncode, started.returncode) == (BAD, BAD)
    assert checked.stderr == started.stderr
    assert len(started.stderr.splitlines()) == 2
    assert "hunter2" not in started.stderr


def test_receiver_is_guarded_by_either(files: WebFiles) -> None:
    """Alertmanager comes in by the receiver's own secret, or, where it has none, by the page's."""
    token = files.folder / "token"
    token.write_text("s3cret\n")
    token.chmod(0o600)
    routes = "routes: [{matchers: [], action: record}]"
    alice = basic("alice", "secret")

    def status(daemon: Daemon, *headers: str) -> int:
        path = "/api/v1/alertmanager"
        with connect(daemon.port) as client:
            client.send(get(path, "Content-Length: 0", *headers, method="POST"))
            return client.answer().status

    path = files.write(users(alice="secret"))
    own = f"alertmanager_receiver: {{authorization: {{credentials_file: {token}}}, {routes}}}\n"
    flag = f"--web.config.file={path}"
    with running("--simulate=t4", flag, config=own, headers=[alice]) as daemon:
        assert status(daemon) == 401
        assert status(daemon, alice) == 401
        assert status(daemon, "Authorization: Bearer s3cret") == 415  # in, and told what to send
        daemon.config_file.write_text(f"alertmanager_receiver: {{{routes}}}\n")
        assert daemon.get("/-/reload", "POST").status == 200
        assert status(daemon) == 401
        assert status(daemon, "Authorization: Bearer s3cret") == 401
        assert status(daemon, alice) == 415


@pytest.mark.chaos
def test_wrong_passwords_hold_up_no_scrape(files: WebFiles) -> None:
    """Of 200 wrong passwords at once a few are compared, which takes bcrypt; scrapes go on."""
    config = f"basic_auth_users: {{alice: {hashed('secret', 10)}}}\n"
    with guarded(files, config, basic("alice", "secret"), tls=False) as daemon:
        for number in range(ROUNDS):
            with contextlib.ExitStack() as stack:
                others = [
                    stack.enter_context(connect(daemon.port, source="127.0.0.2"))
                    for _ in range(200)
                ]
                for one, client in enumerate(others):
                    client.send(get("/metrics", basic("alice", f"wrong{number}.{one}")))
                    if one % 20 == 0:
                        assert daemon.page().up() == [1.0]
                statuses = [client.answer().status for client in others]
            assert set(statuses) == {401, 429}
            assert statuses.count(401) <= 20
