"""Calls to a Kubernetes API server, and what its answers mean for a request to scale out."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlencode

from exporter.config import KubernetesConfig
from exporter.frozen import dataclass
from exporter.scaleout.answers import answered_at, refused_for_now
from exporter.scaleout.client import Answer, HttpClient, HttpFailedError
from exporter.scaleout.clock import Clock
from exporter.scaleout.model import Attempt, Outcome

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
NO_QUERY: Mapping[str, str] = MappingProxyType({})
MAX_CONFLICTS = 5  # of one write, until the attempt ends

HINTS: tuple[tuple[int, str], ...] = (
    (HTTPStatus.BAD_REQUEST, "is api_server the URL of an API server?"),
    (HTTPStatus.UNAUTHORIZED, "the token is not valid (any more)"),
    (HTTPStatus.FORBIDDEN, "the token's role does not allow it"),
    (HTTPStatus.NOT_FOUND, "check api_server, namespace and apiVersion"),
    (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "is there a proxy that changes Content-Type?"),
    (HTTPStatus.UNPROCESSABLE_ENTITY, "the object's own rules refuse it"),
)


class EndedError(Exception):
    """An attempt is over: how it went."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__(attempt.error)
        self.attempt = attempt


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is not the end of the attempt.

    Attributes:
        status: Of HTTP.
        body: The object, or the Status of what did not work.
        at: When the server answered, in seconds since the epoch by its own clock.
    """

    status: int
    body: Mapping[str, Any]
    at: float

    @property
    def version(self) -> str:
        """The object's resourceVersion.

        Raises:
            EndedError: There is none.
        """
        version = section(self.body, "metadata").get("resourceVersion")
        if isinstance(version, str) and version:
            return version
        raise EndedError(Attempt(Outcome.RETRY, self.status, "an object without resourceVersion"))


class ApiServer:
    """One API server. For one thread at a time."""

    def __init__(self, config: KubernetesConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._client = HttpClient(config.http_config, config.timeout_seconds)

    def read(
        self, path: str, also: Collection[int] = (), query: Mapping[str, str] = NO_QUERY
    ) -> Reply:
        """Get an object or a list.

        Args:
            path: As `resource_path` makes it.
            also: Statuses beside 2xx that the caller takes care of.
            query: Of the URL.

        Raises:
            EndedError: It ends the attempt.
        """
        return self._call("GET", path, b"", {"Accept": JSON}, query, also)

    def write(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        *,
        also: Collection[int],
        dry_run: bool,
    ) -> Reply:
        """Send an object, or with PATCH what changes of one; a dry run stores nothing.

        Raises:
            EndedError: It ends the attempt.
        """
        media_type = MERGE_PATCH if method == "PATCH" else JSON
        query = {"fieldManager": "gpu-node-exporter", "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        headers = {"Accept": JSON, "Content-Type": media_type}
        return self._call(method, path, json.dumps(body).encode(), headers, query, also)

    def _call(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        also: Collection[int],
    ) -> Reply:
        url = f"{self._config.api_server.rstrip('/')}{path}"
        if query:
            url += f"?{urlencode(query)}"
        try:
            answer = self._client.request(method, url, body=body, headers=headers)
        except HttpFailedError as error:
            raise EndedError(Attempt(Outcome.RETRY, error=f"{error.kind}: {error}")) from error
        what = f"{method} {path}"
        is_good = HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES
        if not is_good and answer.status not in also:
            raise EndedError(self._refusal(what, answer))
        found = _object(answer.body)
        if found is None and is_good:
            text = f"{what}: not an object as of Kubernetes, or larger than 64 KiB"
            raise EndedError(Attempt(Outcome.RETRY, answer.status, text))
        at = answered_at(answer)
        return Reply(answer.status, found or {}, self._clock.wall() if at is None else at)

    def _refusal(self, what: str, answer: Answer) -> Attempt:
        """Return how the attempt ends; its text has nothing of the body, which may hold secrets."""
        status = answer.status
        hint = dict(HINTS).get(status, "")
        error = f"{what}: it answered {status}" + (f"; {hint}" if hint else "")
        # 410 Gone is of a list that took too long to page through.
        passing = (HTTPStatus.CONFLICT, HTTPStatus.GONE)
        again = refused_for_now(answer, error, self._config.retry, self._clock, passing)
        if again is not None:
            return again
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            error += "; redirects are not followed, api_server needs the final URL"
        return Attempt(Outcome.DEAD, status, error)


def resource_path(api_version: str, namespace: str, *parts: str) -> str:
    """Return the URL's path of a namespaced resource: `parts` are plural, name, subresource."""
    root = ["apis", *api_version.split("/")] if "/" in api_version else ["api", api_version]
    names = [*root, "namespaces", namespace, *parts]
    return "/" + "/".join(quote(name, safe="") for name in names)


def section(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object within an object; an empty one if there is none, as Kubernetes means it."""
    found = body.get(name)
    return found if isinstance(found, dict) else {}


def _object(body: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
