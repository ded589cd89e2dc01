"""The web config file: exporter-toolkit's format, and what is said about every mistake in it."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from chaos import ROUNDS
from config_writer import key_of
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_cli import BAD, OK, run
from web_files import TLS, WebFiles, hashed, users

from exporter import webconfig, yamlfile
from exporter.schema import ConfigError
from exporter.webconfig.model import (
    CIPHER_SUITES,
    CLIENT_AUTH_TYPES,
    CURVES,
    VERSIONS,
    Headers,
    HttpServerConfig,
    RateLimit,
    TlsServerConfig,
    WebConfig,
)
from exporter.webconfig.pace import Pace

FOLDER = Path(__file__).parent / "webconfigs"
SECURITY = (Path(__file__).parents[1] / "docs" / "security.md").read_text()
EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "web-config.yml"


@pytest.fixture
def files(tmp_path: Path) -> WebFiles:
    """Lay out certificates."""
    return WebFiles(tmp_path)


def mistakes(path: Path) -> tuple[str, ...]:
    """Return what is wrong with a file."""
    with pytest.raises(ConfigError) as bad:
        webconfig.load(path)
    return bad.value.mistakes


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("bad-*.yml")))
def test_every_mistake_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file gives exactly the messages that its first lines expect; none repeats a secret."""
    monkeypatch.chdir(FOLDER)
    lines = Path(name).read_text().splitlines()
    expected = [line[len("# expect: ") :] for line in lines if line.startswith("# expect: ")]
    assert expected
    assert mistakes(Path(name)) == tuple(expected)
    assert "hunter2" not in "".join(expected)


def test_whole_file(files: WebFiles) -> None:
    """Every key of the format is understood, with Go's names turned into OpenSSL's."""
    secret = hashed("secret")
    files.client("c")
    path = files.write(f"""
tls_server_config:
  cert_file: server.pem
  key_file: {files.folder}/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  client_allowed_sans: [prometheus.internal, 10.1.2.3]
  min_version: TLS12
  max_version: TLS12
  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP384]
http_server_config:
  http2: false
  headers:
    Content-Security-Policy: default-src 'none'
    X-Frame-Options: deny
    X-Content-Type-Options: nosniff
    X-XSS-Protection: 1; mode=block
    Strict-Transport-Security: max-age=31536000
basic_auth_users: {{alice: {secret}}}
rate_limit: {{interval: 1s, burst: 20}}
""")
    loaded = webconfig.load(path)
    assert loaded.config == WebConfig(
        tls_server_config=TlsServerConfig(
            cert_file=Path("server.pem"),
            key_file=files.folder / "server.key",
            client_auth_type="RequireAndVerifyClientCert",
            client_ca_file=Path("ca.pem"),
            client_allowed_sans=("prometheus.internal", "10.1.2.3"),
            max_version="TLS12",
            cipher_suites=("ECDHE-ECDSA-AES256-GCM-SHA384",),
            prefer_server_cipher_suites=False,
            curve_preferences=("secp384r1",),
        ),
        http_server_config=HttpServerConfig(
            http2=False,
            headers=Headers(
                "default-src 'none'", "deny", "nosniff", "1; mode=block", "max-age=31536000"
            ),
        ),
        basic_auth_users={"alice": secret},
        rate_limit=RateLimit(1.0, 20),
    )
    context = loaded.context
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.maximum_version is ssl.TLSVersion.TLSv1_2
    assert [c["name"] for c in context.get_ciphers() if c["protocol"] != "TLSv1.3"] == [
        "ECDHE-ECDSA-AES256-GCM-SHA384"
    ]
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert webconfig.warnings(path, loaded.config) == []


def test_defaults(files: WebFiles) -> None:
    """An empty config protects nothing; TLS alone is 1.2 and up, with our order of suites."""
    assert webconfig.load(files.write("{}")).config == WebConfig()
    context = webconfig.load(files.write(TLS)).context
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.maximum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_mode is ssl.CERT_NONE
    assert context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert context.options & ssl.OP_NO_RENEGOTIATION


@pytest.mark.parametrize("suite", CIPHER_SUITES)
def test_every_suite_is_there(files: WebFiles, suite: str) -> None:
    """This OpenSSL knows every suite by the name that we give it."""
    path = files.write(f"{TLS[:-2]}, cipher_suites: [{suite}]}}\n")
    assert webconfig.load(path).context is not None


@pytest.mark.parametrize("curve", CURVES)
def test_every_curve_is_there(files: WebFiles, curve: str) -> None:
    """And every curve."""
    path = files.write(f"{TLS[:-2]}, curve_preferences: [{curve}]}}\n")
    assert webconfig.load(path).context is not None


@pytest.mark.parametrize(
    ("file", "content", "mode", "said"),
    [
        ("server.pem", None, 0o600, "cert_file: cannot read {}: No such file or directory"),
        ("server.pem", "", 0o600, "cert_file: {}: it is no usable PEM, or its key has a password"),
        ("server.key", None, 0o600, "key_file: cannot read {}: No such file or directory"),
        ("server.key", "same", 0o604, "key_file: {} is open to every user; chmod o= {}"),
        (
            "server.key",
            "other",
            0o600,
            "cert_file: {}: key_file has the key of another one",
        ),
        ("ca.pem", None, 0o600, "client_ca_file: cannot read {}: No such file or directory"),
        ("ca.pem", "", 0o600, "client_ca_file: {}: it holds no certificate in PEM"),
    ],
)
def test_bad_file_is_named(
    files: WebFiles, file: str, content: str | None, mode: int, said: str
) -> None:
    """A certificate, key or authority that cannot be used is told by key, file and reason."""
    path = files.write(
        f"{TLS[:-2]}, client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca.pem}}\n"
    )
    bad = files.folder / file
    if content is None:
        bad.unlink()
    elif content == "other":
        files.client("c")[1].replace(bad)
    elif content == "":
        bad.write_text("")
    if bad.exists():
        bad.chmod(mode)
    named = files.folder / "server.pem" if "cert_file" in said else bad
    (line,) = mistakes(path)
    assert line == f"{path}: tls_server_config.{said.replace('{}', str(named))}"


def test_encrypted_key_is_refused(files: WebFiles) -> None:
    """A key that needs a password is an error, and never a question on a terminal."""
    header = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
    (files.folder / "server.key").write_text(header + "AA==\n-----END ENCRYPTED PRIVATE KEY-----\n")
    (line,) = mistakes(files.write(TLS))
    assert "cert_file" in line


def test_group_may_read_the_key(files: WebFiles) -> None:
    """A key that its group reads is fine: so systemd and Kubernetes hand it out."""
    (files.folder / "server.key").chmod(0o640)
    assert webconfig.load(files.write(TLS)).context is not None


def test_credentials_directory(files: WebFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key may lie where systemd puts credentials."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(files.folder))
    text = TLS.replace("server.key", '"${CREDENTIALS_DIRECTORY}/server.key"')
    assert webconfig.load(files.write(text)).context is not None


def test_command_tells_good_and_bad(files: WebFiles) -> None:
    """check-web-config: 0 and warnings on stdout; 1 and every mistake on stderr."""
    path = files.write(users(alice="secret") + "http_server_config: {http2: true}\n")
    path.chmod(0o644)
    ended = run("check-web-config", path)
    assert (ended.returncode, ended.stderr) == (OK, "")
    assert ended.stdout.splitlines() == [
        f"{path}: warning: http_server_config.http2: HTTP/1.1 is what is spoken in either case",
        f"{path}: warning: its hashes are open to every user; chmod o= {path}",
        f"{path}: warning: passwords go over the network in the clear; add tls_server_config",
        f"{path}: good",
    ]
    ended = run("check-web-config", FOLDER / "bad-values.yml")
    assert (ended.returncode, ended.stdout) == (BAD, "")
    assert len(ended.stderr.splitlines()) > 20


def test_example_is_good(files: WebFiles) -> None:
    """docs/examples/web-config.yml is a good file once its certificates are there."""
    text = EXAMPLE.read_text().replace("/etc/gpu-node-exporter/", f"{files.folder}/")
    config = webconfig.load(files.write(text)).config
    assert config.tls_server_config is not None
    assert config.basic_auth_users


def test_every_key_is_documented(files: WebFiles) -> None:
    """docs/security.md: its web config is good and has every key; so do its tables, with bounds."""
    blocks = re.findall(r"```yaml\n(.*?)```", SECURITY, re.DOTALL)
    (block,) = [block for block in blocks if "tls_server_config" in block]
    config = webconfig.load(files.write(block)).config
    assert {field.name for field in fields(Headers)} == {
        name.lower().replace("-", "_") for name, _ in config.http_server_config.headers.lines()
    }
    for section in (TlsServerConfig, HttpServerConfig, RateLimit):
        for field in fields(section):
            spec = key_of(section, field.name)
            assert re.search(rf"\b{spec.name}:", block), spec.name
            (row,) = re.findall(rf"^\| `{spec.name}` \|.*$", SECURITY, re.MULTILINE)
            assert ("| required |" in row) == (field.default is MISSING), row
            assert spec.at_least in row
            assert spec.at_most in row
    for words in (CURVES, VERSIONS, CLIENT_AUTH_TYPES):
        assert all(f"`{word}`" in SECURITY for word in words)


def test_pace() -> None:
    """A burst at once, then one an interval; what is saved up ends at the burst; 0 limits none."""
    now = [0.0]
    pace = Pace(RateLimit(0.5, 3), lambda: now[0])
    assert [pace.allows() for _ in range(4)] == [True, True, True, False]
    now[0] = 0.5
    assert [pace.allows() for _ in range(2)] == [True, False]
    now[0] = 100.0
    assert [pace.allows() for _ in range(4)] == [True, True, True, False]
    unlimited = Pace(RateLimit(0.0, 1), lambda: now[0])
    assert all(unlimited.allows() for _ in range(100))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file that each example of a property writes anew."""
    return tmp_path_factory.mktemp("web") / "web.yml"


KEYS = (
    "tls_server_config http_server_config basic_auth_users rate_limit cert_file key_file headers "
    "client_auth_type client_allowed_sans cipher_suites curve_preferences min_version interval "
    "X-Frame-Options RequireAndVerifyClientCert TLS12 CurveP256 deny 1s 7 true ~ << *a &a !x é 🙂"
).split()
MARKS = [*"-?:,[]{}#&*!|>'\"%@`~\\\t\n\r\0$", ": ", "\n  ", "- ", hashed("x"), "$2y$10$"]
PIECES = st.lists(st.sampled_from([*KEYS, *MARKS]), max_size=40)
FILES = st.binary() | PIECES.map(lambda pieces: "".join(pieces).encode())


@pytest.mark.chaos
@settings(max_examples=100 * ROUNDS, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=FILES)
@example(data=b"tls_server_config: {cert_file: /dev/null, key_file: /dev/null}")
@example(data=b"tls_server_config: {cert_file: ., key_file: .}")
@example(data=b"basic_auth_users: {? [a] : b}")
@example(data=b"basic_auth_users: {a: $2y$99$" + b"." * 53 + b"}")
def test_any_bytes_are_a_web_config_or_mistakes(data: bytes, scratch: Path) -> None:
    """Whatever a file holds, it loads, or gives lines that name the file."""
    scratch.write_bytes(data)
    try:
        webconfig.load(scratch)
    except ConfigError as bad:
        lines = bad.mistakes
    else:
        return
    assert lines
    assert all(line.startswith(f"{scratch}:") and len(line.splitlines()) == 1 for line in lines)


GO_VALUES: Mapping[str, Sequence[object]] = {
    "client_auth_type": ["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"],
    "min_version": ["TLS12", "TLS13"],
    "max_version": ["TLS12", "TLS13"],
    "cipher_suites": [[], [*CIPHER_SUITES], [*CIPHER_SUITES][:1]],
    "curve_preferences": [[], ["X25519"], ["CurveP521"]],
    "client_allowed_sans": [["a"], ["a", "::1", "spiffe://x/y"]],
    "client_ca_file": ["ca.pem"],
    "prefer_server_cipher_suites": [True, False],
}


@pytest.mark.chaos
@settings(
    max_examples=100 * ROUNDS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    chosen=st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in GO_VALUES.items()})
)
def test_what_is_accepted_can_be_used(files: WebFiles, chosen: dict[str, object]) -> None:
    """Values that each are right make a context, or are refused as mistakes; never fail later."""
    section = {"cert_file": "server.pem", "key_file": "server.key", **chosen}
    path = files.write(f"tls_server_config: {json.dumps(section)}\n")
    try:
        yamlfile.load(path, WebConfig, {})
    except ConfigError:
        return
    loaded = webconfig.load(path)
    assert loaded.context is not None
    wanted = str(chosen.get("client_auth_type", "NoClientCert"))
    assert (loaded.context.verify_mode is ssl.CERT_REQUIRED) == wanted.startswith("Require")
