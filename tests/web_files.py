"""Certificates and web config files, as an operator lays them out; and clients that fit them."""

from __future__ import annotations

import base64
import ssl
import warnings
from functools import cache
from pathlib import Path

import bcrypt
import trustme

TLS = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n"
CLIENT_NAME = "prometheus.internal"


@cache
def hashed(password: str, cost: int = 4) -> str:
    """Return a bcrypt hash; of the lowest cost, unless that matters."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def users(**passwords: str) -> str:
    """Return the section of some users."""
    lines = (f"  {user}: {hashed(password)}\n" for user, password in passwords.items())
    return f"basic_auth_users:\n{''.join(lines)}"


def basic(user: str, password: str) -> str:
    """Return the header with which a client says who it is."""
    return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


class WebFiles:
    """A folder with an authority, a server's certificate and web.yml."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "web.yml"
        self.authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        self.renew()

    def write(self, text: str) -> Path:
        """Write web.yml, as whole as a rename makes it."""
        draft = self.folder / "web.yml.new"
        draft.write_text(text)
        draft.chmod(0o640)
        return draft.replace(self.config)

    def renew(self, authority: trustme.CA | None = None) -> None:
        """Issue another certificate to the server; a stranger may do so too."""
        leaf = (authority or self.authority).issue_cert("localhost", "127.0.0.1")
        self._keep(leaf, "server")

    def client(self, *names: str, authority: trustme.CA | None = None) -> tuple[Path, Path]:
        """Issue a certificate to a client; return its file and that of its key."""
        return self._keep((authority or self.authority).issue_cert(*names), "client")

    def trusting(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """Return a client that trusts the authority, and may show a certificate."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context

    def old(self, version: ssl.TLSVersion) -> ssl.SSLContext:
        """Return a client that speaks one old version, whatever its own OpenSSL thinks of that."""
        context = self.trusting()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = version
            context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
        return context

    def _keep(self, leaf: trustme.LeafCert, name: str) -> tuple[Path, Path]:
        chain, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        drafts = [self.folder / f"{name}.{kind}.new" for kind in ("pem", "key")]
        drafts[0].write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        drafts[1].touch(0o600)
        drafts[1].write_bytes(leaf.private_key_pem.bytes())
        for draft, file in zip(drafts, (chain, key), strict=True):
            draft.replace(file)
        return chain, key
