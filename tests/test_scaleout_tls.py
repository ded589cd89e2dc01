"""TLS of the HTTP client of scale-out: whom it trusts, and what it shows."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from scaleout_peers import Peer, serving

from exporter.config import HttpConfig, TlsConfig
from exporter.scaleout.client import HttpClient, HttpFailedError

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Return a certificate authority."""
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    """Return its certificate in a file."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@contextmanager
def tls_server(certificate: trustme.LeafCert, **options: object) -> Iterator[Peer]:
    """Serve TLS with a certificate; options are attributes of the context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    for name, value in options.items():
        setattr(context, name, value)
    with serving(tls=context) as peer:
        yield peer


def ask(peer: Peer, config: TlsConfig, url: str = "") -> int:
    """Post something and return the status."""
    client = HttpClient(HttpConfig(tls_config=config), 5.0)
    return client.request("POST", url or peer.url, body=b"{}").status


def refusal(peer: Peer, config: TlsConfig, url: str = "") -> HttpFailedError:
    """Post something that must not arrive, and return why."""
    with pytest.raises(HttpFailedError) as failed:
        ask(peer, config, url)
    assert peer.said == []
    return failed.value


def test_own_authority_is_trusted(authority: trustme.CA, ca_file: Path) -> None:
    """A server whose certificate the ca_file has signed gets the request, by name or address."""
    with tls_server(authority.issue_cert("localhost", "127.0.0.1")) as peer:
        assert ask(peer, TlsConfig(ca_file=ca_file)) == 200
        assert ask(peer, TlsConfig(ca_file=ca_file), f"https://127.0.0.1:{peer.port}/") == 200


def test_unknown_authority_is_refused(authority: trustme.CA, ca_file: Path) -> None:
    """An authority of somebody else is not trusted: neither the system's nor one in a ca_file."""
    stranger = trustme.CA()
    with tls_server(stranger.issue_cert("localhost")) as peer:
        failed = refusal(peer, TlsConfig(ca_file=ca_file))
        assert failed.kind == "tls"
        assert "certificate not trusted" in str(failed)
    with tls_server(authority.issue_cert("localhost")) as peer:
        assert refusal(peer, TlsConfig()).kind == "tls"


def test_environment_names_no_authority(
    authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables that point other programs to an authority have no effect."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(ca_file))
    with tls_server(authority.issue_cert("localhost")) as peer:
        assert refusal(peer, TlsConfig()).kind == "tls"


def test_ca_file_replaces_the_system(
    authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a ca_file, nobody else is trusted any more, whomever the system trusts."""
    paths = ssl.get_default_verify_paths()
    trusted = paths._replace(openssl_cafile=str(ca_file), openssl_capath="")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: trusted)
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with tls_server(authority.issue_cert("localhost")) as peer:
        assert refusal(peer, TlsConfig(ca_file=other)).kind == "tls"
        assert ask(peer, TlsConfig()) == 200  # the system trusts it


def test_expired_certificate_is_refused(authority: trustme.CA, ca_file: Path) -> None:
    """A certificate whose time is over is not trusted."""
    expired = authority.issue_cert("localhost", not_after=LONG_AGO)
    with tls_server(expired) as peer:
        failed = refusal(peer, TlsConfig(ca_file=ca_file))
        assert (failed.kind, "expired" in str(failed)) == ("tls", True)


def test_name_must_match(authority: trustme.CA, ca_file: Path) -> None:
    """A certificate for another host is refused, unless server_name says that it is the one."""
    with tls_server(authority.issue_cert("scaler.internal")) as peer:
        failed = refusal(peer, TlsConfig(ca_file=ca_file))
        assert (failed.kind, "localhost" in str(failed)) == ("tls", True)
        assert ask(peer, TlsConfig(ca_file=ca_file, server_name="scaler.internal")) == 200


@pytest.mark.filterwarnings("error")
def test_verification_can_be_switched_off(authority: trustme.CA) -> None:
    """With insecure_skip_verify any certificate will do, without a warning at each request."""
    with tls_server(authority.issue_cert("elsewhere", not_after=LONG_AGO)) as peer:
        assert ask(peer, TlsConfig(insecure_skip_verify=True)) == 200


def test_client_certificate_is_shown(authority: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    """A server that asks for a certificate gets ours; without one it takes no request."""
    ours, key = tmp_path / "node.pem", tmp_path / "node.key"
    leaf = authority.issue_cert("node-1")
    leaf.cert_chain_pems[0].write_to_path(str(ours))
    leaf.private_key_pem.write_to_path(str(key))
    key.chmod(0o600)
    with_ours = TlsConfig(ca_file=ca_file, cert_file=ours, key_file=key)
    with tls_server(authority.issue_cert("localhost"), verify_mode=ssl.CERT_REQUIRED) as peer:
        failed = refusal(peer, TlsConfig(ca_file=ca_file))
        assert failed.kind in ("tls", "protocol")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with serving(tls=context) as peer:
        assert ask(peer, with_ours) == 200
    key.chmod(0o644)
    with tls_server(authority.issue_cert("localhost")) as peer:
        failed = refusal(peer, with_ours)
        assert (failed.kind, "open to every user" in str(failed)) == ("credentials", True)


def test_old_tls_is_refused(authority: trustme.CA, ca_file: Path) -> None:
    """With min_version TLS13, a server that speaks TLS 1.2 at most is refused."""
    leaf = authority.issue_cert("localhost")
    with tls_server(leaf, maximum_version=ssl.TLSVersion.TLSv1_2) as peer:
        assert refusal(peer, TlsConfig(ca_file=ca_file, min_version="TLS13")).kind == "tls"
        assert ask(peer, TlsConfig(ca_file=ca_file)) == 200


@pytest.mark.parametrize("content", [None, "", "not a certificate"])
def test_bad_file_of_certificates_is_named(tmp_path: Path, content: str | None) -> None:
    """A ca_file that is missing or no PEM is an error that names it."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with serving() as peer:
        failed = refusal(peer, TlsConfig(ca_file=path), f"https://localhost:{peer.port}/")
        assert failed.kind == "credentials"
        assert str(path) in str(failed)


def test_encrypted_key_is_refused(authority: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    """A key that needs a password is an error, and never a question on a terminal."""
    key = tmp_path / "node.key"
    header = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
    key.write_text(header + "AAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    key.chmod(0o600)
    leaf = authority.issue_cert("localhost")
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "node.pem"))
    config = TlsConfig(ca_file=ca_file, cert_file=tmp_path / "node.pem", key_file=key)
    with tls_server(leaf) as peer:
        assert refusal(peer, config).kind == "credentials"


def test_renewed_authority_counts_at_once(ca_file: Path) -> None:
    """Each request reads the ca_file: one that was replaced is used from the next on."""
    client = HttpClient(HttpConfig(tls_config=TlsConfig(ca_file=ca_file)), 5.0)
    renewed = trustme.CA()
    with tls_server(renewed.issue_cert("localhost")) as peer:
        with pytest.raises(HttpFailedError):
            client.request("POST", peer.url)
        renewed.cert_pem.write_to_path(str(ca_file))
        assert client.request("POST", peer.url).status == 200
