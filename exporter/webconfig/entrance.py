"""The gate of the HTTP server as a web config file says, read again whenever a file changes."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import ssl
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from exporter.frozen import dataclass
from exporter.httpd import Verdict, Visitor
from exporter.httpd.message import problem
from exporter.schema import ConfigError
from exporter.secretfile import SecretError
from exporter.webconfig.model import WebConfig
from exporter.webconfig.pace import Pace
from exporter.webconfig.passwords import Credentials, Passwords
from exporter.webconfig.tls import alternative_names, normal, server_context, subject

log = logging.getLogger(__name__)

WHO = problem(
    HTTPStatus.UNAUTHORIZED,
    "send a user's name and password",
    (("WWW-Authenticate", 'Basic realm="gpu-node-exporter", charset="UTF-8"'),),
)
TOO_MANY = problem(
    HTTPStatus.TOO_MANY_REQUESTS,
    "too many passwords wait to be checked, try again later",
    (("Retry-After", "1"),),
)
TOO_FAST = problem(
    HTTPStatus.TOO_MANY_REQUESTS, "more requests than rate_limit allows, try again later"
)

Signature = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A web config with all that its files hold."""

    config: WebConfig
    context: ssl.SSLContext | None
    allowed_names: frozenset[str] | None  # in a client's certificate; None: any
    headers: tuple[tuple[str, str], ...]
    pace: Pace | None


def load(path: Path) -> Loaded:
    """Read a web config and the files that it names.

    Raises:
        ConfigError: all that is wrong with it.
    """
    return _complete(path, _parse(path))


def _parse(path: Path) -> WebConfig:
    from exporter import yamlfile  # noqa: PLC0415  yaml is 1.5 MiB that a daemon without a file saves

    return yamlfile.load(path, WebConfig, {})


def _complete(path: Path, config: WebConfig) -> Loaded:
    tls, headers = config.tls_server_config, config.http_server_config.headers.lines()
    pace = None if config.rate_limit is None else Pace(config.rate_limit)
    if tls is None:
        return Loaded(config, None, None, headers, pace)
    try:
        context = server_context(tls, path.parent)
    except SecretError as error:
        raise ConfigError((f"{path}: {error}",)) from error
    names = tls.client_allowed_sans
    allowed = None if names is None else frozenset(map(normal, names))
    return Loaded(config, context, allowed, headers, pace)


def warnings(path: Path, config: WebConfig) -> list[str]:
    """Return what is not wrong, but seldom meant."""
    found = []
    if config.http_server_config.http2:
        found.append("http_server_config.http2: HTTP/1.1 is what is spoken in either case")
    if config.basic_auth_users and path.stat().st_mode & 0o004:
        found.append(f"its hashes are open to every user; chmod o= {path}")
    if config.basic_auth_users and config.tls_server_config is None:
        found.append("passwords go over the network in the clear; add tls_server_config")
    return found


class Entrance:
    """The gate. Belongs to the event loop's thread.

    A changed file holds from the next connection or request on. One that is bad, or that would
    lift a protection, changes nothing: a file that is just being written may look empty.
    """

    def __init__(self, path: Path, told: Callable[[bool], None]) -> None:
        """Take the file, and who is told whether it was good when it has changed.

        Raises:
            ConfigError: all that is wrong with it.
        """
        self._path = path
        self._told = told
        self._watched: tuple[Path, ...] = (path,)
        self._seen: Signature = ()
        self._mistakes: tuple[str, ...] = ()
        self._passwords = Passwords()
        self._loaded = self._read()
        self._passwords.replace(self._loaded.config.basic_auth_users or {})
        for warning in warnings(path, self._loaded.config):
            log.warning("%s: %s", path, warning)

    @property
    def speaks_tls(self) -> bool:
        """Whether a new connection speaks TLS."""
        return self._loaded.context is not None

    def reload(self) -> tuple[str, ...]:
        """Take what has changed; return all that is wrong with it."""
        if _signature(self._watched) != self._seen:
            try:
                loaded = self._read()
                _refuse_less(self._path, self._loaded, loaded)
            except ConfigError as bad:
                self._mistakes = bad.mistakes
            else:
                self._mistakes = ()
                self._loaded = loaded
                self._passwords.replace(loaded.config.basic_auth_users or {})
        return self._mistakes

    def context(self) -> ssl.SSLContext | None:
        """Return what speaks TLS on a new connection."""
        self._look()
        return self._loaded.context

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the headers that the file says."""
        return self._loaded.headers

    def check(self, visitor: Visitor) -> Verdict | asyncio.Future[Verdict]:
        """Return who it is, or the answer that refuses: 401, 403 or 429."""
        self._look()
        if self._loaded.pace is not None and not self._loaded.pace.allows():
            return TOO_FAST
        allowed = self._loaded.allowed_names
        if allowed is not None and allowed.isdisjoint(alternative_names(visitor.certificate)):
            detail = "client_allowed_sans has none of your certificate's names"
            return problem(HTTPStatus.FORBIDDEN, detail)
        if self._loaded.config.basic_auth_users is None or visitor.has_own_guard:
            return subject(visitor.certificate)
        credentials = basic(visitor.authorization)
        if credentials is None:
            return WHO
        if self._passwords.are_known(credentials):
            return credentials.user
        later = self._passwords.compared(credentials, visitor.peer, WHO)
        return TOO_MANY if later is None else later

    def close(self) -> None:
        """Compare no password any more."""
        self._passwords.close()

    def _look(self) -> None:
        if _signature(self._watched) == self._seen:
            return
        mistakes = self.reload()
        for mistake in mistakes:
            log.error("web config not reloaded: %s", mistake)
        if not mistakes:
            log.info("web config reloaded")
        self._told(not mistakes)

    def _read(self) -> Loaded:
        # The signatures come first: what changes meanwhile is read again.
        self._seen = _signature(self._watched)
        config = _parse(self._path)
        files = _files(self._path, config)
        if files != self._watched:
            self._watched, self._seen = files, (*self._seen[:1], *_signature(files[1:]))
        return _complete(self._path, config)


def basic(authorization: str) -> Credentials | None:
    """Return what an Authorization header of RFC 7617 says, None if it is none."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return Credentials(user.decode(), password) if colon else None
    except ValueError:
        return None


def _refuse_less(path: Path, old: Loaded, new: Loaded) -> None:
    """Refuse to lift a protection while connections and requests come in.

    Raises:
        ConfigError: The new config has one less.
    """
    was, now = old.config, new.config
    lifted = []
    if now.basic_auth_users is None and was.basic_auth_users is not None:
        lifted.append("basic_auth_users")
    if new.context is None and old.context is not None:
        lifted.append("tls_server_config")
    elif new.context is not None and old.context is not None:
        if new.context.verify_mode < old.context.verify_mode:
            lifted.append("the client certificate of tls_server_config.client_auth_type")
        if new.allowed_names is None and old.allowed_names is not None:
            lifted.append("tls_server_config.client_allowed_sans")
    if lifted:
        raise ConfigError(
            tuple(f"{path}: {what} is gone; that takes effect at a restart" for what in lifted)
        )


def _files(path: Path, config: WebConfig) -> tuple[Path, ...]:
    """Return all that has to be read, the file itself first."""
    tls = config.tls_server_config
    named = () if tls is None else (tls.cert_file, tls.key_file, tls.client_ca_file)
    return (path, *(path.parent / file for file in named if file is not None))


def _signature(files: tuple[Path, ...]) -> Signature:
    """Return what differs once any of some files has changed."""
    return tuple(map(_stamp, files))


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(file)  # noqa: PTH116  for each request: a Path's own costs twice as much
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_ctime_ns
