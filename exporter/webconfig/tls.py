"""From a `tls_server_config` to what speaks TLS, and the names in a client's certificate."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any

from exporter.secretfile import SecretError, refuse_public
from exporter.webconfig.model import REQUIRE_AND_VERIFY, VERIFY_IF_GIVEN, TlsServerConfig

_VERSIONS = MappingProxyType({"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3})
_VERIFICATION = MappingProxyType(
    {VERIFY_IF_GIVEN: ssl.CERT_OPTIONAL, REQUIRE_AND_VERIFY: ssl.CERT_REQUIRED}
)
_ADVICE = MappingProxyType(
    {
        "KEY_VALUES_MISMATCH": "key_file has the key of another one",
        "NO_CERTIFICATE_OR_CRL_FOUND": "it holds no certificate in PEM",
        "EE_KEY_TOO_SMALL": "the key is too short to be safe; make one of P-256 or RSA 2048",
        "NO_CIPHER_MATCH": "this OpenSSL has none of the suites",
    }
)


def server_context(config: TlsServerConfig, folder: Path) -> ssl.SSLContext:
    """Return what speaks TLS, its files read anew; relative ones begin at `folder`.

    Raises:
        SecretError: A file is missing or not what it should be: its key, which file, and why.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[config.min_version]
    context.maximum_version = _VERSIONS[config.max_version]
    # What OpenSSL 3 refuses by itself: a client could ask for handshakes without an end.
    context.options |= ssl.OP_NO_RENEGOTIATION
    if config.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    if config.cipher_suites:
        with _naming("cipher_suites", None):
            context.set_ciphers(":".join(config.cipher_suites))
    for curve in config.curve_preferences:  # one at most
        context.set_ecdh_curve(curve)
    cert_file, key_file = folder / config.cert_file, folder / config.key_file
    with _naming("key_file", key_file):
        refuse_public(key_file, key_file.stat())
        key_file.open("rb").close()
    with _naming("cert_file", cert_file):
        # An encrypted key would ask for its password on a terminal.
        context.load_cert_chain(cert_file, key_file, password="")
    if config.client_ca_file is not None:
        ca_file = folder / config.client_ca_file
        with _naming("client_ca_file", ca_file):
            context.load_verify_locations(cafile=ca_file)
        # As in Go, each certificate there is trusted, whoever has signed it.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_mode = _VERIFICATION[config.client_auth_type]
    return context


@contextmanager
def _naming(name: str, file: Path | None) -> Iterator[None]:
    """Turn an error of what is done with a file into one that names key and file."""
    place = f"tls_server_config.{name}"
    try:
        yield
    except SecretError as error:
        raise SecretError(f"{place}: {error}") from error
    except ssl.SSLError as error:
        why = _ADVICE.get(error.reason or "", "it is no usable PEM, or its key has a password")
        raise SecretError(f"{place}: {file}: {why}" if file else f"{place}: {why}") from error
    except OSError as error:
        raise SecretError(f"{place}: cannot read {file}: {error.strerror}") from error


def alternative_names(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the subject alternative names of a certificate as SSLSocket.getpeercert tells them."""
    names = (certificate or {}).get("subjectAltName", ())
    kinds = ("DNS", "email", "IP Address", "URI")
    return tuple(normal(value) for kind, value in names if kind in kinds)


def normal(name: str) -> str:
    """Return a name with an IP address in the one form that compares."""
    try:
        return str(ip_address(name.strip()))
    except ValueError:
        return name


def subject(certificate: Mapping[str, Any] | None) -> str:
    """Return what a certificate's owner may be called, "" without a certificate."""
    if not certificate:
        return ""
    names = alternative_names(certificate)
    relative = [pair for part in certificate.get("subject", ()) for pair in part]
    common = [value for kind, value in relative if kind == "commonName"]
    return next(iter((*names, *common)), "a certificate without a name")
