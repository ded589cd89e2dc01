"""How requests are made over HTTP, in the words of Prometheus's http_config."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from exporter.frozen import dataclass
from exporter.schema import (
    Place,
    as_duration,
    boolean,
    choice,
    duration,
    file_path,
    key,
    plain,
)


def scheme(text: str) -> str:
    """Read an authentication scheme of RFC 9110 that needs no user name."""
    if text.lower() == "basic":
        raise ValueError("needs a user name; write basic_auth instead of authorization")
    if re.fullmatch("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,60}", text):
        return text
    raise ValueError("is not one word; write Bearer")


def username(text: str) -> str:
    """Read a user name of HTTP basic authentication."""
    if ":" in plain(text):
        raise ValueError('holds a ":", which a user name cannot; remove it')
    return text


@dataclass(frozen=True, slots=True)
class Authorization:
    """An Authorization header: scheme, and file with what follows it."""

    credentials_file: Path = field(metadata=key("credentials_file", file_path))
    type: str = field(default="Bearer", metadata=key("type", scheme))


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """User name, and file with the password."""

    username: str = field(metadata=key("username", username))
    password_file: Path = field(metadata=key("password_file", file_path))


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """How a TLS server is verified, and the certificate shown to it.

    Attributes:
        ca_file: Certificates to trust instead of the system's.
        cert_file: Our certificate; together with `key_file`.
        key_file: Its key.
        server_name: The name to verify instead of the URL's host.
        insecure_skip_verify: Whether to verify nothing.
        min_version: TLS12 or TLS13.
    """

    ca_file: Path | None = field(default=None, metadata=key("ca_file", file_path))
    cert_file: Path | None = field(default=None, metadata=key("cert_file", file_path))
    key_file: Path | None = field(default=None, metadata=key("key_file", file_path))
    server_name: str | None = field(default=None, metadata=key("server_name", plain))
    insecure_skip_verify: bool = field(default=False, metadata=key("insecure_skip_verify", boolean))
    min_version: str = field(default="TLS12", metadata=key("min_version", choice("TLS12", "TLS13")))

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield half a certificate."""
        if self.cert_file is not None and self.key_file is None:
            yield ("cert_file",), "has no key; add key_file"
        if self.key_file is not None and self.cert_file is None:
            yield ("key_file",), "has no certificate; add cert_file"


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """Who we are to the other side, and how safe the way there is.

    Attributes:
        authorization: A header with a secret.
        basic_auth: User name and password, instead.
        tls_config: How TLS is spoken.
        allow_http: Whether the URL may be http to another host.
    """

    authorization: Authorization | None = None
    basic_auth: BasicAuth | None = None
    tls_config: TlsConfig = TlsConfig()
    allow_http: bool = field(default=False, metadata=key("allow_http", boolean))

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield two ways to authenticate."""
        if self.authorization is not None and self.basic_auth is not None:
            yield ("basic_auth",), "stands beside authorization; keep one of them"


@dataclass(frozen=True, slots=True)
class Retry:
    """How a request that failed is tried again.

    Attributes:
        min_backoff_seconds: Before the second attempt; doubled from then on.
        max_backoff_seconds: The longest wait between two attempts.
        deadline_seconds: After this, counted from the event, it is given up.
    """

    min_backoff_seconds: float = field(
        default=1.0, metadata=key("min_backoff", duration, at_least="100ms", at_most="1h")
    )
    max_backoff_seconds: float = field(
        default=15.0, metadata=key("max_backoff", duration, at_least="100ms", at_most="1h")
    )
    deadline_seconds: float = field(
        default=600.0, metadata=key("deadline", duration, at_least="1s", at_most="1d")
    )

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield what the times say against each other."""
        least = as_duration(self.min_backoff_seconds)
        if self.max_backoff_seconds < self.min_backoff_seconds:
            yield (
                ("max_backoff",),
                f"is shorter than min_backoff ({least}); write {least} or longer",
            )
        if self.deadline_seconds < self.min_backoff_seconds:
            yield ("deadline",), f"is shorter than min_backoff ({least}); write {least} or longer"
