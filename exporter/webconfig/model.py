"""The web config file, in exporter-toolkit's format: TLS, headers and users of the HTTP server.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from types import MappingProxyType

from exporter.frozen import dataclass
from exporter.schema import Place, boolean, count, duration, key, listed, near_path, nearest, plain

VERSIONS = ("TLS12", "TLS13")
NO_CLIENT_CERT = "NoClientCert"
VERIFY_IF_GIVEN = "VerifyClientCertIfGiven"
REQUIRE_AND_VERIFY = "RequireAndVerifyClientCert"
CLIENT_AUTH_TYPES = (NO_CLIENT_CERT, VERIFY_IF_GIVEN, REQUIRE_AND_VERIFY)
# Python's TLS verifies every certificate that it asks for.
UNVERIFIED = MappingProxyType(
    {
        "RequestClientCert": VERIFY_IF_GIVEN,
        "RequireAnyClientCert": REQUIRE_AND_VERIFY,
        "RequireClientCert": REQUIRE_AND_VERIFY,
    }
)
# Those that Go calls secure, and OpenSSL's names for them.
CIPHER_SUITES = MappingProxyType(
    {
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
        "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    }
)
TLS13_SUITES = (
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
)
CURVES = MappingProxyType(
    {
        "CurveP256": "prime256v1",
        "CurveP384": "secp384r1",
        "CurveP521": "secp521r1",
        "X25519": "X25519",
    }
)
MIN_COST = 4  # bcrypt's own
MAX_COST = 14  # a second of one processor for each password; every step doubles it
LONGEST_HEADER = 4096


def version(text: str) -> str:
    """Read a version of TLS, in Go's words."""
    if text in VERSIONS:
        return text
    if text in ("TLS10", "TLS11"):
        raise ValueError("is broken and not spoken here (RFC 8996); write TLS12 or TLS13")
    raise ValueError("is no version of TLS; write TLS12 or TLS13")


def client_auth_type(text: str) -> str:
    """Read which certificate a client must show, in Go's words."""
    if text in UNVERIFIED:
        raise ValueError(f"takes certificates unverified; write {UNVERIFIED[text]}")
    if text in CLIENT_AUTH_TYPES:
        return text
    raise ValueError(f"is not known here; {nearest(text, CLIENT_AUTH_TYPES)}")


def cipher_suite(text: str) -> str:
    """Read a cipher suite of TLS 1.2 by its name in Go, as its name in OpenSSL."""
    if text in TLS13_SUITES:
        raise ValueError("is one of TLS 1.3, which has all of its own always; remove it")
    if text in CIPHER_SUITES:
        return CIPHER_SUITES[text]
    raise ValueError(f"is none that Go calls secure; {nearest(text, CIPHER_SUITES)}")


def curve(text: str) -> str:
    """Read an elliptic curve by its name in Go, as its name in OpenSSL."""
    if text in CURVES:
        return CURVES[text]
    raise ValueError(f"is no curve for this; {listed(CURVES)}")


def header_value(text: str) -> str:
    """Read the value of an HTTP header."""
    if not text.strip():
        raise ValueError("is empty; write its value, or leave the key out")
    if len(text) > LONGEST_HEADER:
        raise ValueError(f"is longer than {LONGEST_HEADER} characters; shorten it")
    if not (text.isascii() and text.isprintable()):
        raise ValueError("holds what no header can; write printable ASCII on one line")
    return text.strip()


def frame_options(text: str) -> str:
    """Read X-Frame-Options."""
    if text not in ("deny", "sameorigin"):
        raise ValueError("is not known here; write deny or sameorigin")
    return text


def content_type_options(text: str) -> str:
    """Read X-Content-Type-Options."""
    if text != "nosniff":
        raise ValueError("is not known here; write nosniff")
    return text


def username(text: str) -> str:
    """Read the name of a user of HTTP basic authentication."""
    if ":" in plain(text):
        raise ValueError('holds a ":", which a user name cannot; remove it')
    return text


def bcrypt_hash(text: str) -> str:
    """Read a bcrypt hash that can be compared with in reasonable time."""
    # The last character of a salt carries two bits only.
    match = re.fullmatch(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", text)
    if match is None:
        raise ValueError("is no bcrypt hash; write one that `htpasswd -nBC 10 USER` prints")
    cost = int(match[1])
    if not MIN_COST <= cost <= MAX_COST:
        raise ValueError(f"has a cost of {cost}; write a hash of {MIN_COST} to {MAX_COST}")
    return text


@dataclass(frozen=True, slots=True)
class TlsServerConfig:
    """How TLS is spoken.

    Attributes:
        cert_file: Our certificate, with those between it and its authority behind it.
        key_file: Its key.
        client_auth_type: Which certificate a client must show.
        client_ca_file: Authorities of clients' certificates.
        client_allowed_sans: Names of which a client's certificate must have one; None: any will do.
        min_version: Of TLS.
        max_version: Of TLS.
        cipher_suites: Of TLS 1.2, by their names in OpenSSL; none: Python's choice.
        prefer_server_cipher_suites: Whether our order of suites counts, not the client's.
        curve_preferences: The curve to agree on keys with; none: OpenSSL's choice.
    """

    cert_file: Path = field(metadata=key("cert_file", near_path))
    key_file: Path = field(metadata=key("key_file", near_path))
    client_auth_type: str = field(
        default=NO_CLIENT_CERT, metadata=key("client_auth_type", client_auth_type)
    )
    client_ca_file: Path | None = field(default=None, metadata=key("client_ca_file", near_path))
    client_allowed_sans: tuple[str, ...] | None = field(
        default=None, metadata=key("client_allowed_sans", plain)
    )
    min_version: str = field(default="TLS12", metadata=key("min_version", version))
    max_version: str = field(default="TLS13", metadata=key("max_version", version))
    cipher_suites: tuple[str, ...] = field(default=(), metadata=key("cipher_suites", cipher_suite))
    prefer_server_cipher_suites: bool = field(
        default=True, metadata=key("prefer_server_cipher_suites", boolean)
    )
    curve_preferences: tuple[str, ...] = field(default=(), metadata=key("curve_preferences", curve))

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield what would not do what it seems to say."""
        if self.client_auth_type == NO_CLIENT_CERT:
            if self.client_ca_file is not None:
                yield (
                    ("client_ca_file",),
                    f"goes with client certificates; write client_auth_type: {REQUIRE_AND_VERIFY}",
                )
        elif self.client_ca_file is None:
            yield ("client_auth_type",), "has no authority to verify by; add client_ca_file"
        if self.client_allowed_sans is not None:
            if self.client_auth_type != REQUIRE_AND_VERIFY:
                yield (
                    ("client_allowed_sans",),
                    f"need a certificate; write client_auth_type: {REQUIRE_AND_VERIFY}",
                )
            if not self.client_allowed_sans:
                yield ("client_allowed_sans",), "names nobody; add a name, or remove the key"
        if self.max_version < self.min_version:
            yield ("max_version",), f"is below min_version ({self.min_version}); raise it"
        if self.min_version == "TLS13" and self.cipher_suites:
            yield ("cipher_suites",), "are of TLS 1.2, which min_version excludes; remove them"
        if len(self.curve_preferences) > 1:
            yield (
                ("curve_preferences",),
                "names several curves, of which Python's TLS takes one; keep one, or none",
            )


@dataclass(frozen=True, slots=True)
class Headers:
    """Headers that each answer has, unless its path sets them itself; None: left out."""

    content_security_policy: str | None = field(
        default=None, metadata=key("Content-Security-Policy", header_value)
    )
    x_frame_options: str | None = field(
        default=None, metadata=key("X-Frame-Options", frame_options)
    )
    x_content_type_options: str | None = field(
        default=None, metadata=key("X-Content-Type-Options", content_type_options)
    )
    x_xss_protection: str | None = field(
        default=None, metadata=key("X-XSS-Protection", header_value)
    )
    strict_transport_security: str | None = field(
        default=None, metadata=key("Strict-Transport-Security", header_value)
    )

    def lines(self) -> tuple[tuple[str, str], ...]:
        """Return names and values of those that are set."""
        named = (
            ("Content-Security-Policy", self.content_security_policy),
            ("X-Frame-Options", self.x_frame_options),
            ("X-Content-Type-Options", self.x_content_type_options),
            ("X-XSS-Protection", self.x_xss_protection),
            ("Strict-Transport-Security", self.strict_transport_security),
        )
        return tuple((name, value) for name, value in named if value is not None)


@dataclass(frozen=True, slots=True)
class HttpServerConfig:
    """How HTTP is spoken.

    Attributes:
        http2: Taken for the format's sake: HTTP/1.1 is spoken in either case.
        headers: Of each answer.
    """

    http2: bool | None = field(default=None, metadata=key("http2", boolean))
    headers: Headers = Headers()


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How many requests of all clients together are answered; the others get a 429.

    Attributes:
        interval_seconds: Between two requests, in the long run; 0: no limit.
        burst: How many may come at once.
    """

    interval_seconds: float = field(metadata=key("interval", duration, at_most="1h"))
    burst: int = field(metadata=key("burst", count, at_least="1"))


@dataclass(frozen=True, slots=True)
class WebConfig:
    """The whole file.

    Attributes:
        tls_server_config: How TLS is spoken; None: it is not.
        http_server_config: How HTTP is spoken.
        basic_auth_users: bcrypt hashes of passwords by user; None: anybody may come in.
        rate_limit: Of requests; None: there is none.
    """

    tls_server_config: TlsServerConfig | None = None
    http_server_config: HttpServerConfig = HttpServerConfig()
    basic_auth_users: Mapping[str, str] | None = field(
        default=None, metadata=key("basic_auth_users", bcrypt_hash, keys=username, hidden=True)
    )
    rate_limit: RateLimit | None = None

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield that a section meant to protect lets everybody in."""
        if self.basic_auth_users is not None and not self.basic_auth_users:
            yield ("basic_auth_users",), "names nobody; add a user, or remove the key"
