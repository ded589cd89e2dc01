"""TLS as a `tls_config` says: what is trusted, what is shown, and why it failed."""

from __future__ import annotations

import math
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.config import TlsConfig
from exporter.scaleout.client import HttpFailedError
from exporter.secretfile import SecretError, refuse_public

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer  # there for checkers alone

VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}


class BoundedSocket(socket.socket):
    """A socket on which all waiting ends at `deadline`, in monotonic seconds."""

    deadline = math.inf

    def arm(self) -> None:
        """Let the next call wait until the deadline.

        Raises:
            TimeoutError: It has passed.
        """
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self.settimeout(remaining)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        """Receive as a socket does, until the deadline."""
        self.arm()
        return super().recv_into(buffer, nbytes or 0, flags)

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """Send as a socket does, until the deadline."""
        self.arm()
        return super().send(data, flags)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """Send as a socket does, until the deadline."""
        self.arm()
        super().sendall(data, flags)


class _BoundedTlsSocket(BoundedSocket, ssl.SSLSocket):
    """The same within TLS; made by SSLContext.wrap_socket."""


def secured(plain: BoundedSocket, context: ssl.SSLContext, server_name: str) -> socket.socket:
    """Return the TLS layer of a connected socket, the server's certificate verified.

    Raises:
        HttpFailedError: The handshake failed, or the certificate is not to be trusted.
    """
    try:
        plain.arm()
        layer = context.wrap_socket(plain, server_hostname=server_name)
    except OSError as error:
        plain.close()
        raise tls_failure(error) from error
    if isinstance(layer, BoundedSocket):
        layer.deadline = plain.deadline
    return layer


def tls_context(config: TlsConfig) -> ssl.SSLContext:
    """Return what trusts and shows the certificates of a `tls_config`, read anew.

    Raises:
        SecretError: A file is missing or not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = VERSIONS[config.min_version]
    context.sslsocket_class = _BoundedTlsSocket
    if config.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif config.ca_file is not None:
        with _naming(config.ca_file):
            context.load_verify_locations(config.ca_file)
    else:
        _trust_system(context)
    if config.cert_file is not None:
        key_file = config.key_file or config.cert_file
        with _naming(key_file):
            refuse_public(key_file, key_file.stat())
        with _naming(config.cert_file, key_file):
            # An encrypted key would ask for its password on a terminal.
            context.load_cert_chain(config.cert_file, config.key_file, password="")
    return context


def _trust_system(context: ssl.SSLContext) -> None:
    """Trust what the system trusts, whatever SSL_CERT_FILE says; certifi where that is nothing."""
    from requests.utils import DEFAULT_CA_BUNDLE_PATH  # noqa: PLC0415  for this case alone

    paths = ssl.get_default_verify_paths()
    file, folder = Path(paths.openssl_cafile), Path(paths.openssl_capath)
    has_folder = folder.is_dir() and any(folder.iterdir())
    if file.is_file():
        context.load_verify_locations(cafile=file)
    if has_folder:
        context.load_verify_locations(capath=folder)
    if not (file.is_file() or has_folder):
        context.load_verify_locations(cafile=DEFAULT_CA_BUNDLE_PATH)


@contextmanager
def _naming(*files: Path) -> Iterator[None]:
    """Turn an error of what is done with files into one that names them."""
    names = " and ".join(map(str, files))
    try:
        yield
    except ssl.SSLError as error:
        raise SecretError(f"{names}: no usable PEM: {error.reason or error}") from error
    except OSError as error:
        raise SecretError(f"cannot read {names}: {error.strerror}") from error


def tls_failure(error: OSError) -> HttpFailedError:
    """Return a failure of TLS in words for people."""
    if isinstance(error, TimeoutError):
        return HttpFailedError("timeout", "the TLS handshake took too long")
    if isinstance(error, ssl.SSLCertVerificationError):
        return HttpFailedError("tls", f"certificate not trusted: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return HttpFailedError("tls", f"TLS failed: {error.reason or 'unknown reason'}")
    return HttpFailedError("tls", f"the TLS handshake broke off: {error.strerror}")
